"""The preemptive policy: shortest remaining work that minds deadlines, set-ups and age."""

from __future__ import annotations

import math
from dataclasses import dataclass, fields

from scheduler.policy import WAIT, Decision
from scheduler.view import JobView, View


@dataclass(frozen=True, slots=True)
class Urgency:
    """``ageing_seconds`` of waiting weigh as much as one second of work: lower for a better tail
    of long jobs, higher for a better mean. After ``wait_seconds_max`` a job goes before all that
    have waited less: a last resort, since on a loaded device a long job then holds up every other.

    A job that meets its deadline only if it is begun within ``margin_seconds`` is urgent: the share
    ``discount`` of its work is left out, up to ``discount_seconds_max``. Work on a job that is sure
    to be late is not urgent any more. A run is only paused for a gain of ``hysteresis_seconds``.
    """

    ageing_seconds: float = 300.0
    wait_seconds_max: float = 14_400.0
    margin_seconds: float = 8.0
    discount: float = 0.55
    discount_seconds_max: float = 12.0
    hysteresis_seconds: float = 0.2

    def __post_init__(self) -> None:
        for field in fields(self):
            value = getattr(self, field.name)
            low = 0.0 if field.name not in ("ageing_seconds", "wait_seconds_max") else 1e-3
            high = 1.0 if field.name == "discount" else math.inf
            if not (low <= value <= high and math.isfinite(value)):
                allowed = f"a finite number from {low:g}" + (" to 1" if high == 1.0 else "")
                raise ValueError(f"urgency.{field.name} is {value!r}, allowed: {allowed}")


class UrgentWork:
    """Set-up-aware shortest remaining work with preemption, deadlines, ageing and a bound.

    1. A job that has waited ``wait_seconds_max`` since its arrival goes before all that have waited
       less, the oldest first; if its state is not sure to find room, only jobs begun already go.
    2. The lowest score goes. Seconds left to run and to set up count, less what urgency leaves out:
       ``score = (remaining + setup - discount) / weight - waited / ageing``.
    3. If a job runs, as of the boundary at which it can be paused:
       3a. it is never paused at the boundary that ends its phase, nor once it is overdue;
       3b. for an overdue job it is paused;
       3c. else for one whose score is lower by the hysteresis and by the seconds that it takes to
           bring back what the run uses, if that cannot stay meanwhile.

    Ties go to the earlier arrival, then to the lower id. Jobs that need a component that has failed
    are passed over. All scores fall alike with time, and a run's as it goes on, so that a decision
    to wait stands until something happens or ``wake``.
    """

    def __init__(self, urgency: Urgency) -> None:
        self._urgency = urgency

    def rank(self, job: JobView) -> float:
        return (
            job.remaining_seconds / job.weight + job.demand.arrival / self._urgency.ageing_seconds
        )

    def choose(self, view: View, now: float) -> Decision:
        job = self._first(view, now)
        if job is None:
            return WAIT
        for run in view.running:  # 3
            if not self._gives_way(run, job, view, now):
                return WAIT
        return Decision(job.id, preempt=True)

    def order(self, view: View, now: float) -> list[JobView]:
        def turn(job: JobView) -> tuple[int, float, float, str]:
            arrival = job.demand.arrival
            if view.blocked(job.needs):
                return 2, arrival, arrival, job.id
            if self._overdue(job, now):
                return 0, arrival, arrival, job.id
            return 1, self._score(job, view, now), arrival, job.id

        return sorted(view.waiting(), key=turn)

    def wake(self, view: View, now: float) -> float | None:
        """When a waiting job will be urgent or overdue, if something runs meanwhile."""
        if not view.running:
            return None
        turns = (at for job in view.waiting() for at in self._turns(job) if at > now)
        return min(turns, default=None)

    def _turns(self, job: JobView) -> tuple[float, ...]:
        overdue = job.demand.arrival + self._urgency.wait_seconds_max
        if job.demand.deadline is None:
            return (overdue,)
        return overdue, self._window(job, job.demand.deadline)[0]

    def _window(self, job: JobView, deadline: float) -> tuple[float, float]:
        """Between these times a job that does not run is urgent. A run stays what it was when its
        last step was reached."""
        latest = deadline - job.remaining_seconds
        return latest - self._urgency.margin_seconds, latest

    def _first(self, view: View, now: float) -> JobView | None:
        able = [job for job in view.waiting() if not view.blocked(job.needs)]
        overdue = bool(able) and self._overdue(able[0], now)  # 1
        if overdue and view.admits(able[0]):
            return able[0]
        scored = [
            (self._score(job, view, now), job.demand.arrival, job.id, job)
            for job in able
            if job.begun or not overdue
        ]  # 2
        return next((entry[3] for entry in sorted(scored) if view.admits(entry[3])), None)

    def _gives_way(self, run: JobView, job: JobView, view: View, now: float) -> bool:
        phase = run.demand.phases[run.phase]
        if run.step + 1 >= phase.steps or self._overdue(run, now):  # 3a
            return False
        if self._overdue(job, now):  # 3b
            return True
        left = run.remaining_seconds - phase.seconds / phase.steps
        mine = self._price(run, left, view.as_of(run), view, now)
        gain = mine - self._score(job, view, now)
        return gain > self._urgency.hysteresis_seconds + view.way_back_seconds(run, job)  # 3c

    def _overdue(self, job: JobView, now: float) -> bool:
        return now >= job.demand.arrival + self._urgency.wait_seconds_max

    def _score(self, job: JobView, view: View, now: float) -> float:
        return self._price(job, job.remaining_seconds, now, view, now)

    def _price(self, job: JobView, left: float, at: float, view: View, now: float) -> float:
        """The score of a job with so many seconds left that stood ``at`` this time as it does."""
        urgency, deadline = self._urgency, job.demand.deadline
        work = left + view.setup_seconds(job.needs)
        if deadline is not None:
            first, last = self._window(job, deadline)
            if first <= at <= last:
                work -= min(urgency.discount * left, urgency.discount_seconds_max)
        return work / job.weight - (now - job.demand.arrival) / urgency.ageing_seconds
