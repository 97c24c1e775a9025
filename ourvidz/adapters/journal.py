"""The journal: jobs, their rendered files and the callbacks still owed, in SQLite.

A row's ``spec`` and ``result`` are JSON of the domain's own types, so that what was accepted is
what is answered, whatever the configuration says after a restart.
"""

from __future__ import annotations

import sqlite3
from collections.abc import Sequence
from typing import TypeVar
from uuid import UUID

import orjson
from pydantic import TypeAdapter

from ourvidz.adapters.database import Database
from ourvidz.jobs import Asset, InvalidJob, JobResult, JobSpec, JobState, check_transition
from ourvidz.ports import Answer, Clock, JobRecord, Known
from ourvidz.wire import event_id

JOURNAL_SCHEMA = """
CREATE TABLE IF NOT EXISTS jobs (
    id TEXT PRIMARY KEY,
    digest TEXT NOT NULL,
    spec BLOB NOT NULL,
    queue TEXT NOT NULL,
    claim_id TEXT,
    state TEXT NOT NULL,
    attempts INTEGER NOT NULL DEFAULT 0,
    created_at REAL NOT NULL,
    started_at REAL,
    completed_at REAL,
    result BLOB
);
CREATE INDEX IF NOT EXISTS jobs_created ON jobs (created_at);
CREATE TABLE IF NOT EXISTS assets (
    job_id TEXT NOT NULL REFERENCES jobs (id) ON DELETE CASCADE,
    idx INTEGER NOT NULL,
    data BLOB NOT NULL,
    PRIMARY KEY (job_id, idx)
);
CREATE TABLE IF NOT EXISTS answers (
    event_id TEXT PRIMARY KEY,
    job_id TEXT NOT NULL,
    claim_id TEXT,
    body BLOB,
    attempts INTEGER NOT NULL DEFAULT 0,
    parked INTEGER NOT NULL DEFAULT 0,
    error TEXT,
    created_at REAL NOT NULL
);
CREATE INDEX IF NOT EXISTS answers_job ON answers (job_id);
CREATE TABLE IF NOT EXISTS rejected (
    id TEXT PRIMARY KEY,
    data BLOB NOT NULL,
    created_at REAL NOT NULL
);
"""

T = TypeVar("T")

_SPEC = TypeAdapter(JobSpec)
_RESULT = TypeAdapter(JobResult)
_ASSET = TypeAdapter(Asset)
_INVALID = TypeAdapter(InvalidJob)
_COLUMNS = (
    "SELECT jobs.spec, jobs.queue, jobs.claim_id, jobs.state, jobs.attempts, jobs.created_at, "
    "jobs.started_at, jobs.completed_at, jobs.result, "
    "EXISTS (SELECT 1 FROM answers a WHERE a.job_id = jobs.id AND NOT a.parked), "
    "EXISTS (SELECT 1 FROM answers a WHERE a.job_id = jobs.id AND a.parked) FROM jobs "
)
# The claim of a job that still needs one: it has not ended, or its answer is owed.
_HELD = (
    "SELECT claim_id FROM jobs WHERE id = ?1 AND "
    "(state NOT IN ('completed', 'failed', 'cancelled') "
    "OR EXISTS (SELECT 1 FROM answers WHERE job_id = ?1 AND NOT parked))"
)
# Jobs may be created at the same instant, so the id is part of the order.
_AFTER = "AND (created_at, id) < (SELECT c.created_at, c.id FROM jobs c WHERE c.id = ?)"
_ENDED = {
    "completed": JobState.RENDERED,
    "failed": JobState.FAILED,
    "cancelled": JobState.CANCELLED,
}


class SqliteJournal:
    """``ports.Journal`` over the database's one thread."""

    def __init__(self, database: Database, clock: Clock) -> None:
        self._database = database
        self._clock = clock

    async def accept(self, spec: JobSpec, queue: str, claim_id: str | None) -> Known:
        now = self._clock.wall()
        state = JobState.QUEUED if claim_id is None else JobState.CLAIMED
        row = (str(spec.id), spec.digest, _SPEC.dump_json(spec), queue, claim_id, state.value, now)

        def operation(connection: sqlite3.Connection) -> Known:
            known = _known(connection, spec)
            if known is Known.NEW:
                connection.execute(
                    "INSERT INTO jobs (id, digest, spec, queue, claim_id, state, created_at) "
                    "VALUES (?, ?, ?, ?, ?, ?, ?)",
                    row,
                )
            elif known is Known.QUEUED and claim_id is not None:
                connection.execute(
                    "UPDATE jobs SET state = ?, claim_id = ? WHERE id = ?",
                    (state.value, claim_id, str(spec.id)),
                )
            return known

        return await self._database.run(operation)

    async def adopt(self, job_id: UUID, claim_id: str) -> str | None:
        def operation(connection: sqlite3.Connection) -> str | None:
            held = connection.execute(_HELD, (str(job_id),)).fetchone()
            if held is None or held[0] == claim_id:
                return claim_id if held is None else None
            connection.execute("UPDATE jobs SET claim_id = ? WHERE id = ?", (claim_id, str(job_id)))
            return None if held[0] is None else str(held[0])

        return await self._database.run(operation)

    async def known(self, spec: JobSpec) -> Known:
        return await self._database.run(lambda c: _known(c, spec))

    async def get(self, job_id: UUID) -> JobRecord | None:
        def operation(connection: sqlite3.Connection) -> JobRecord | None:
            row = connection.execute(_COLUMNS + "WHERE id = ?", (str(job_id),)).fetchone()
            return None if row is None else _record(row)

        return await self._database.run(operation)

    async def recent(
        self, limit: int, before: UUID | None, state: str | None
    ) -> Sequence[JobRecord]:
        states = [s.value for s in JobState if state is None or s.status == state]
        marks = ", ".join("?" * len(states))
        after = "" if before is None else _AFTER
        cursor = () if before is None else (str(before),)

        def operation(connection: sqlite3.Connection) -> list[JobRecord]:
            rows = connection.execute(
                f"{_COLUMNS} WHERE state IN ({marks}) {after} "
                "ORDER BY created_at DESC, id DESC LIMIT ?",
                (*states, *cursor, limit),
            )
            return [_record(row) for row in rows.fetchall()]

        return await self._database.run(operation)

    async def move(self, job_id: UUID, state: JobState) -> None:
        now = self._clock.wall()

        def operation(connection: sqlite3.Connection) -> None:
            _move(connection, job_id, state)
            if state is JobState.RUNNING:
                connection.execute(
                    "UPDATE jobs SET started_at = coalesce(started_at, ?), attempts = attempts + 1 "
                    "WHERE id = ?",
                    (now, str(job_id)),
                )

        await self._database.run(operation)

    async def add_asset(self, job_id: UUID, asset: Asset) -> None:
        await self._database.run(
            lambda c: c.execute(
                "INSERT OR REPLACE INTO assets VALUES (?, ?, ?)",
                (str(job_id), asset.index, _ASSET.dump_json(asset)),
            )
        )

    async def assets(self, job_id: UUID) -> Sequence[Asset]:
        def operation(connection: sqlite3.Connection) -> list[Asset]:
            rows = connection.execute(
                "SELECT data FROM assets WHERE job_id = ? ORDER BY idx", (str(job_id),)
            )
            return [_read(_ASSET, row[0]) for row in rows.fetchall()]

        return await self._database.run(operation)

    async def finish(self, job_id: UUID, result: JobResult, answer: bool) -> None:
        owed = answer and result.status != "completed"
        await self._ended(job_id, result, _ENDED[result.status], owed)

    async def uploaded(self, job_id: UUID, result: JobResult) -> None:
        state = JobState.COMPLETED if result.status == "completed" else JobState.FAILED
        await self._ended(job_id, result, state, owed=True)

    async def cancel_queued(self, job_id: UUID, result: JobResult) -> bool:
        now, data = self._clock.wall(), _RESULT.dump_json(result)

        def operation(connection: sqlite3.Connection) -> bool:
            if _state(connection, job_id) is not JobState.QUEUED:
                return False
            _end(connection, job_id, data, JobState.CANCELLED, now)
            _owe(connection, job_id, result, now)
            return True

        return await self._database.run(operation)

    async def _ended(self, job_id: UUID, result: JobResult, state: JobState, owed: bool) -> None:
        now, data = self._clock.wall(), _RESULT.dump_json(result)

        def operation(connection: sqlite3.Connection) -> None:
            _end(connection, job_id, data, state, now)
            if owed:
                _owe(connection, job_id, result, now)

        await self._database.run(operation)

    async def reject(self, invalid: InvalidJob, claim_id: str | None, body: bytes) -> bool:
        now = self._clock.wall()
        data = _INVALID.dump_json(invalid)
        key = _key(invalid.id or "")

        def operation(connection: sqlite3.Connection) -> bool:
            taken = connection.execute(
                "SELECT 1 FROM jobs WHERE id = ?1 UNION ALL SELECT 1 FROM rejected WHERE id = ?1",
                (key,),
            ).fetchone()
            if taken is not None:
                return False
            connection.execute("INSERT INTO rejected VALUES (?, ?, ?)", (key, data, now))
            connection.execute(
                "INSERT INTO answers (event_id, job_id, claim_id, body, created_at) "
                "VALUES (?, ?, ?, ?, ?)",
                (event_id(key, "failed"), key, claim_id, body, now),
            )
            return True

        return await self._database.run(operation)

    async def rejected(self, job_id: str) -> InvalidJob | None:
        def operation(connection: sqlite3.Connection) -> InvalidJob | None:
            select = "SELECT data FROM rejected WHERE id = ?"
            row = connection.execute(select, (_key(job_id),)).fetchone()
            return None if row is None else _read(_INVALID, row[0])

        return await self._database.run(operation)

    async def answers(self, job_id: str | None = None) -> Sequence[Answer]:
        def operation(connection: sqlite3.Connection) -> list[Answer]:
            rows = connection.execute(
                "SELECT job_id, event_id, claim_id, body, attempts FROM answers "
                "WHERE NOT parked AND (?1 IS NULL OR job_id = ?1) ORDER BY created_at, event_id",
                (None if job_id is None else _key(job_id),),
            )
            return [Answer(*row) for row in rows.fetchall()]

        return await self._database.run(operation)

    async def answer_failed(self, event_id: str, error: str, park: bool) -> int:
        def operation(connection: sqlite3.Connection) -> int:
            row = connection.execute(
                "UPDATE answers SET attempts = attempts + 1, error = ?, parked = ? "
                "WHERE event_id = ? RETURNING attempts",
                (error, park, event_id),
            ).fetchone()
            return 0 if row is None else int(row[0])

        return await self._database.run(operation)

    async def answered(self, event_id: str) -> None:
        await self._database.run(
            lambda c: c.execute("DELETE FROM answers WHERE event_id = ?", (event_id,))
        )

    async def parked(self) -> int:
        return await self._database.run(
            lambda c: int(c.execute("SELECT count(*) FROM answers WHERE parked").fetchone()[0])
        )

    async def requeue(self, job_id: UUID) -> None:
        def operation(connection: sqlite3.Connection) -> None:
            _move(connection, job_id, JobState.QUEUED)
            connection.execute(
                "UPDATE jobs SET claim_id = NULL, started_at = NULL, completed_at = NULL, "
                "result = NULL WHERE id = ?",
                (str(job_id),),
            )
            connection.execute("DELETE FROM assets WHERE job_id = ?", (str(job_id),))

        await self._database.run(operation)

    async def in_states(self, *states: JobState) -> Sequence[JobRecord]:
        marks = ", ".join("?" * len(states))

        def operation(connection: sqlite3.Connection) -> list[JobRecord]:
            rows = connection.execute(
                f"{_COLUMNS} WHERE state IN ({marks}) ORDER BY created_at, id",
                [state.value for state in states],
            )
            return [_record(row) for row in rows.fetchall()]

        return await self._database.run(operation)


def _read(adapter: TypeAdapter[T], data: bytes) -> T:
    """Decoded by the border's own decoder: pydantic's refuses what is nested 200 levels deep, and a
    row that could be written and not be read would stop every start."""
    return adapter.validate_python(orjson.loads(data))


def _key(job_id: str) -> str:
    """The one spelling of an id. What has no UUID's form stands for itself; what has one in another
    spelling (without hyphens, in braces) is that job's id to the backend too."""
    try:
        return str(UUID(job_id))
    except ValueError:
        return job_id


def _known(connection: sqlite3.Connection, spec: JobSpec) -> Known:
    row = connection.execute(
        "SELECT digest, state FROM jobs WHERE id = ?", (str(spec.id),)
    ).fetchone()
    if row is None:
        refused = connection.execute("SELECT 1 FROM rejected WHERE id = ?", (str(spec.id),))
        return Known.NEW if refused.fetchone() is None else Known.CONFLICT
    if row[0] != spec.digest:
        return Known.CONFLICT
    state = JobState(row[1])
    if state is JobState.QUEUED:
        return Known.QUEUED
    return Known.ENDED if state.terminal else Known.ACTIVE


def _state(connection: sqlite3.Connection, job_id: UUID) -> JobState:
    """Raises ``KeyError``."""
    row = connection.execute("SELECT state FROM jobs WHERE id = ?", (str(job_id),)).fetchone()
    if row is None:
        raise KeyError(str(job_id))
    return JobState(row[0])


def _move(connection: sqlite3.Connection, job_id: UUID, state: JobState) -> None:
    """Check and make one move. Raises ``KeyError`` or ``IllegalTransition``."""
    check_transition(job_id, _state(connection, job_id), state)
    connection.execute("UPDATE jobs SET state = ? WHERE id = ?", (state.value, str(job_id)))


def _end(
    connection: sqlite3.Connection,
    job_id: UUID,
    data: bytes,
    state: JobState,
    now: float,
) -> None:
    _move(connection, job_id, state)
    connection.execute(
        "UPDATE jobs SET result = ?, completed_at = ? WHERE id = ?",
        (data, now if state.terminal else None, str(job_id)),
    )


def _owe(connection: sqlite3.Connection, job_id: UUID, result: JobResult, now: float) -> None:
    """A terminal callback is due; a cancelled job is answered as failed."""
    event = event_id(job_id, "completed" if result.status == "completed" else "failed")
    connection.execute(
        "INSERT INTO answers (event_id, job_id, claim_id, created_at) "
        "SELECT ?, id, claim_id, ? FROM jobs WHERE id = ?",
        (event, now, str(job_id)),
    )


def _record(
    row: tuple[bytes, str, str | None, str, int, float, float, float, bytes, int, int],
) -> JobRecord:
    spec, queue, claim_id, state, attempts, created, started, completed, result, owed, dead = row
    return JobRecord(
        spec=_read(_SPEC, spec),
        queue=queue,
        claim_id=claim_id,
        state=JobState(state),
        attempts=attempts,
        created_at=created,
        started_at=started,
        completed_at=completed,
        result=None if result is None else _read(_RESULT, result),
        undelivered=bool(owed),
        parked=bool(dead),
    )
