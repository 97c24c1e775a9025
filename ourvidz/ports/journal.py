"""What survives a restart: jobs, their results, and the answers that are owed."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from enum import Enum
from typing import Protocol
from uuid import UUID

from ourvidz.jobs import Asset, InvalidJob, JobResult, JobSpec, JobState, TextResult


class Known(Enum):
    """What the journal says of a job that a queue or a caller brings."""

    NEW = "new"
    QUEUED = "queued"
    ACTIVE = "active"
    ENDED = "ended"
    CONFLICT = "conflict"


@dataclass(frozen=True, slots=True)
class JobRecord:
    """A job as the journal keeps it. Times are Unix seconds."""

    spec: JobSpec
    queue: str
    claim_id: str | None
    state: JobState
    attempts: int
    created_at: float
    started_at: float | None
    completed_at: float | None
    result: JobResult | None


@dataclass(frozen=True, slots=True)
class Answer:
    """A terminal callback still owed. ``body`` is ``None`` where it follows from the job's
    record."""

    job_id: str
    event_id: str
    body: bytes | None


@dataclass(frozen=True, slots=True)
class ParkedAnswer:
    """A terminal callback that was given up after ``attempts``; ``created_at`` in Unix seconds."""

    event_id: str
    job_id: str
    attempts: int
    error: str
    created_at: float


class Journal(Protocol):
    """What must survive a crash: jobs, their rendered files, and callbacks still owed.

    Every method returns after its change is durable, however long the disk does not take it. State
    moves are checked against the table.
    """

    @property
    def trouble(self) -> str | None:
        """Why nothing can be written for now, if so; reads memory only."""

    async def accept(self, spec: JobSpec, queue: str, claim_id: str | None) -> Known:
        """Record a job as QUEUED (no claim) or CLAIMED; an ended one of long ago may be forgotten
        for it. ``NEW`` and ``QUEUED`` are recorded;
        ``ACTIVE``, ``ENDED`` and ``CONFLICT`` (same id, other digest, or a payload that was refused
        under this id) change nothing."""

    async def adopt(self, job_id: UUID, claim_id: str) -> str | None:
        """A known job came out of its queue once more, under ``claim_id``. Returns the claim that
        is not needed any more: the one that held the job until now, as the newer one holds it from
        here; or ``claim_id`` itself where the job has ended and its answer is not owed any more."""

    async def known(self, spec: JobSpec) -> Known:
        """What ``accept`` would answer, recording nothing."""

    async def get(self, job_id: UUID) -> JobRecord | None: ...

    async def recent(
        self, limit: int, before: UUID | None, state: str | None
    ) -> Sequence[JobRecord]:
        """The newest first, those that follow the job ``before`` in that order: none if it is
        unknown. ``state`` is a wire status."""

    async def move(self, job_id: UUID, state: JobState) -> None:
        """One state change. Raises ``IllegalTransition``."""

    async def add_asset(self, job_id: UUID, asset: Asset) -> None:
        """A rendered file is in the spool; the same index replaces."""

    async def assets(self, job_id: UUID) -> Sequence[Asset]:
        """What was rendered so far, in this run or an earlier one, by index. That the files are
        still there is not said."""

    async def add_text(self, job_id: UUID, part: int, text: TextResult) -> None:
        """A part that others build on has given its text; the same part replaces."""

    async def texts(self, job_id: UUID) -> Mapping[int, TextResult]:
        """The texts of parts so far, in this run or an earlier one."""

    async def finish(self, job_id: UUID, result: JobResult, answer: bool) -> None:
        """The job's end: RENDERED, FAILED or CANCELLED by ``result.status``. A job that did not
        complete owes its terminal callback from here, unless ``answer`` is false."""

    async def cancel_queued(self, job_id: UUID, result: JobResult) -> bool:
        """End a job that nobody has claimed, and owe its callback; false if it is not QUEUED."""

    async def uploaded(self, job_id: UUID, result: JobResult) -> None:
        """Every file that could be stored is: COMPLETED, or FAILED by ``result.status``. Owes the
        terminal callback."""

    async def reject(self, invalid: InvalidJob, body: bytes) -> bool:
        """Record a payload that never became a job and owe its callback. False, and nothing is
        recorded, where its id is known already, in whatever spelling of a UUID: then it is
        another's, or answered before."""

    async def rejected(self, job_id: str) -> InvalidJob | None: ...

    async def answers(self, job_id: str | None = None) -> Sequence[Answer]:
        """Every callback still owed (for one job), oldest first."""

    async def answer_failed(self, event_id: str, error: str, park: bool) -> int:
        """An attempt failed; returns the attempts so far. ``park`` gives it up, kept as dead."""

    async def answered(self, event_id: str) -> None:
        """The receiver has acknowledged."""

    async def unpark(self, event_ids: Collection[str] | None, limit: int) -> Sequence[str]:
        """Parked answers are owed again as if none of their attempts had been made: those named, or
        all, the oldest ones up to ``limit``. Returns the ids of their jobs."""

    async def parked_answers(self, limit: int) -> Sequence[ParkedAnswer]:
        """Oldest first."""

    async def parked(self) -> int:
        """How many callbacks were given up."""

    async def requeue(self, job_id: UUID) -> None:
        """Back to QUEUED (drain, restart, lost lease, a cancel that came too late). Texts and
        rendered files stay known; nothing is owed any more."""

    async def set_aside(self, job_ids: Collection[UUID]) -> None:
        """These jobs, and no others, have begun and wait for their next run."""

    async def aside(self) -> frozenset[UUID]:
        """What was last set aside, by an earlier process too."""

    async def in_states(self, *states: JobState) -> Sequence[JobRecord]:
        """Oldest first."""
