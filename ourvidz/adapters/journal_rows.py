"""The journal's tables, and how its rows are read and written inside one operation.

A row's ``spec`` and ``result`` are JSON of the domain's own types, so that what was accepted is
what is answered, whatever the configuration says after a restart.
"""

from __future__ import annotations

import sqlite3
from typing import TypeVar
from uuid import UUID

import orjson
from pydantic import TypeAdapter

from ourvidz.jobs import (
    Asset,
    InvalidJob,
    JobResult,
    JobSpec,
    JobState,
    TextResult,
    check_transition,
)
from ourvidz.ports import JobRecord, Known
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
CREATE TABLE IF NOT EXISTS texts (
    job_id TEXT NOT NULL REFERENCES jobs (id) ON DELETE CASCADE,
    part INTEGER NOT NULL,
    data BLOB NOT NULL,
    PRIMARY KEY (job_id, part)
);
CREATE TABLE IF NOT EXISTS answers (
    event_id TEXT PRIMARY KEY,
    job_id TEXT NOT NULL,
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
CREATE TABLE IF NOT EXISTS aside (job_id TEXT PRIMARY KEY);
"""

T = TypeVar("T")

SPEC = TypeAdapter(JobSpec)
RESULT = TypeAdapter(JobResult)
ASSET = TypeAdapter(Asset)
TEXT = TypeAdapter(TextResult)
INVALID = TypeAdapter(InvalidJob)
COLUMNS = (
    "SELECT jobs.spec, jobs.queue, jobs.claim_id, jobs.state, jobs.attempts, jobs.created_at, "
    "jobs.started_at, jobs.completed_at, jobs.result FROM jobs "
)
# The claim of a job that still needs one: it has not ended, or its answer is owed.
HELD = (
    "SELECT claim_id FROM jobs WHERE id = ?1 AND "
    "(state NOT IN ('completed', 'failed', 'cancelled') "
    "OR EXISTS (SELECT 1 FROM answers WHERE job_id = ?1 AND NOT parked))"
)
# Of a JSON list of ids, or of all where there is none.
UNPARK = """
UPDATE answers SET parked = 0, attempts = 0, error = NULL WHERE event_id IN (
    SELECT event_id FROM answers
    WHERE parked AND (?1 IS NULL OR event_id IN (SELECT value FROM json_each(?1)))
    ORDER BY created_at, event_id LIMIT ?2
) RETURNING job_id
"""
# Ended jobs are forgotten beyond so many later ones, about 3 KB each: by then the backend has its
# answer, and a producer that repeats an id does so within minutes.
ENDED_JOBS_MAX = 100_000
_FORGET_JOBS = """
DELETE FROM jobs WHERE id IN (
    SELECT id FROM jobs WHERE state IN ('completed', 'failed', 'cancelled')
    AND NOT EXISTS (SELECT 1 FROM answers WHERE job_id = jobs.id)
    ORDER BY completed_at DESC LIMIT -1 OFFSET ?
)
"""
_FORGET_REJECTED = """
DELETE FROM rejected WHERE id IN (
    SELECT id FROM rejected
    WHERE NOT EXISTS (SELECT 1 FROM answers WHERE job_id = rejected.id)
    ORDER BY created_at DESC LIMIT -1 OFFSET ?
)
"""


def read(adapter: TypeAdapter[T], data: bytes) -> T:
    """Decoded by the border's own decoder: pydantic's refuses what is nested 200 levels deep, and a
    row that could be written and not be read would stop every start."""
    return adapter.validate_python(orjson.loads(data))


def known_as(connection: sqlite3.Connection, spec: JobSpec) -> Known:
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


def state_of(connection: sqlite3.Connection, job_id: UUID) -> JobState:
    """Raises ``KeyError``."""
    row = connection.execute("SELECT state FROM jobs WHERE id = ?", (str(job_id),)).fetchone()
    if row is None:
        raise KeyError(str(job_id))
    return JobState(row[0])


def move(connection: sqlite3.Connection, job_id: UUID, state: JobState) -> None:
    """Check and make one move. Raises ``KeyError`` or ``IllegalTransition``."""
    check_transition(job_id, state_of(connection, job_id), state)
    connection.execute("UPDATE jobs SET state = ? WHERE id = ?", (state.value, str(job_id)))


def end(
    connection: sqlite3.Connection,
    job_id: UUID,
    data: bytes,
    state: JobState,
    now: float,
) -> None:
    move(connection, job_id, state)
    connection.execute(
        "UPDATE jobs SET result = ?, completed_at = ? WHERE id = ?",
        (data, now if state.terminal else None, str(job_id)),
    )


def owe(connection: sqlite3.Connection, job_id: UUID, result: JobResult, now: float) -> None:
    """A terminal callback is due; a cancelled job is answered as failed."""
    event = event_id(job_id, "completed" if result.status == "completed" else "failed")
    connection.execute(
        "INSERT INTO answers (event_id, job_id, created_at) VALUES (?, ?, ?)",
        (event, str(job_id), now),
    )


def record_of(
    row: tuple[bytes, str, str | None, str, int, float, float, float, bytes],
) -> JobRecord:
    spec, queue, claim_id, state, attempts, created, started, completed, result = row
    return JobRecord(
        spec=read(SPEC, spec),
        queue=queue,
        claim_id=claim_id,
        state=JobState(state),
        attempts=attempts,
        created_at=created,
        started_at=started,
        completed_at=completed,
        result=None if result is None else read(RESULT, result),
    )


def forget(connection: sqlite3.Connection, kept: int) -> None:
    """Drop all but the last ``kept`` ended jobs and refused payloads whose answers are settled;
    parked ones stay."""
    connection.execute(_FORGET_JOBS, (kept,))
    connection.execute(_FORGET_REJECTED, (kept,))
