"""The scheduler in virtual time: the very ``Scheduler`` that runs live, on a device that is a table
of costs.

Every step boundary counts, but few are visited. A policy may change its mind when something has
happened or when the time has come that it named; a step that was reached only speaks for the run
that reached it. So of a run's boundaries these are reported, with the time at which each came to
pass: the first, the last one before any other event, and, where ``every_step``, all of them, which
changes nothing but the time it takes.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from heapq import heappop, heappush

from scheduler import messages as m
from scheduler.core import Scheduler
from scheduler.errors import InputError, ProtocolError
from scheduler.machine import Counts, Machine
from scheduler.policy import Policy
from scheduler.profile import Costs
from scheduler.strategy import Eviction
from scheduler.types import Component, Demand, Outcome, SchedulerSettings
from scheduler.workload import Request, Workload

# Eleven days. A policy that looks at a run every few seconds has no end with what is much longer.
_PHASE_SECONDS_MAX = 1e6


@dataclass(frozen=True, slots=True)
class Contestant:
    """A policy with what else distinguishes it. ``naive``: loads come straight from disk."""

    policy: Policy
    eviction: Eviction = Eviction.PRICED
    naive: bool = False


@dataclass(frozen=True, slots=True)
class Record:
    """What came of it: each request's end, what the device did and, if they were kept, all commands
    but ``Settle`` with their times."""

    ends: dict[str, float]
    counts: Counts
    decisions: list[tuple[float, m.Command]]


def simulate(
    workload: Workload,
    profile: Costs,
    contestant: Contestant,
    settings: SchedulerSettings,
    *,
    every_step: bool = False,
    record: bool = False,
) -> Record:
    """Serve all of a workload. With ``record`` the decisions are kept. Raises ``InputError`` for a
    request that the profile's card cannot serve."""
    return _Simulation(workload, profile, contestant, settings, every_step, record).play()


def masters(components: Sequence[Component], host_bytes: int) -> tuple[str, ...]:
    """The components whose host masters fit, in the order given."""
    found, free = [], host_bytes
    for component in components:
        if component.weight_bytes <= free:
            found.append(component.name)
            free -= component.weight_bytes
    return tuple(found)


def _priced(profile: Costs, request: Request) -> Demand:
    demand = profile.demand(request)
    for phase in demand.phases:
        if phase.seconds > _PHASE_SECONDS_MAX:
            allowed = f"up to {_PHASE_SECONDS_MAX:g}"
            seconds = f"phase {phase.name} takes {phase.seconds:g} s"
            raise InputError(f"request {request.id}: {seconds}, allowed: {allowed}")
    return demand


class _Simulation:
    def __init__(
        self,
        workload: Workload,
        profile: Costs,
        contestant: Contestant,
        settings: SchedulerSettings,
        every_step: bool,
        record: bool,
    ) -> None:
        links = profile.links_naive if contestant.naive else profile.links
        self._scheduler = Scheduler(
            profile.components,
            profile.budget,
            links,
            settings,
            contestant.policy,
            staged=masters(profile.components, profile.budget.host_bytes),
            eviction=contestant.eviction,
        )
        self._machine = Machine(
            profile.components, links, profile.copy_slowdown, profile.paused_bytes
        )
        self._workload = workload
        self._profile = profile
        # By when they are released; those of one moment come in as they arrived.
        self._coming: list[tuple[float, float, str, Request]] = [
            (r.arrival, r.arrival, r.id, r) for r in workload.requests if r.after is None
        ]
        self._every_step = every_step
        self._decisions: list[tuple[float, m.Command]] | None = [] if record else None
        self._ends: dict[str, float] = {}
        self._now = self._coming[0][0]

    def play(self) -> Record:
        while (now := self._next()) < math.inf:
            self._now = max(self._now, now)
            if not self._report_step():
                self._handle(self._due(), self._now)
        if len(self._ends) < len(self._workload.requests):
            raise ProtocolError(f"nothing moves any more: {self._scheduler!r}")
        return Record(self._ends, self._machine.counts, self._decisions or [])

    def _next(self) -> float:
        """When something happens next."""
        arrival = self._coming[0][0] if self._coming else math.inf
        wake = self._scheduler.deadline()
        boundary = self._machine.boundary(every=self._every_step)
        ends = self._machine.next_end()
        return min(arrival, ends, boundary, math.inf if wake is None else wake)

    def _report_step(self) -> bool:
        """Report the newest boundary of the run, unless it was or somebody leaves it now."""
        reached = self._machine.newly_reached(self._now)
        if reached is None:
            return False
        self._handle(*reached)
        return True

    def _due(self) -> list[m.Event]:
        """What happens now: one command ends, or several jobs leave a run, and all arrive whose
        time has come."""
        events: list[m.Event] = []
        if self._machine.next_end() <= self._now:
            events += self._machine.end(self._now)
            for event in events:
                if isinstance(event, m.PhaseFinished):
                    self._release_children(event)
        while self._coming and self._coming[0][0] <= self._now:
            demand = _priced(self._profile, heappop(self._coming)[-1])
            self._machine.know(demand)
            events.append(m.JobArrived(demand))
        return events or [m.TimeReached()]

    def _release_children(self, event: m.PhaseFinished) -> None:
        job = event.lease.job
        if self._machine.is_last(event.lease):
            for child in self._workload.children.get(job, ()):
                at = max(child.arrival, self._now)
                heappush(self._coming, (at, child.arrival, child.id, child))

    def _handle(self, events: list[m.Event], now: float) -> None:
        for command in self._scheduler.handle(events, now):
            if isinstance(command, m.Settle):
                self._settle(command, now)
                continue
            self._machine.carry_out(command, now)
            if self._decisions is not None:
                self._decisions.append((now, command))

    def _settle(self, settle: m.Settle, now: float) -> None:
        if settle.outcome is not Outcome.FINISHED:
            raise InputError(f"request {settle.job}: {settle.detail}")
        self._ends[settle.job] = now
        self._machine.forget(settle.job)
