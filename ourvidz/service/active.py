"""The jobs that this process holds, from the claim to the last file in the spool; memory only."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any, Final, Literal
from uuid import UUID

import anyio

from ourvidz.jobs import JobSpec, JobState
from ourvidz.ports import Claimed
from ourvidz.service.events import EventLog, Events
from ourvidz.service.signal import Signal
from scheduler.messages import Settle
from scheduler.types import Lease, Phase

# Who wants the job stopped: a caller of the API, the backend, a drain that hands it back; or the
# lease is gone, and the job is not ours any more.
StopReason = Literal["api", "backend", "drain", "lost"]
# A drain only puts the job off. Whoever does not want it at all goes before that; but what is not
# ours is not ours to answer either.
_RANKS: Mapping[StopReason, int] = {"drain": 0, "api": 1, "backend": 1, "lost": 2}
# So many jobs that were let go are remembered as unwanted: more are not held at a time.
_UNWANTED_MAX: Final = 1000


def part_id(spec: JobSpec, part: int) -> str:
    """The scheduler's id of one part: the job's own, numbered where there are several."""
    return f"{spec.id}/{part}" if spec.chained else str(spec.id)


def job_of(part: str) -> UUID:
    """The job that a part belongs to."""
    return UUID(part.partition("/")[0])


@dataclass(slots=True)
class ActiveJob:
    """What one job is doing right now. ``part`` and ``phase`` are indices, ``step`` counts the
    steps done in that phase; ``stop_step`` is ``steps_done`` when the stop was asked for.

    ``arrived``: when its first part came to the scheduler. ``scheduled`` from the moment its part
    is on the way to the scheduler until it is settled.
    ``ran`` when the last part has been, ``resumed`` if less than all of the work is to be done, as
    earlier runs have left something. ``planned`` are the phases as the executor planned them,
    ``phases`` with what was learned of such phases. ``run_seconds`` is what its runs have taken,
    ``undisturbed`` as long as each of them had the device to itself and none failed. ``exhausted``
    if it may not be started again: its runs were cut off too often. ``decided`` once it is certain
    how the job leaves, which is then being written down; ``left`` when it has. ``unwanted`` is who
    wanted it cancelled, ``lost`` the claim that is gone. ``new`` if no earlier run can have left
    anything.
    """

    spec: JobSpec
    claimed: Claimed
    log: EventLog
    state: JobState = JobState.CLAIMED
    planned: list[tuple[Phase, ...]] = field(default_factory=list)
    arrived: float | None = None
    phases: list[tuple[Phase, ...]] = field(default_factory=list)
    part: int = 0
    phase: int = 0
    step: int = 0
    scheduled: bool = False
    ran: bool = False
    run_seconds: float = 0.0
    undisturbed: bool = True
    resumed: bool = False
    exhausted: bool = False
    decided: bool = False
    stop: StopReason | None = None
    stop_step: int | None = None
    unwanted: StopReason | None = None
    lost: str | None = None
    new: bool = True
    settled: Settle | None = None
    moved: Signal = field(default_factory=Signal)
    preparing: anyio.CancelScope = field(default_factory=anyio.CancelScope)
    left: anyio.Event = field(default_factory=anyio.Event)

    @property
    def id(self) -> UUID:
        return self.spec.id

    @property
    def part_id(self) -> str:
        return part_id(self.spec, self.part)

    @property
    def phase_name(self) -> str | None:
        """The phase at hand, or ``None`` before the first and after the last."""
        known = self.part < len(self.phases) and self.phase < len(self.phases[self.part])
        return self.phases[self.part][self.phase].name if known else None

    @property
    def steps_total(self) -> int:
        """Steps of every part planned so far."""
        return sum(phase.steps for part in self.phases for phase in part)

    @property
    def steps_done(self) -> int:
        before = sum(phase.steps for part in self.phases[: self.part] for phase in part)
        if self.part >= len(self.phases):
            return before
        return before + sum(p.steps for p in self.phases[self.part][: self.phase]) + self.step

    @property
    def share(self) -> float:
        """How much of the whole job is done, 0..1, in expected seconds; parts count alike."""
        if self.part >= len(self.phases):
            return self.part / len(self.spec.works)
        phases = self.phases[self.part]
        total = sum(phase.seconds for phase in phases) or 1.0
        done = sum(phase.seconds for phase in phases[: self.phase])
        if self.phase < len(phases) and phases[self.phase].steps:
            done += phases[self.phase].seconds * self.step / phases[self.phase].steps
        return (self.part + done / total) / len(self.spec.works)

    def progress(self) -> Mapping[str, Any]:
        """What followers and the backend are told."""
        return {
            "progress": round(100 * self.share, 1),
            "part": self.part,
            "phase": self.phase_name,
            "steps_done": self.steps_done,
            "steps_total": self.steps_total,
        }

    def metrics(self) -> Mapping[str, Any]:
        """Counts and seconds for the API; ``cancel_requested_step`` is ``None`` unless a stop was
        asked for, ``estimate_ratio`` unless the last part has run and nothing disturbed a run:
        estimates are of phases that have the device to themselves."""
        estimated = sum(phase.seconds for part in self.phases for phase in part)
        comparable = self.ran and self.undisturbed and not self.resumed and estimated > 0
        return {
            "steps_done": self.steps_done,
            "steps_total": self.steps_total,
            "cancel_requested_step": self.stop_step,
            "run_seconds": round(self.run_seconds, 3),
            "estimated_run_seconds": round(estimated, 3),
            "estimate_ratio": round(self.run_seconds / estimated, 3) if comparable else None,
        }

    def pass_over(self, phases: tuple[Phase, ...]) -> None:
        """The part at hand need not run; these would have been its phases."""
        self.planned.append(phases)
        self.phases.append(phases)
        self.phase, self.resumed = len(phases), True

    def reach(self, phase: int, step: int) -> None:
        """``step`` steps of this phase are done."""
        self.phase, self.step = phase, step
        self.log.publish("progress", self.progress())
        self.moved.notify()

    def change(self, state: JobState) -> None:
        self.state = state
        self.log.publish("status", {"status": state.status})
        self.moved.notify()

    def settle(self, settle: Settle) -> None:
        self.settled, self.scheduled = settle, False
        self.moved.notify()

    def ask_stop(self, reason: StopReason) -> None:
        """Remember who wants the job stopped, and when. Of the same rank the first one counts."""
        if _RANKS[reason] == _RANKS["api"]:
            self.unwanted = self.unwanted or reason
        if self.stop is None or _RANKS[reason] > _RANKS[self.stop]:
            self.stop, self.stop_step = reason, self.steps_done
        self.preparing.cancel()

    def lose(self) -> None:
        """The lease is gone: the job is let go, whatever it has come to."""
        self.lost = self.claimed.claim_id
        self.ask_stop("lost")

    async def wait_settled(self) -> Settle:
        """The scheduler's word on the part at hand."""
        moved = self.moved.ticket
        while self.settled is None:
            await moved.wait()
            moved = self.moved.ticket
        settled, self.settled = self.settled, None
        return settled


class Roster:
    """Every active job by id, and how many each queue has claimed.

    ``entered`` is notified when a job is opened, ``room`` when one or a claim is gone.
    """

    def __init__(self, events: Events, room: Signal) -> None:
        self._events = events
        self._room = room
        self._jobs: dict[UUID, ActiveJob] = {}
        self._held: Counter[str] = Counter()
        self._draining = False
        self._unwanted: dict[UUID, StopReason] = {}
        self.entered = Signal()

    def take(self, queue: str) -> None:
        """Count one claim against its queue, before it is made."""
        self._held[queue] += 1

    def give_back(self, queue: str) -> None:
        """The claim was not made after all, or what it held has ended."""
        self._held[queue] -= 1
        self._room.notify()

    @contextmanager
    def open(self, spec: JobSpec, claimed: Claimed) -> Iterator[ActiveJob]:
        job = ActiveJob(spec, claimed, self._events.open(spec.id))
        self._jobs[spec.id] = job
        if self._draining:
            job.ask_stop("drain")
        unwanted = self._unwanted.pop(spec.id, None)
        if unwanted is not None:
            job.ask_stop(unwanted)
        self.entered.notify()
        try:
            yield job
        finally:
            if job.lost and job.unwanted is not None and len(self._unwanted) < _UNWANTED_MAX:
                self._unwanted[spec.id] = job.unwanted
            del self._jobs[spec.id]
            job.left.set()
            self._room.notify()

    def drain(self) -> None:
        """What is opened from here on is handed back."""
        self._draining = True

    def get(self, job_id: UUID) -> ActiveJob | None:
        return self._jobs.get(job_id)

    def of_part(self, part: str) -> ActiveJob | None:
        """The part's job, unless it has been torn down before the scheduler was done with it."""
        return self._jobs.get(job_of(part))

    def step(self, lease: Lease) -> int:
        """The steps of the leased phase that are known to be done."""
        job = self.of_part(lease.job)
        return job.step if job is not None and job.phase == lease.phase else 0

    def __len__(self) -> int:
        return len(self._jobs)

    def __iter__(self) -> Iterator[ActiveJob]:
        return iter(list(self._jobs.values()))

    def held(self, queue: str) -> int:
        return self._held[queue]

    @property
    def busy(self) -> bool:
        """Whether any claim is made or held."""
        return any(self._held.values())

    def preparing(self) -> int:
        """Claims that may still need the scheduler's credit and do not use it yet."""
        jobs = self._jobs.values()
        return sum(self._held.values()) - sum(job.scheduled or job.ran for job in jobs)
