"""When each job is expected to start and to finish, if nothing else comes."""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from itertools import chain

from scheduler.index import Index
from scheduler.job import Job, Run


@dataclass(frozen=True, slots=True)
class Estimate:
    """Position 0 runs, 1 is next; the seconds are from now, ``finish_p90_seconds`` is the 90th
    percentile of the end."""

    job: str
    position: int
    start_seconds: float
    finish_seconds: float
    finish_p90_seconds: float


def estimates(index: Index, order: Sequence[Job], now: float) -> list[Estimate]:
    """Project the jobs one after the other: what runs, then ``order``, each to its end. Who is
    being paused stops at the next step, and goes on after the first of ``order``, for whom it is.

    A set-up is counted for the first job that needs a component, as if everything fitted. Texts
    that can be decoded together are, from the first one's turn on. While no step is reached, a
    run's time left falls with the clock, but not beyond its phase. What the jobs up to one may take
    longer than expected adds up as independent errors do.
    """
    paused = [run.job for run in index.runs.values() if run.pausing] if order else []
    projection = _Projection(index, order)
    for run in index.runs.values():
        projection.add_run(run, now, stops=run.job in paused)
    for place, job in enumerate(order):
        projection.add(job, place + 1)
        if place == 0:
            for rest in paused:
                projection.add_rest(rest, job)
    return projection.found


class _Together:
    """Texts of one key that are decoded together; whoever ends makes the others faster."""

    def __init__(self) -> None:
        self.units = 0
        self.start: float | None = None
        self._jobs: list[Job] = []
        self._ends: dict[str, float] = {}

    def add(self, job: Job, units: int) -> None:
        self.units += units
        self._jobs.append(job)

    def seconds(self, job: Job) -> float:
        """From the start of them all to the end of this one."""
        if not self._ends:
            self._walk()
        return self._ends[job.id]

    def _walk(self) -> None:
        at, done, units = 0.0, 0.0, self.units
        for job in sorted(self._jobs, key=lambda job: job.remaining_seconds):
            assert job.sharing is not None
            at += (job.remaining_seconds - done) * job.sharing.factor(units)
            done = job.remaining_seconds
            units -= job.sharing.units
            self._ends[job.id] = at


def _together(jobs: Iterable[Job]) -> dict[str, _Together]:
    """With whom each job is decoded, by its id: a key's texts in order, as many as there may be."""
    found: dict[str, _Together] = {}
    last: dict[str, _Together] = {}
    for job in jobs:
        sharing = job.sharing
        if sharing is None or not (sharing.mid_phase and job.last_phase):
            continue
        group = last.get(sharing.key)
        if group is None or group.units + sharing.units > sharing.units_max:
            group = last[sharing.key] = _Together()
        group.add(job, sharing.units)
        found[job.id] = group
    return found


class _Projection:
    def __init__(self, index: Index, order: Sequence[Job]) -> None:
        self.found: list[Estimate] = []
        self._index = index
        self._at = 0.0
        self._variance = 0.0
        self._brought: set[str] = set()
        self._together = _together(chain((run.job for run in index.runs.values()), order))
        self._units = sum(r.job.sharing.units for r in index.runs.values() if r.job.sharing)

    def add_run(self, run: Run, now: float, *, stops: bool) -> None:
        """``stops``: only to the next step; the job itself comes later."""
        if stops:
            self._at = max(self._at, _to_next_step(run.job, now - run.since))
            return
        left = self._phase_seconds(run.job)
        left -= min(now - run.since, left)
        end = left + run.job.remaining_seconds - run.job.phase_seconds
        end += self._index.setup_seconds(run.job.needs)
        self._tell(run.job, 0, 0.0, end)

    def _phase_seconds(self, job: Job) -> float:
        group = self._together.get(job.id)
        if group is not None:
            group.start = 0.0
            return group.seconds(job)
        sharing = job.sharing
        return job.phase_seconds * (1.0 if sharing is None else sharing.factor(self._units))

    def add_rest(self, job: Job, target: Job) -> None:
        """What is left of a run that is being paused for the target, once that has ended."""
        back = self._index.way_back_seconds(job, target)
        group = self._together.get(job.id)
        if group is None:
            left = max(0.0, job.remaining_seconds - job.current.step_seconds)
            self._tell(job, 0, 0.0, self._at + back + left)
            return
        if group.start is None:
            group.start = self._at + back
        self._tell(job, 0, 0.0, group.start + group.seconds(job))

    def add(self, job: Job, position: int) -> None:
        group = self._together.get(job.id)
        start = group.start if group is not None else None
        if start is None:
            start = self._at + self._index.setup_seconds(
                tuple(name for name in job.needs if name not in self._brought)
            )
        if group is None:
            self._tell(job, position, start, start + job.remaining_seconds)
        else:
            group.start = start
            self._tell(job, position, start, start + group.seconds(job))

    def _tell(self, job: Job, position: int, start: float, finish: float) -> None:
        self._at = max(self._at, finish)
        self._brought.update(job.needs)
        self._variance += job.spread_seconds**2
        late = finish + math.sqrt(self._variance)
        self.found.append(Estimate(job.id, position, start, finish, late))


def _to_next_step(job: Job, since: float) -> float:
    """Seconds until the step at hand is done, which was begun so many seconds ago."""
    return max(0.0, job.current.step_seconds - since)
