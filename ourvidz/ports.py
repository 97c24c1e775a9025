"""What the service needs of the outside, as Protocols. Adapters meet them; ``app`` joins them.

Every method may be cancelled at any await unless its docstring says otherwise.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from enum import Enum
from pathlib import Path
from typing import Any, Protocol, runtime_checkable
from uuid import UUID

import numpy as np
from numpy.typing import NDArray

from ourvidz.jobs import (
    Asset,
    InvalidJob,
    JobError,
    JobResult,
    JobSpec,
    JobState,
    Reference,
    Work,
)
from scheduler.messages import Abort, Cancel, Command, Event, Pause, StepReached
from scheduler.recording import Header, Turn
from scheduler.types import Component, Lease, Phase


class Clock(Protocol):
    """Time for the scheduler and the timers. ``monotonic`` in seconds; ``wall`` is Unix time."""

    def monotonic(self) -> float: ...

    def wall(self) -> float: ...


@dataclass(frozen=True, slots=True)
class Claimed:
    """One element of a queue, held under a lease. ``raw`` is the element's bytes, untouched."""

    queue: str
    claim_id: str
    raw: bytes
    attempts: int


class QueueFull(Exception):
    """The queue takes no more for now."""


class JobSource(Protocol):
    """Durable queues with leases. A claim made twice with one ``claim_id`` returns one element.

    Raises ``KeyError`` for a queue that is not configured.
    """

    async def recover(self) -> int:
        """At start: let go what an earlier process of this worker held; returns how many."""

    async def push(self, queue: str, raw: bytes) -> None:
        """Append at the right, as the producers do. Raises ``QueueFull``."""

    async def claim(self, queue: str, claim_id: str, lease_seconds: float) -> Claimed | None:
        """Move one element under a lease, or ``None`` if the queue is empty."""

    async def wait(self, queue: str, seconds: float) -> None:
        """Return when the queue may hold something, at the latest after ``seconds``."""

    async def renew(self, claim_ids: Sequence[str], lease_seconds: float) -> frozenset[str]:
        """Renew leases; returns the claims that are no longer ours."""

    async def acknowledge(self, claim_id: str) -> None:
        """Done with it: the element is gone for good. Unknown claims are ignored."""

    async def hand_back(self, claim_id: str) -> None:
        """Return the element to the head of its queue, the side that is taken from; an attempt that
        was counted under this claim is taken back. Unknown claims are ignored."""

    async def count_attempt(self, claim_id: str) -> int:
        """A run is starting: count it and return the attempts so far; 0 for an unknown claim."""

    async def dead_letter(self, claim_id: str, reason: str) -> None:
        """Move the element to the dead-letter list with its reason. Unknown claims are ignored."""

    async def reap(self) -> int:
        """Put elements whose lease has expired back at the head, with the attempts counted so far;
        returns how many."""


class StoreRejected(Exception):
    """The store refuses this file; the same attempt would be refused again."""


class StoreUnavailable(Exception):
    """The store did not answer or is busy; the same attempt may succeed later."""


class AssetStore(Protocol):
    """Files under ``bucket/key``. A put of the same key replaces the file, atomically."""

    async def put(self, bucket: str, key: str, path: Path, mime: str) -> None:
        """Raises ``StoreRejected`` or ``StoreUnavailable``."""

    async def get(self, bucket: str, key: str, path: Path, bytes_max: int) -> None:
        """Copy to ``path``. Raises ``KeyError`` if absent, ``StoreRejected`` if too large."""


@dataclass(frozen=True, slots=True)
class Delivered:
    """``skipped``: the backend no longer wants this job."""

    skipped: bool


class NotifyRejected(Exception):
    """The receiver refuses this callback for good (400, 401, ...)."""


class NotifyUnavailable(Exception):
    """Worth trying again, not before ``retry_after_seconds`` where the receiver named a time."""

    def __init__(self, message: str, retry_after_seconds: float | None = None) -> None:
        super().__init__(message)
        self.retry_after_seconds = retry_after_seconds


class Notifier(Protocol):
    async def notify(self, event_id: str, body: bytes) -> Delivered:
        """Sign and post one callback, once. Raises ``NotifyRejected`` or ``NotifyUnavailable``."""


class ReferenceFailed(Exception):
    """A reference could not be fetched or is no acceptable image."""

    def __init__(self, error: JobError) -> None:
        super().__init__(error.message)
        self.error = error


class References(Protocol):
    async def fetch(self, reference: Reference, path: Path) -> None:
        """Fetch, check and write one reference image to ``path``. Raises ``ReferenceFailed``."""


class Admission(Protocol):
    """The operator's policy. The default admits everything."""

    async def admit(self, spec: JobSpec) -> JobError | None:
        """``None`` to admit, or the error with which the job is answered."""


@dataclass(frozen=True, slots=True)
class ImageProduced:
    """A finished image: uint8, shape (height, width, 3), RGB. ``index`` is its place."""

    part: str
    index: int
    pixels: NDArray[np.uint8]


@dataclass(frozen=True, slots=True)
class VideoProduced:
    """A finished video: uint8, shape (frames, height, width, 3), RGB."""

    part: str
    frames: NDArray[np.uint8]


@dataclass(frozen=True, slots=True)
class TextChunk:
    """Final text to append to what came before."""

    part: str
    text: str


@dataclass(frozen=True, slots=True)
class TextDone:
    part: str
    text: str
    prompt_tokens: int
    tokens: int
    finish_reason: str


RunNotice = StepReached | ImageProduced | VideoProduced | TextChunk | TextDone


class RunSink(Protocol):
    """Where an executor reports what a run yields, on the event loop's thread.

    The notices of a phase all arrive before the phase's terminal event is returned.
    """

    def __call__(self, notice: RunNotice) -> None: ...


@dataclass(frozen=True, slots=True)
class Part:
    """One part of a job as the executor sees it. ``id`` is what the scheduler calls the job.

    ``references`` maps a role to the fetched local file; ``spool`` is the job's own folder.
    """

    id: str
    spec: JobSpec
    work: Work
    references: Mapping[str, Path]
    spool: Path


@dataclass(frozen=True, slots=True)
class Plan:
    """What a part will take: its phases (seconds are estimates) and what will differ from the
    request."""

    phases: tuple[Phase, ...]
    warnings: tuple[str, ...]


class PlanRejected(Exception):
    """The installed models cannot do this work."""

    def __init__(self, error: JobError) -> None:
        super().__init__(error.message)
        self.error = error


class Executor(Protocol):
    """The device and what runs on it. One device run at a time, of members that may share it, is
    the scheduler's promise."""

    @property
    def components(self) -> Sequence[Component]: ...

    async def open(self) -> None:
        """Make the device and the pipelines ready; no weights are read yet."""

    async def plan(self, part: Part) -> Plan:
        """What the part will take; reads no weights. Raises ``PlanRejected``."""

    def begin(self, part: Part, sink: RunSink) -> None:
        """Make a planned part known; its state is kept until ``forget``."""

    async def execute(self, command: Command) -> Event:
        """Carry out one command and return its terminal event; never raises but by cancellation.

        Commands for the same run share it, as ``scheduler.messages`` says: each returns when its
        own lease ends, while the others go on. A run with several starters begins when all their
        commands have come, also those of leases that were asked to stop before: so every one of
        them must be given here.

        Cancelling the surrounding scope waits until the worker thread is done with the command.
        """

    def request(self, request: Pause | Cancel | Abort) -> None:
        """Ask a run, or a component's stage or load, to stop; its ``execute`` returns accordingly.
        Unknown leases are ignored, and so are components of which none is under way."""

    def forget(self, part_id: str) -> None:
        """Drop the part's state, or what is left of it."""

    def snapshot(self) -> Mapping[str, Any]:
        """Device facts for health: kind, name, allocated bytes."""


@runtime_checkable
class PeakMeter(Protocol):
    """What an executor over a device that counts its bytes can tell beside the rest."""

    def peak_bytes(self, lease: Lease) -> int | None:
        """The most that the run of ``lease``, which has just ended, had allocated on the device
        beside weights and other jobs' states: what its working bytes must cover. ``None`` where it
        was not counted."""


class Recorder(Protocol):
    """Writes down what the scheduler is told and what it decides, for a replay. Neither method
    waits or raises: a recording that cannot go on ends, the service does not."""

    def begin(self, header: Header, stopped: Callable[[], None]) -> None:
        """Before the first turn. ``stopped`` is called in the event loop if the recording ends
        before the service does."""

    def turn(self, turn: Turn) -> None: ...


class RenderFailed(Exception):
    """A file could not be written; ``retryable`` where the disk, not the pixels, is to blame."""

    def __init__(self, message: str, retryable: bool) -> None:
        super().__init__(message)
        self.retryable = retryable


class Renderer(Protocol):
    """Turns what a run yields into files with their metadata, in the job's spool folder."""

    async def image(self, part: Part, produced: ImageProduced) -> Asset:
        """Write one PNG and its thumbnail. Raises ``RenderFailed``."""

    async def video(self, part: Part, produced: VideoProduced) -> Asset:
        """Write one MP4 and its thumbnail. Raises ``RenderFailed``."""


class Known(Enum):
    """What the journal says of a job that a queue or a caller brings."""

    NEW = "new"
    QUEUED = "queued"
    ACTIVE = "active"
    ENDED = "ended"
    CONFLICT = "conflict"


@dataclass(frozen=True, slots=True)
class JobRecord:
    """A job as the journal keeps it. Times are Unix seconds.

    ``undelivered`` while the terminal callback is not acknowledged, ``parked`` when it was given
    up; ``assets`` are the rendered files, uploaded or not.
    """

    spec: JobSpec
    queue: str
    claim_id: str | None
    state: JobState
    attempts: int
    created_at: float
    started_at: float | None
    completed_at: float | None
    result: JobResult | None
    undelivered: bool
    parked: bool


@dataclass(frozen=True, slots=True)
class Answer:
    """A terminal callback still owed. ``body`` is ``None`` where it follows from the job's record;
    ``claim_id`` is the lease that is held until it is acknowledged."""

    job_id: str
    event_id: str
    claim_id: str | None
    body: bytes | None
    attempts: int


class Journal(Protocol):
    """What must survive a crash: jobs, their rendered files, and callbacks still owed.

    Every method returns after its change is durable. State moves are checked against the table.
    """

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
        """What was rendered so far, by index."""

    async def finish(self, job_id: UUID, result: JobResult, answer: bool) -> None:
        """The job's end: RENDERED, FAILED or CANCELLED by ``result.status``. A job that did not
        complete owes its terminal callback from here, unless ``answer`` is false."""

    async def cancel_queued(self, job_id: UUID, result: JobResult) -> bool:
        """End a job that nobody has claimed, and owe its callback; false if it is not QUEUED."""

    async def uploaded(self, job_id: UUID, result: JobResult) -> None:
        """Every file that could be stored is: COMPLETED, or FAILED by ``result.status``. Owes the
        terminal callback."""

    async def reject(self, invalid: InvalidJob, claim_id: str | None, body: bytes) -> bool:
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

    async def parked(self) -> int:
        """How many callbacks were given up."""

    async def requeue(self, job_id: UUID) -> None:
        """Back to QUEUED (drain or restart); rendered files are forgotten."""

    async def in_states(self, *states: JobState) -> Sequence[JobRecord]:
        """Oldest first."""


@dataclass(frozen=True, slots=True)
class Series:
    """The last values of something measured, the oldest first."""

    name: str
    values: Sequence[float]


class Measurements(Protocol):
    """What was measured, for the next start. Bounded: the longest unseen is forgotten.

    ``versions`` names the software and the device that it was measured with; other versions' values
    are kept apart.
    """

    async def load(self, versions: str) -> Sequence[Series]:
        """What was saved, that which was saved last at the end."""

    async def save(self, versions: str, changed: Sequence[Series]) -> None:
        """Put these in the place of what was saved under their names; returns once it is
        durable."""
