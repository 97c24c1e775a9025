"""The journal: jobs, their rendered files and the callbacks still owed, in SQLite."""

from __future__ import annotations

import sqlite3
from collections.abc import Collection, Mapping, Sequence
from uuid import UUID

import orjson

from ourvidz.adapters.database import Database
from ourvidz.adapters.journal_rows import (
    ASSET,
    COLUMNS,
    ENDED_JOBS_MAX,
    HELD,
    INVALID,
    JOURNAL_SCHEMA,
    RESULT,
    SPEC,
    TEXT,
    UNPARK,
    end,
    forget,
    known_as,
    move,
    owe,
    read,
    record_of,
    state_of,
)
from ourvidz.jobs import Asset, InvalidJob, JobResult, JobSpec, JobState, TextResult
from ourvidz.ports import Answer, Clock, JobRecord, Known, ParkedAnswer
from ourvidz.wire import event_id, job_key

__all__ = ["JOURNAL_SCHEMA", "SqliteJournal"]

# Jobs may be created at the same instant, so the id is part of the order.
_AFTER = "AND (created_at, id) < (SELECT c.created_at, c.id FROM jobs c WHERE c.id = ?)"
_ENDED = {
    "completed": JobState.RENDERED,
    "failed": JobState.FAILED,
    "cancelled": JobState.CANCELLED,
}
# How many writes lie between two looks for what is old: one takes as long as a hundred others.
_FORGET_EVERY = 1000


class SqliteJournal:
    """``ports.Journal`` over the database's one thread."""

    def __init__(self, database: Database, clock: Clock) -> None:
        self._database = database
        self._clock = clock
        self._written = 0

    @property
    def trouble(self) -> str | None:
        return self._database.trouble

    async def accept(self, spec: JobSpec, queue: str, claim_id: str | None) -> Known:
        now = self._clock.wall()
        state = JobState.QUEUED if claim_id is None else JobState.CLAIMED
        row = (str(spec.id), spec.digest, SPEC.dump_json(spec), queue, claim_id, state.value, now)
        due = self._forgetting_due()

        def operation(connection: sqlite3.Connection) -> Known:
            known = known_as(connection, spec)
            if known is Known.NEW:
                connection.execute(
                    "INSERT INTO jobs (id, digest, spec, queue, claim_id, state, created_at) "
                    "VALUES (?, ?, ?, ?, ?, ?, ?)",
                    row,
                )
                if due:
                    forget(connection, ENDED_JOBS_MAX)
            elif known is Known.QUEUED and claim_id is not None:
                connection.execute(
                    "UPDATE jobs SET state = ?, claim_id = ? WHERE id = ?",
                    (state.value, claim_id, str(spec.id)),
                )
            return known

        return await self._database.run(operation)

    async def adopt(self, job_id: UUID, claim_id: str) -> str | None:
        def operation(connection: sqlite3.Connection) -> str | None:
            held = connection.execute(HELD, (str(job_id),)).fetchone()
            if held is None or held[0] == claim_id:
                return claim_id if held is None else None
            connection.execute("UPDATE jobs SET claim_id = ? WHERE id = ?", (claim_id, str(job_id)))
            return None if held[0] is None else str(held[0])

        return await self._database.run(operation)

    async def known(self, spec: JobSpec) -> Known:
        return await self._database.run(lambda c: known_as(c, spec))

    async def get(self, job_id: UUID) -> JobRecord | None:
        def operation(connection: sqlite3.Connection) -> JobRecord | None:
            row = connection.execute(COLUMNS + "WHERE id = ?", (str(job_id),)).fetchone()
            return None if row is None else record_of(row)

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
                f"{COLUMNS} WHERE state IN ({marks}) {after} "
                "ORDER BY created_at DESC, id DESC LIMIT ?",
                (*states, *cursor, limit),
            )
            return [record_of(row) for row in rows.fetchall()]

        return await self._database.run(operation)

    async def move(self, job_id: UUID, state: JobState) -> None:
        now = self._clock.wall()

        def operation(connection: sqlite3.Connection) -> None:
            move(connection, job_id, state)
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
                (str(job_id), asset.index, ASSET.dump_json(asset)),
            )
        )

    async def assets(self, job_id: UUID) -> Sequence[Asset]:
        def operation(connection: sqlite3.Connection) -> list[Asset]:
            rows = connection.execute(
                "SELECT data FROM assets WHERE job_id = ? ORDER BY idx", (str(job_id),)
            )
            return [read(ASSET, row[0]) for row in rows.fetchall()]

        return await self._database.run(operation)

    async def add_text(self, job_id: UUID, part: int, text: TextResult) -> None:
        await self._database.run(
            lambda c: c.execute(
                "INSERT OR REPLACE INTO texts VALUES (?, ?, ?)",
                (str(job_id), part, TEXT.dump_json(text)),
            )
        )

    async def texts(self, job_id: UUID) -> Mapping[int, TextResult]:
        def operation(connection: sqlite3.Connection) -> dict[int, TextResult]:
            rows = connection.execute(
                "SELECT part, data FROM texts WHERE job_id = ? ORDER BY part", (str(job_id),)
            )
            return {part: read(TEXT, data) for part, data in rows.fetchall()}

        return await self._database.run(operation)

    async def finish(self, job_id: UUID, result: JobResult, answer: bool) -> None:
        owed = answer and result.status != "completed"
        await self._ended(job_id, result, _ENDED[result.status], owed)

    async def uploaded(self, job_id: UUID, result: JobResult) -> None:
        state = JobState.COMPLETED if result.status == "completed" else JobState.FAILED
        await self._ended(job_id, result, state, owed=True)

    async def cancel_queued(self, job_id: UUID, result: JobResult) -> bool:
        now, data = self._clock.wall(), RESULT.dump_json(result)

        def operation(connection: sqlite3.Connection) -> bool:
            if state_of(connection, job_id) is not JobState.QUEUED:
                return False
            end(connection, job_id, data, JobState.CANCELLED, now)
            owe(connection, job_id, result, now)
            return True

        return await self._database.run(operation)

    async def _ended(self, job_id: UUID, result: JobResult, state: JobState, owed: bool) -> None:
        now, data = self._clock.wall(), RESULT.dump_json(result)

        def operation(connection: sqlite3.Connection) -> None:
            end(connection, job_id, data, state, now)
            if owed:
                owe(connection, job_id, result, now)

        await self._database.run(operation)

    async def reject(self, invalid: InvalidJob, body: bytes) -> bool:
        now = self._clock.wall()
        data = INVALID.dump_json(invalid)
        key = job_key(invalid.id or "")
        due = self._forgetting_due()

        def operation(connection: sqlite3.Connection) -> bool:
            taken = connection.execute(
                "SELECT 1 FROM jobs WHERE id = ?1 UNION ALL SELECT 1 FROM rejected WHERE id = ?1",
                (key,),
            ).fetchone()
            if taken is not None:
                return False
            connection.execute("INSERT INTO rejected VALUES (?, ?, ?)", (key, data, now))
            connection.execute(
                "INSERT INTO answers (event_id, job_id, body, created_at) VALUES (?, ?, ?, ?)",
                (event_id(key, "failed"), key, body, now),
            )
            if due:
                forget(connection, ENDED_JOBS_MAX)
            return True

        return await self._database.run(operation)

    async def rejected(self, job_id: str) -> InvalidJob | None:
        def operation(connection: sqlite3.Connection) -> InvalidJob | None:
            select = "SELECT data FROM rejected WHERE id = ?"
            row = connection.execute(select, (job_key(job_id),)).fetchone()
            return None if row is None else read(INVALID, row[0])

        return await self._database.run(operation)

    async def answers(self, job_id: str | None = None) -> Sequence[Answer]:
        def operation(connection: sqlite3.Connection) -> list[Answer]:
            rows = connection.execute(
                "SELECT job_id, event_id, body FROM answers "
                "WHERE NOT parked AND (?1 IS NULL OR job_id = ?1) ORDER BY created_at, event_id",
                (None if job_id is None else job_key(job_id),),
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

    async def unpark(self, event_ids: Collection[str] | None, limit: int) -> Sequence[str]:
        named = None if event_ids is None else orjson.dumps(list(event_ids)).decode()

        def operation(connection: sqlite3.Connection) -> list[str]:
            return [row[0] for row in connection.execute(UNPARK, (named, limit)).fetchall()]

        return await self._database.run(operation)

    async def parked_answers(self, limit: int) -> Sequence[ParkedAnswer]:
        def operation(connection: sqlite3.Connection) -> list[ParkedAnswer]:
            rows = connection.execute(
                "SELECT event_id, job_id, attempts, error, created_at FROM answers "
                "WHERE parked ORDER BY created_at, event_id LIMIT ?",
                (limit,),
            )
            return [ParkedAnswer(*row) for row in rows.fetchall()]

        return await self._database.run(operation)

    async def parked(self) -> int:
        return await self._database.run(
            lambda c: int(c.execute("SELECT count(*) FROM answers WHERE parked").fetchone()[0])
        )

    async def requeue(self, job_id: UUID) -> None:
        def operation(connection: sqlite3.Connection) -> None:
            move(connection, job_id, JobState.QUEUED)
            connection.execute(
                "UPDATE jobs SET claim_id = NULL, started_at = NULL, completed_at = NULL, "
                "result = NULL WHERE id = ?",
                (str(job_id),),
            )
            connection.execute("DELETE FROM answers WHERE job_id = ?", (str(job_id),))

        await self._database.run(operation)

    async def set_aside(self, job_ids: Collection[UUID]) -> None:
        rows = [(str(job_id),) for job_id in job_ids]

        def operation(connection: sqlite3.Connection) -> None:
            connection.execute("DELETE FROM aside")
            connection.executemany("INSERT INTO aside VALUES (?)", rows)

        await self._database.run(operation)

    async def aside(self) -> frozenset[UUID]:
        def operation(connection: sqlite3.Connection) -> frozenset[UUID]:
            return frozenset(UUID(row[0]) for row in connection.execute("SELECT * FROM aside"))

        return await self._database.run(operation)

    async def in_states(self, *states: JobState) -> Sequence[JobRecord]:
        marks = ", ".join("?" * len(states))

        def operation(connection: sqlite3.Connection) -> list[JobRecord]:
            rows = connection.execute(
                f"{COLUMNS} WHERE state IN ({marks}) ORDER BY created_at, id",
                [state.value for state in states],
            )
            return [record_of(row) for row in rows.fetchall()]

        return await self._database.run(operation)

    def _forgetting_due(self) -> bool:
        due = self._written % _FORGET_EVERY == 0
        self._written += 1
        return due
