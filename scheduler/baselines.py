"""Policies to measure against, none of them meant to run live.

==================  ============================================================================
fifo                by arrival
edf                 by deadline
affinity-age        what waits for more than ``AGE_SECONDS`` first, then what finds its next
                    phase's components on the device, then the rest; by arrival each
srpt-setup          by seconds left to run and to load
==================  ============================================================================

They decide when a phase has ended. ``srpt-setup-preempt`` also decides when a job arrives: the run
is paused for one that will take less, loading included, than is left of the run at the boundary at
which it can stop.

Two things differ from the usual rules, and little comes of it (up to two tenths of a per cent in
mean flow, a third fewer loads). The two ``srpt`` evict by the core's own rule, which counts who
waits for a component in any phase and gives up no more than must go, where last use is customary.
And they decide when a job arrives, not at the boundary after it: a better job that arrives in
between waits for the first boundary of the one chosen, and what is chosen is loaded meanwhile if
there is room.
"""

from __future__ import annotations

from collections.abc import Callable

from scheduler.policy import WAIT, Decision, Place, Solitary
from scheduler.view import JobView, View

AGE_SECONDS = 60.0

Key = Callable[[JobView, View, float], tuple[float, ...]]


def by_arrival(job: JobView, view: View, now: float) -> tuple[float, ...]:  # noqa: ARG001 - a Key
    return (job.demand.arrival,)


def by_deadline(job: JobView, view: View, now: float) -> tuple[float, ...]:  # noqa: ARG001 - a Key
    deadline = job.demand.deadline
    return (float("inf") if deadline is None else deadline, job.demand.arrival)


def by_affinity(job: JobView, view: View, now: float) -> tuple[float, ...]:
    arrival = job.demand.arrival
    if now - arrival > AGE_SECONDS:
        return (0.0, arrival)
    needs = job.demand.phases[job.phase].components
    return (1.0 if all(view.resident(name) for name in needs) else 2.0, arrival)


def by_work(job: JobView, view: View, now: float) -> tuple[float, ...]:  # noqa: ARG001 - a Key
    return (job.remaining_seconds + view.setup_seconds(job.needs), job.demand.arrival)


class InOrder(Solitary):
    """The waiting job with the lowest key goes, whenever nothing runs. Ties go to the lower id."""

    def __init__(self, key: Key) -> None:
        self._key = key

    def place(self, job: JobView, now: float) -> Place:  # noqa: ARG002 - the Policy's
        return Place(job.remaining_seconds)

    def choose(self, view: View, now: float) -> Decision:
        job = None if view.running else self._first(view, now)
        return WAIT if job is None else Decision(job.id)

    def order(self, view: View, now: float) -> list[JobView]:
        return sorted(view.waiting(), key=lambda job: (self._key(job, view, now), job.id))

    def _first(self, view: View, now: float) -> JobView | None:
        may = (j for j in view.waiting() if not view.blocked(j.needs) and view.admits(j))
        return min(may, key=lambda job: (self._key(job, view, now), job.id), default=None)


class PreemptiveWork(InOrder):
    """``by_work``, and the run gives way."""

    def __init__(self) -> None:
        super().__init__(by_work)

    def choose(self, view: View, now: float) -> Decision:
        job = self._first(view, now)
        if job is None:
            return WAIT
        for run in view.running:
            phase = run.demand.phases[run.phase]
            step = phase.step_seconds
            left = run.remaining_seconds - step + view.setup_seconds(run.needs)
            if run.step + 1 >= phase.steps or by_work(job, view, now)[0] >= left:
                return WAIT
        return Decision(job.id, preempt=True)
