"""What the service needs of the outside, as Protocols. Adapters meet them; ``app`` joins them.

Every method may be cancelled at any await unless its docstring says otherwise.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

from ourvidz.jobs import Asset, JobError, JobSpec, Reference, Work
from scheduler.messages import Cancel, Command, Event, Pause
from scheduler.types import Component, Phase


class Clock(Protocol):
    """Time for the scheduler and the timers. ``monotonic`` in seconds; ``wall`` is Unix time."""

    def monotonic(self) -> float: ...

    def wall(self) -> float: ...

    async def sleep(self, seconds: float) -> None: ...


@dataclass(frozen=True, slots=True)
class Claimed:
    """One element of a queue, held under a lease. ``raw`` is the element's bytes, untouched."""

    queue: str
    claim_id: str
    raw: bytes
    attempts: int


class JobSource(Protocol):
    """Durable queues with leases. A claim made twice with one ``claim_id`` returns one element."""

    async def push(self, queue: str, raw: bytes) -> None:
        """Append at the right, as the producers do."""

    async def claim(self, queue: str, claim_id: str, lease_seconds: float) -> Claimed | None:
        """Move one element under a lease, or ``None`` if the queue is empty."""

    async def wait(self, queue: str, seconds: float) -> None:
        """Return when the queue may hold something, at the latest after ``seconds``."""

    async def renew(self, claim_ids: Sequence[str], lease_seconds: float) -> frozenset[str]:
        """Renew leases; returns the claims that are no longer ours."""

    async def acknowledge(self, claim_id: str) -> None:
        """Done with it: the element is gone for good. Unknown claims are ignored."""

    async def hand_back(self, claim_id: str) -> None:
        """Return the element to the head of its queue; not counted as an attempt."""

    async def count_attempt(self, claim_id: str) -> int:
        """A run is starting: count it and return the attempts so far."""

    async def dead_letter(self, claim_id: str, reason: str) -> None:
        """Move the element to the dead-letter list with its reason."""

    async def reap(self) -> int:
        """Put elements whose lease has expired back at the head; returns how many."""


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
class Progress:
    """Where a run is: ``step`` of ``steps`` in this phase, ``share`` (0..1) of the whole part."""

    part: str
    phase: str
    step: int
    steps: int
    share: float


@dataclass(frozen=True, slots=True)
class Rendered:
    """A finished file of a part, already in the spool."""

    part: str
    asset: Asset


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


@dataclass(frozen=True, slots=True)
class ItemFailed:
    """One image of a batch could not be made or written; the others go on."""

    part: str
    index: int
    error: JobError


RunNotice = Progress | Rendered | TextChunk | TextDone | ItemFailed


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
    """The device and what runs on it. One device run at a time is the scheduler's promise."""

    @property
    def components(self) -> Sequence[Component]: ...

    async def open(self) -> None:
        """Make the device and the pipelines ready; no weights are read yet."""

    def plan(self, part: Part) -> Plan:
        """Microseconds to a few milliseconds, no weights. Raises ``PlanRejected``."""

    def begin(self, part: Part, sink: RunSink) -> None:
        """Make the part known; its state is kept until ``forget``."""

    async def execute(self, command: Command) -> Event:
        """Carry out one command and return its terminal event; never raises but by cancellation.

        Cancelling the surrounding scope waits until the worker thread is done.
        """

    def request(self, request: Pause | Cancel) -> None:
        """Ask a run to stop; its ``execute`` returns accordingly. Unknown leases are ignored."""

    def forget(self, part_id: str) -> None:
        """Drop the part's state, or what is left of it."""

    def snapshot(self) -> Mapping[str, Any]:
        """Device facts for health: kind, name, allocated bytes."""
