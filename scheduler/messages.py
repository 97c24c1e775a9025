"""What flows in and what flows out.

*Events* (past tense) are facts: they go in through ``Scheduler.handle(events, now)``. *Commands*
(imperative) come back. Each command of the first group below is carried out by the shell and
answered by exactly one terminal event:

=============================  ================================================================
command                        terminal event, exactly one of
=============================  ================================================================
``Stage``                      ``StageSucceeded``, ``StageFailed``, ``Aborted``
``Load``                       ``LoadSucceeded``, ``LoadFailed``, ``Aborted``
``Evict``                      ``Evicted``
``Unstage``                    ``Unstaged``
``Start``, ``Resume``          ``PhaseFinished``, ``Paused``, ``RunCancelled``, ``RunFailed``
=============================  ================================================================

``Pause`` and ``Cancel`` are requests to the run that a lease names, ``Abort`` to a stage or load on
its way: they have no terminal event of their own, they hasten that one's. ``Settle`` tells the
shell that a job has left the scheduler.

Several jobs may share a run: their ``Start`` or ``Resume`` commands name the same ``run``, and each
has its own lease and its own terminal event. ``starters`` commands for one run are issued in the
same moment, and it begins when all of them have come. A command with one starter joins the run at
its next step boundary if that still goes on, and is a run by itself if it does not.
"""

from __future__ import annotations

from dataclasses import dataclass

from scheduler.types import Demand, Fault, Lease, Outcome

# Commands with one terminal event:


@dataclass(frozen=True, slots=True)
class Stage:
    """Read a component from disk into its host master."""

    component: str


@dataclass(frozen=True, slots=True)
class Load:
    """Copy a staged component to the device."""

    component: str


@dataclass(frozen=True, slots=True)
class Evict:
    """Drop a component's device copy; nothing is copied back."""

    component: str


@dataclass(frozen=True, slots=True)
class Unstage:
    """Drop a component's host master."""

    component: str


@dataclass(frozen=True, slots=True)
class Start:
    """Run one phase from its beginning."""

    lease: Lease
    run: int
    starters: int = 1


@dataclass(frozen=True, slots=True)
class Resume:
    """Go on with a phase that a ``Paused`` ended."""

    lease: Lease
    run: int
    starters: int = 1


# Requests and notices, without a terminal event:


@dataclass(frozen=True, slots=True)
class Pause:
    """Ask a run to stop at its next step boundary and keep its state."""

    lease: Lease


@dataclass(frozen=True, slots=True)
class Cancel:
    """Ask a run to stop as soon as it can and drop its state."""

    lease: Lease


@dataclass(frozen=True, slots=True)
class Abort:
    """Ask a ``Stage`` or ``Load`` on its way to stop: what it brings is not wanted any more."""

    component: str


@dataclass(frozen=True, slots=True)
class Settle:
    """The job has left the scheduler; all its bytes are free.

    ``fault`` is set with FAILED and REFUSED, but for a demand without phases, which no fault
    names. ``detail`` says why in words and bytes.
    """

    job: str
    outcome: Outcome
    fault: Fault | None = None
    detail: str = ""


def _check_bytes(lease: Lease, state_bytes: int) -> None:
    if state_bytes < 0:
        raise ValueError(f"{lease}: state_bytes is {state_bytes}, allowed: from 0")


# Events:


@dataclass(frozen=True, slots=True)
class JobArrived:
    demand: Demand


@dataclass(frozen=True, slots=True)
class CancelRequested:
    job: str


@dataclass(frozen=True, slots=True)
class TimeReached:
    """The time that ``deadline()`` named has come."""


@dataclass(frozen=True, slots=True)
class StageSucceeded:
    component: str


@dataclass(frozen=True, slots=True)
class StageFailed:
    """``permanent``: the same attempt would fail again (a corrupt or missing file)."""

    component: str
    detail: str
    permanent: bool


@dataclass(frozen=True, slots=True)
class LoadSucceeded:
    component: str


@dataclass(frozen=True, slots=True)
class LoadFailed:
    component: str
    detail: str
    fault: Fault


@dataclass(frozen=True, slots=True)
class Aborted:
    """Ends a ``Stage`` or ``Load`` that was asked to stop; the component is where it was."""

    component: str


@dataclass(frozen=True, slots=True)
class Evicted:
    component: str


@dataclass(frozen=True, slots=True)
class Unstaged:
    component: str


@dataclass(frozen=True, slots=True)
class StepReached:
    """``step`` steps of the leased phase are done. May be conflated: only the newest counts."""

    lease: Lease
    step: int


@dataclass(frozen=True, slots=True)
class PhaseFinished:
    """``state_bytes``: what the job carries on the device into its next phase."""

    lease: Lease
    state_bytes: int

    def __post_init__(self) -> None:
        _check_bytes(self.lease, self.state_bytes)


@dataclass(frozen=True, slots=True)
class Paused:
    """Ends a ``Start`` or ``Resume`` at a step boundary; ``state_bytes`` stay in the ledger."""

    lease: Lease
    step: int
    state_bytes: int

    def __post_init__(self) -> None:
        _check_bytes(self.lease, self.state_bytes)


@dataclass(frozen=True, slots=True)
class RunCancelled:
    lease: Lease


@dataclass(frozen=True, slots=True)
class RunFailed:
    """Ends a ``Start`` or ``Resume`` with an error.

    After OUT_OF_MEMORY and SHARED the shell still holds the job's state, as of the run's beginning
    or of any later step boundary: the same command comes once more, for this job alone, after
    OUT_OF_MEMORY with the device to itself. Any other fault ends the job.
    """

    lease: Lease
    fault: Fault
    detail: str


Move = Stage | Load | Evict | Unstage
"""Brings a component from one place to another."""
Moved = StageSucceeded | StageFailed | LoadSucceeded | LoadFailed | Aborted | Evicted | Unstaged
"""Ends a ``Move``, whether it succeeded or not."""
Command = Move | Start | Resume | Pause | Cancel | Abort | Settle
Event = (
    JobArrived
    | CancelRequested
    | TimeReached
    | Moved
    | StepReached
    | PhaseFinished
    | Paused
    | RunCancelled
    | RunFailed
)
