"""A journal of its own for a test, and jobs brought to any state in it."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import replace
from pathlib import Path
from uuid import UUID, uuid4

from support.queues import MovedClock

from ourvidz.adapters.database import Database
from ourvidz.adapters.journal import JOURNAL_SCHEMA, SqliteJournal
from ourvidz.jobs import (
    Asset,
    ErrorCode,
    ImageWork,
    JobError,
    JobResult,
    JobSpec,
    JobState,
    JobType,
)

QUEUE = "sdxl_queue"
S = JobState
WORK = ImageWork("a pear", "", 64, 64, 2, 4, 7.0, 5)
ERROR = JobError(ErrorCode.OUT_OF_MEMORY, "no room", retryable=True)
COMPLETED = JobResult("completed")
FAILED = JobResult("failed", error=ERROR)
CANCELLED = JobResult("cancelled", error=JobError(ErrorCode.CANCELLED, "cancelled"))
# A way to each state, by the journal's own calls.
WAYS: dict[JobState, tuple[str, ...]] = {
    S.QUEUED: (),
    S.CLAIMED: ("claim",),
    S.WAITING: ("claim", "wait"),
    S.RUNNING: ("claim", "wait", "run"),
    S.RENDERED: ("claim", "wait", "run", "render"),
    S.COMPLETED: ("claim", "wait", "run", "render", "upload"),
    S.FAILED: ("claim", "fail"),
    S.CANCELLED: ("cancel",),
}


@asynccontextmanager
async def opened(folder: Path) -> AsyncIterator[SqliteJournal]:
    database = Database(folder / "journal.db")
    await database.open(JOURNAL_SCHEMA)
    try:
        yield SqliteJournal(database, MovedClock())
    finally:
        await database.aclose()


def spec_of(name: str = "a", **fields: object) -> JobSpec:
    spec = JobSpec(
        id=uuid4(),
        type=JobType.SDXL_GENERATE,
        requested_type="sdxl_generate",
        user_id=UUID(int=1),
        job_class="normal",
        works=(WORK,),
        digest=name,
        original_prompt=name,
    )
    return replace(spec, **fields)  # type: ignore[arg-type]


def asset_of(index: int, path: str = "p") -> Asset:
    return Asset(index, "image", f"k{index}", path, "image/png", "00", 1, 64, 64, 1, {})


async def bring_to(journal: SqliteJournal, state: JobState) -> JobSpec:
    spec = spec_of()
    await journal.accept(spec, QUEUE, None)
    steps = {
        "claim": lambda: journal.accept(spec, QUEUE, "claim"),
        "wait": lambda: journal.move(spec.id, S.WAITING),
        "run": lambda: journal.move(spec.id, S.RUNNING),
        "render": lambda: journal.finish(spec.id, COMPLETED, answer=True),
        "upload": lambda: journal.uploaded(spec.id, COMPLETED),
        "fail": lambda: journal.finish(spec.id, FAILED, answer=True),
        "cancel": lambda: journal.cancel_queued(spec.id, CANCELLED),
    }
    for step in WAYS[state]:
        await steps[step]()
    assert await state_of(journal, spec) is state
    return spec


async def state_of(journal: SqliteJournal, spec: JobSpec) -> JobState:
    record = await journal.get(spec.id)
    assert record is not None
    return record.state
