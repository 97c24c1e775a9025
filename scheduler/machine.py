"""A device in virtual time: it carries out commands and answers each with its terminal event.

One run at a time, one transfer at a time in the order asked for; dropping a copy takes no time. A
transfer beside a run makes the run slower by the profile's factor. A run's steps take equal time; a
pause takes effect at the next boundary after it was asked for, the last one ends the phase.
"""

from __future__ import annotations

import math
from collections import deque
from collections.abc import Sequence
from dataclasses import dataclass, field

from scheduler import messages as m
from scheduler.bound import Use
from scheduler.errors import ProtocolError
from scheduler.types import Component, Demand, Lease, Links, Phase


@dataclass(slots=True)
class Running:
    """A run on its way. ``seen``: the last step that was reported, ``paused_at``: where it is to
    stop. Steps are counted from the phase's beginning; at ``anchor`` it had done ``done`` seconds
    of work since ``first``, and does ``rate`` seconds of work a second."""

    lease: Lease
    phase: Phase
    began: float
    first: int
    anchor: float
    rate: float
    done: float = 0.0
    seen: int = 0
    paused_at: int | None = None

    @property
    def step_seconds(self) -> float:
        return self.phase.seconds / max(1, self.phase.steps)

    def time_of(self, step: int) -> float:
        """When this boundary is reached, at the present rate."""
        return self.anchor + ((step - self.first) * self.step_seconds - self.done) / self.rate

    def step_at(self, now: float) -> int:
        """The last boundary that has been reached; never the last of the phase."""
        last = max(1, self.phase.steps) - 1
        step = last
        if self.step_seconds > 0:
            work = self.done + (now - self.anchor) * self.rate
            step = min(last, self.first + math.floor(work / self.step_seconds))
        while step < last and self.time_of(step + 1) <= now:
            step += 1
        while step > self.first and self.time_of(step) > now:
            step -= 1
        return step

    @property
    def last(self) -> int:
        """The step with which it ends."""
        return max(1, self.phase.steps) if self.paused_at is None else self.paused_at

    @property
    def end(self) -> float:
        return self.time_of(self.last)

    def go_on_at(self, rate: float, now: float) -> None:
        self.done += (now - self.anchor) * self.rate
        self.anchor, self.rate = now, rate


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
        self._run: Running | None = None
        self.counts = Counts()

    def know(self, demand: Demand) -> None:
        self._demands[demand.job] = demand

    def forget(self, job: str) -> None:
        del self._demands[job]
        self._steps.pop(job, None)

    # Commands -------------------------------------------------------------------------------------

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
            case m.Start(lease) | m.Resume(lease):
                self._begin_run(lease, now)
            case m.Pause(lease):
                if self._run is not None and self._run.lease == lease:
                    self._run.paused_at = self._run.step_at(now) + 1
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

    def _begin_run(self, lease: Lease, now: float) -> None:
        phase = self._demands[lease.job].phases[lease.phase]
        first = self._steps.get(lease.job, 0)
        rate = self._slow_rate if self._transfers else 1.0
        self._run = Running(lease, phase, now, first, now, rate, seen=first)
        self.counts.uses.append(Use(phase.components, phase.working_bytes))

    # Time -----------------------------------------------------------------------------------------

    def next_end(self) -> float:
        """When something ends; at once if something was dropped."""
        if self._dropped:
            return -math.inf
        return min(self._transfer_end, self._run.end if self._run is not None else math.inf)

    def end(self, now: float) -> list[m.Event]:
        """The terminal events that are due now: of all that was dropped, else of one command."""
        if self._dropped:
            dropped, self._dropped = self._dropped, []
            return dropped
        if self._run is not None and self._run.end <= now:
            return [self._end_run(self._run, now)]
        return [self._end_transfer(now)]

    def boundary(self, *, every: bool) -> float:
        """When the run reaches the first boundary since it began, or the next one if ``every`` one
        counts."""
        run = self._run
        if run is None or (run.seen > run.first and not every) or run.seen + 1 >= run.last:
            return math.inf
        return run.time_of(run.seen + 1)

    def newly_reached(self, now: float) -> tuple[Lease, int, float] | None:
        """The run's newest boundary and its time, unless it was returned before or the run ends."""
        run = self._run
        if run is None or run.end <= now:
            return None
        step = run.step_at(now)
        if step <= run.seen:
            return None
        run.seen = step
        return run.lease, step, run.time_of(step)

    def is_last(self, lease: Lease) -> bool:
        return lease.phase == len(self._demands[lease.job].phases) - 1

    def _end_transfer(self, now: float) -> m.Event:
        command = self._transfers.popleft()
        self._transfer_end = math.inf
        if self._transfers:
            self._begin_transfer(now)
        elif self._run is not None:
            self._run.go_on_at(1.0, now)
        name = command.component
        return m.LoadSucceeded(name) if isinstance(command, m.Load) else m.StageSucceeded(name)

    def _end_run(self, run: Running, now: float) -> m.Event:
        self._run = None
        self.counts.run_seconds += now - run.began
        if run.last < run.phase.steps:
            self._steps[run.lease.job] = run.last
            self.counts.preemptions += 1
            return m.Paused(run.lease, run.last, self._state_bytes)
        self._steps.pop(run.lease.job, None)
        return m.PhaseFinished(run.lease, self._state_bytes)
