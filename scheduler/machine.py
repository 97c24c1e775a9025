"""A device in virtual time: it carries out commands and answers each with its terminal event.

One run at a time, one transfer at a time in the order asked for; dropping a copy and calling off a
transfer take no time. A transfer beside a run makes the run slower by the profile's factor. A pause
takes effect at the next boundary after it was asked for, the last one ends the phase.
"""

from __future__ import annotations

import math
from collections import deque
from collections.abc import Sequence
from dataclasses import dataclass, field

from scheduler import messages as m
from scheduler.bound import Use
from scheduler.errors import ProtocolError
from scheduler.machine_run import Member, SharedRun
from scheduler.types import Component, Demand, Lease, Links


@dataclass(slots=True)
class Counts:
    """What the device did: seconds of transfers to it and of running, what each run used."""

    loads: int = 0
    load_seconds: float = 0.0
    run_seconds: float = 0.0
    preemptions: int = 0
    uses: list[Use] = field(default_factory=list)


class Machine:
    def __init__(
        self, components: Sequence[Component], links: Links, slowdown: float, state_bytes: int
    ) -> None:
        self._sizes = {c.name: c.weight_bytes for c in components}
        self._links = links
        self._slow_rate = 1.0 / slowdown
        self._state_bytes = state_bytes
        self._demands: dict[str, Demand] = {}
        self._steps: dict[str, int] = {}
        self._transfers: deque[m.Stage | m.Load] = deque()
        self._transfer_end = math.inf
        self._dropped: list[m.Event] = []
        self._run: SharedRun | None = None
        self._run_since = 0.0
        self.counts = Counts()

    def know(self, demand: Demand) -> None:
        self._demands[demand.job] = demand

    def forget(self, job: str) -> None:
        del self._demands[job]
        self._steps.pop(job, None)

    def carry_out(self, command: m.Command, now: float) -> None:
        match command:
            case m.Stage() | m.Load():
                self._transfers.append(command)
                if len(self._transfers) == 1:
                    self._begin_transfer(now)
            case m.Evict(name):
                self._dropped.append(m.Evicted(name))
            case m.Unstage(name):
                self._dropped.append(m.Unstaged(name))
            case m.Start() | m.Resume():
                self._begin_run(command, now)
            case m.Pause(lease):
                if self._run is not None:
                    self._run.pause(lease, now)
            case m.Abort(name):
                self._abort(name, now)
            case m.Cancel() | m.Settle():
                raise ProtocolError(f"{command}: nothing here is cancelled")

    def _begin_transfer(self, now: float) -> None:
        command = self._transfers[0]
        size = self._sizes[command.component]
        if isinstance(command, m.Load):
            seconds = self._links.load_seconds(size)
            self.counts.loads += 1
            self.counts.load_seconds += seconds
        else:
            seconds = self._links.stage_seconds(size)
        self._transfer_end = now + seconds
        if self._run is not None:
            self._run.go_on_at(self._slow_rate, now)

    def _abort(self, name: str, now: float) -> None:
        """Call a transfer off, wherever it is in the line."""
        number = next((i for i, t in enumerate(self._transfers) if t.component == name), None)
        if number is None:
            return
        if number > 0:
            del self._transfers[number]
        else:
            if isinstance(self._transfers[0], m.Load):
                self.counts.loads -= 1
                self.counts.load_seconds -= max(0.0, self._transfer_end - now)
            self._finish_transfer(now)
        self._dropped.append(m.Aborted(name))

    def _begin_run(self, command: m.Start | m.Resume, now: float) -> None:
        lease, run = command.lease, self._run
        phase = self._demands[lease.job].phases[lease.phase]
        member = Member(lease, phase, self._steps.get(lease.job, 0))
        self.counts.uses.append(Use(phase.components, phase.working_bytes))
        if run is None:
            rate = self._slow_rate if self._transfers else 1.0
            self._run = run = SharedRun(command.run, now, rate)
            self._run_since = now
            run.begin(member)
        elif run.number != command.run:
            raise ProtocolError(f"{command}: run {run.number} goes on")
        elif command.starters > 1:
            run.begin(member)
        else:
            run.join(member, now)

    def next_end(self) -> float:
        """When something ends; at once if something was dropped."""
        if self._dropped:
            return -math.inf
        return min(self._transfer_end, self._run_end)

    def end(self, now: float) -> list[m.Event]:
        """The terminal events that are due now: of all that was dropped, else of one command."""
        if self._dropped:
            dropped, self._dropped = self._dropped, []
            return dropped
        if self._run is not None and self._run_end <= now:
            return self._turn_over(self._run, now)
        return [self._end_transfer(now)]

    @property
    def _run_end(self) -> float:
        """When somebody leaves the run or comes in."""
        return math.inf if self._run is None else self._run.time_of(self._run.change)

    def boundary(self, *, every: bool) -> float:
        """When the run reaches the first boundary since it began, or the next one if ``every`` one
        counts."""
        run = self._run
        if run is None or (run.told and not every) or run.seen + 1 >= run.change:
            return math.inf
        return run.time_of(run.seen + 1)

    def newly_reached(self, now: float) -> tuple[list[m.Event], float] | None:
        """The newest boundary of all that run and its time, unless it was returned before or
        somebody leaves now."""
        run = self._run
        if run is None or self._run_end <= now:
            return None
        boundary = run.reached(now)
        if boundary <= run.seen:
            return None
        run.seen, run.told = boundary, True
        events: list[m.Event] = [
            m.StepReached(member.lease, member.step + boundary) for member in run.members
        ]
        return events, run.time_of(boundary)

    def is_last(self, lease: Lease) -> bool:
        return lease.phase == len(self._demands[lease.job].phases) - 1

    def _end_transfer(self, now: float) -> m.Event:
        command = self._finish_transfer(now)
        name = command.component
        return m.LoadSucceeded(name) if isinstance(command, m.Load) else m.StageSucceeded(name)

    def _finish_transfer(self, now: float) -> m.Stage | m.Load:
        command = self._transfers.popleft()
        self._transfer_end = math.inf
        if self._transfers:
            self._begin_transfer(now)
        elif self._run is not None:
            self._run.go_on_at(1.0, now)
        return command

    def _turn_over(self, run: SharedRun, now: float) -> list[m.Event]:
        """Those who leave the run now, with how they end, and where the others are."""
        left = run.turn_over(now)
        events: list[m.Event] = [m.StepReached(r.lease, r.step) for r in run.members if r.step]
        if not run.members:
            self._run = None
            self.counts.run_seconds += now - self._run_since
        return events + [self._end_member(member) for member in left]

    def _end_member(self, member: Member) -> m.Event:
        lease = member.lease
        if member.step < member.phase.steps:
            self._steps[lease.job] = member.step
            self.counts.preemptions += 1
            return m.Paused(lease, member.step, self._state_bytes)
        self._steps.pop(lease.job, None)
        return m.PhaseFinished(lease, self._state_bytes)
