"""Which job next. A policy reads the index and returns a decision; it changes nothing."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Protocol

from scheduler.types import SchedulerSettings
from scheduler.view import GroupView, JobView, View


@dataclass(frozen=True, slots=True)
class Decision:
    """``job`` is to run next; ``None``: leave things as they are until the next event.

    While a run lasts, a job is only taken with ``preempt``: every run is asked to pause at its next
    step, and the job's components are loaded into free room meanwhile. Once taken, a job keeps its
    turn until it is started, cancelled or failed, so that two jobs cannot evict each other's
    components for ever.
    """

    job: str | None
    preempt: bool = False


WAIT = Decision(None)


class Policy(Protocol):
    def rank(self, job: JobView) -> float:
        """Orders waiting jobs that need the same components and weigh the same; lowest first.

        Asked when the job begins to wait, after every one of its runs again; it may not depend on
        anything that changes in between.
        """

    def choose(self, view: View, now: float) -> Decision:
        """Asked after every event while no job is on its way to be started. The chosen job must
        wait and be admitted (``View.admits``)."""

    def order(self, view: View, now: float) -> list[JobView]:
        """All waiting jobs in the order in which they would go now, for estimates; it may take
        its time."""

    def wake(self, view: View, now: float) -> float | None:
        """When it may decide otherwise though nothing will have happened, later than ``now``;
        ``None`` if never. That a run has reached a step is no reason to choose a job that was not
        chosen before."""


class ShortestWork:
    """Set-up-aware shortest remaining work with ageing and a bound on waiting.

    1. While a run lasts: wait. It is never paused.
    2. A job that has waited ``wait_seconds_max`` since its arrival goes before all that have
       waited less, the oldest first:
       2a. it goes, if its state is sure to find room beside that of the jobs begun already;
       2b. else only jobs begun already may go, by 3, so that they end and make room.
    3. The lowest score goes. Setting up counts every component that is not on the device once,
       over all remaining phases:
       ``score = (remaining_seconds + setup_seconds) / weight - waited / ageing_seconds``.

    Ties go to the earlier arrival, then to the lower id. Jobs that need a component that has failed
    are passed over until it may be tried again. The age is linear, so it moves all scores alike and
    the part that differs between jobs of one group, ``rank``, stands still while they wait.
    """

    def __init__(self, settings: SchedulerSettings) -> None:
        self._ageing_seconds = settings.ageing_seconds
        self._wait_seconds_max = settings.wait_seconds_max

    def rank(self, job: JobView) -> float:
        return job.remaining_seconds / job.weight + job.demand.arrival / self._ageing_seconds

    def choose(self, view: View, now: float) -> Decision:
        if view.running:  # 1
            return WAIT
        overdue = self._overdue(view, now)  # 2
        if overdue is not None and view.admits(overdue):  # 2a
            return Decision(overdue.id)
        begun_only = overdue is not None  # 2b
        best: tuple[float, float, str] | None = None
        for group in view.groups():  # 3
            if view.blocked(group.needs):
                continue
            job = _first(group, lambda j: (j.begun or not begun_only) and view.admits(j))
            if job is None:
                continue
            score = job.rank + view.setup_seconds(group.needs) / group.weight
            key = (score, job.demand.arrival, job.id)
            best = key if best is None else min(best, key)
        return WAIT if best is None else Decision(best[2])

    def order(self, view: View, now: float) -> list[JobView]:
        def turn(job: JobView) -> tuple[int, float, float, str]:
            arrival = job.demand.arrival
            if view.blocked(job.needs):
                return 2, arrival, arrival, job.id
            if now - arrival >= self._wait_seconds_max:
                return 0, arrival, arrival, job.id
            setup = view.setup_seconds(job.needs) / job.weight
            return 1, job.rank + setup, arrival, job.id

        return sorted(view.waiting(), key=turn)

    def wake(self, view: View, now: float) -> float | None:  # noqa: ARG002 - the Policy's
        """It chooses when nothing runs, and then at once."""
        return None

    def _overdue(self, view: View, now: float) -> JobView | None:
        for job in view.waiting():
            if now - job.demand.arrival < self._wait_seconds_max:
                return None
            if not view.blocked(job.needs):
                return job
        return None


def _first(group: GroupView, may_go: Callable[[JobView], bool]) -> JobView | None:
    return next((job for job in group.jobs() if may_go(job)), None)
