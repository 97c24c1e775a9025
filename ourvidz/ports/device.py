"""The device and what runs on it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final, Protocol, runtime_checkable

import numpy as np
from numpy.typing import NDArray

from ourvidz.jobs import JobError, JobSpec, Work, pictures_of
from scheduler.messages import Abort, Cancel, Command, Event, Pause, StepReached
from scheduler.types import Component, Lease, Phase

STATE_FOLDER: Final = "state"


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


Picture = ImageProduced | VideoProduced


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
class StateSaved:
    """The part's state is written down for a later process; or is not, for the ``error``, and the
    part goes on all the same. May come at any time, also after the part's end."""

    part: str
    error: str | None


RunNotice = StepReached | Picture | TextChunk | TextDone | StateSaved


class RunSink(Protocol):
    """Where an executor reports what a run yields, on the event loop's thread.

    The notices of a phase all arrive before the phase's terminal event is returned, but for
    ``StateSaved``.
    """

    def __call__(self, notice: RunNotice) -> None: ...


@dataclass(frozen=True, slots=True)
class Part:
    """One part of a job as the executor sees it. ``id`` is what the scheduler calls the job.

    ``references`` maps a role to the fetched local file; ``spool`` is the job's own folder.
    ``wanted`` are the indices of the pictures that are still to be made, all of them if empty. The
    bits of a picture do not depend on which others are wanted, where the work promises its bits.
    ``state_folder`` is the executor's own, for what another process needs to go on with the part;
    it is removed when the part's pictures are in the journal. ``model`` is what the part's plan
    calls the one that makes it; empty before there is a plan.
    """

    id: str
    spec: JobSpec
    work: Work
    references: Mapping[str, Path]
    spool: Path
    wanted: tuple[int, ...] = ()
    model: str = ""

    @property
    def state_folder(self) -> Path:
        return self.spool / STATE_FOLDER

    @property
    def pictures(self) -> tuple[int, ...]:
        """What the part yields, by index and in this order."""
        return self.wanted or tuple(range(pictures_of(self.work)))


@dataclass(frozen=True, slots=True)
class Plan:
    """What a part will take: its phases (seconds are estimates), what will differ from the request,
    and the label of the model that will make it."""

    phases: tuple[Phase, ...]
    warnings: tuple[str, ...]
    model: str


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
        """What the part will take, from where an earlier process has left it; reads no weights.
        Raises ``PlanRejected``."""

    def begin(self, part: Part, sink: RunSink) -> None:
        """Make a planned part known; its state is kept until ``forget``."""

    async def execute(self, command: Command) -> Event:
        """Carry out one command and return its terminal event. Raises nothing but, where the device
        is lost to this process, ``errors.DeviceFailed``: then no command has an end any more.

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
