"""What could be had at most: schedules on a device that has everything loaded, to set the default
policy's figures beside.

All serve the least remaining work first (SRPT). The plainest is the bound itself. The others take
away what no device can do, give what a real one has, or know what nobody knows; so they tell what
of the distance to an aim is the policy's, and what is not.
"""

from __future__ import annotations

import math
from bisect import bisect_right
from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from heapq import heapify, heappop, heappush

from scheduler.machine import Counts
from scheduler.profile import Costs
from scheduler.simulate import Record
from scheduler.types import Demand, Phase, Sharing
from scheduler.workload import Request, Workload

_ROUNDING = 1e-9


@dataclass(frozen=True, slots=True)
class Ideal:
    """``steps``: a run stops at the ends of its steps only. ``shared``: texts decode together, who
    comes joins. ``foresight``: a text is held back for the next that will come, where that saves
    those who wait behind more than it costs. ``given_up``: a video that will have taken so many
    times its SLO goes after those that will not."""

    steps: bool = False
    shared: bool = False
    foresight: bool = False
    given_up: float = math.inf


LIMITS: Mapping[str, Ideal] = {
    "the bound: one at a time, pauses anywhere": Ideal(),
    "pauses at steps": Ideal(steps=True),
    "pauses at steps, texts together": Ideal(steps=True, shared=True),
    "the same, knowing when the next text comes": Ideal(steps=True, shared=True, foresight=True),
    "pauses anywhere, texts together, knowing": Ideal(shared=True, foresight=True),
    "the bound, videos beyond 1.5 times their SLO last": Ideal(given_up=1.5),
    "the bound, videos beyond 2.5 times their SLO last": Ideal(given_up=2.5),
}


def serve(workload: Workload, profile: Costs, ideal: Ideal) -> Record:
    """Serve all of a workload; of the record only the ends say something."""
    return _Serving(workload, profile, ideal).play()


@dataclass(slots=True)
class _Job:
    request: Request
    demand: Demand
    slo: float
    phase: int = 0
    done: float = 0.0  # of the phase's seconds
    left: float = field(init=False)

    def __post_init__(self) -> None:
        self.left = sum(phase.seconds for phase in self.demand.phases)

    @property
    def current(self) -> Phase:
        return self.demand.phases[self.phase]

    @property
    def sharing(self) -> Sharing | None:
        sharing = self.current.sharing
        return sharing if sharing is not None and sharing.mid_phase else None

    @property
    def begun(self) -> bool:
        return self.phase > 0 or self.done > 0

    def boundary(self, seconds: float) -> float:
        """The first end of a step that is not before so many seconds from now."""
        step = self.current.seconds / max(1, self.current.steps)
        steps = math.ceil((self.done + seconds - _ROUNDING) / step) if step else 0
        return max(seconds, steps * step - self.done)

    def work(self, seconds: float) -> bool:
        """Whether that was the last of it."""
        self.done += seconds
        self.left -= seconds
        while self.done >= self.current.seconds - _ROUNDING:
            self.phase, self.done = self.phase + 1, 0.0
            if self.phase == len(self.demand.phases):
                return True
        return False


class _Serving:
    def __init__(self, workload: Workload, profile: Costs, ideal: Ideal) -> None:
        self._workload, self._profile, self._ideal = workload, profile, ideal
        self._coming = [(r.arrival, r.id, r) for r in workload.requests if r.after is None]
        heapify(self._coming)
        self._texts: dict[str, list[float]] = defaultdict(list)
        for arrival, _, request in sorted(self._coming):
            sharing = self._job(request).sharing
            if sharing is not None:
                self._texts[sharing.key].append(arrival)
        self._present: dict[str, _Job] = {}
        self._ends: dict[str, float] = {}
        self._now = self._coming[0][0]

    def play(self) -> Record:
        while self._coming or self._present:
            if not self._present:
                self._now = max(self._now, self._coming[0][0])
            while self._coming and self._coming[0][0] <= self._now + _ROUNDING:
                request = heappop(self._coming)[2]
                self._present[request.id] = self._job(request)
            self._go_on(*self._choose())
        return Record(self._ends, Counts(), [])

    def _job(self, request: Request) -> _Job:
        slo = self._profile.slo_seconds[request.type]
        return _Job(request, self._profile.demand(request), slo)

    def _go_on(self, together: Sequence[_Job], seconds_max: float) -> None:
        """Run until somebody comes, has done a phase, or the time is over."""
        first, sharing = together[0], together[0].sharing
        factor = sharing.factor(len(together)) if sharing is not None else 1.0
        ends = min(job.current.seconds - job.done for job in together)
        comes = self._coming[0][0] - self._now if self._coming else math.inf
        seconds = min(ends, min(comes, seconds_max) / factor)
        if self._ideal.steps:
            seconds = min(ends, first.boundary(seconds))
        self._now += seconds * factor
        for job in together:
            if job.work(seconds):
                self._end(job.request)

    def _end(self, request: Request) -> None:
        del self._present[request.id]
        self._ends[request.id] = self._now
        for child in self._workload.children.get(request.id, ()):
            heappush(self._coming, (max(child.arrival, self._now), child.id, child))

    def _choose(self) -> tuple[Sequence[_Job], float]:
        """Who runs together, and for how many seconds at most."""
        order = sorted(self._present.values(), key=self._key)
        held_seconds = math.inf
        for job in order:
            together = self._together(job, order)
            gap = self._gap(together, order)
            if gap is None:
                return together, held_seconds
            held_seconds = min(held_seconds, gap)
        return self._together(order[0], order), math.inf

    def _key(self, job: _Job) -> tuple[bool, float, float, str]:
        request = job.request
        flow = self._now - request.arrival + job.left
        beyond = flow > self._ideal.given_up * job.slo
        given_up = beyond and not job.begun and request.job_class == "video"
        return given_up, job.left, request.arrival, request.id

    def _together(self, job: _Job, order: Sequence[_Job]) -> list[_Job]:
        sharing = job.sharing
        if sharing is None or not self._ideal.shared:
            return [job]
        same = [o for o in order if o.sharing is not None and o.sharing.key == sharing.key]
        return same[: sharing.units_max]

    def _gap(self, together: Sequence[_Job], order: Sequence[_Job]) -> float | None:
        """Seconds until the next text comes for which these should be held back."""
        sharing, members = together[0].sharing, len(together)
        if sharing is None or not self._ideal.foresight or members == sharing.units_max:
            return None
        coming = self._texts[sharing.key]
        following = bisect_right(coming, self._now)
        behind = len(order) - members
        if following == len(coming) or not behind:
            return None
        gap, left = coming[following] - self._now, together[0].left
        exponent = sharing.exponent
        saved = left * (1 + members**exponent - (members + 1) ** exponent) * behind
        # Who comes before half of it is done shares most of it anyway.
        return gap if left / 2 < gap < saved / members else None
