"""When each job is expected to start and to finish, if nothing else comes."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

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
    """Project the jobs one after the other: what runs, then ``order``, each to its end.

    A set-up is counted for the first job that needs a component, as if everything fitted. Texts
    that can be decoded together are. While no step is reached, a run's time left falls with the
    clock, but not beyond its phase. What the jobs up to one may take longer than expected adds up
    as independent errors do.
    """
    projection = _Projection(index)
    for run in index.runs.values():
        projection.add_run(run, now)
    for job in order:
        projection.add(job)
    return projection.found


@dataclass(slots=True)
class _Together:
    """Texts of one key that are decoded together: how many, and since when."""

    start: float
    units: int


class _Projection:
    def __init__(self, index: Index) -> None:
        self.found: list[Estimate] = []
        self._index = index
        self._at = 0.0
        self._variance = 0.0
        self._brought: set[str] = set()
        self._together: dict[str, _Together] = {}
        self._units = sum(r.job.sharing.units for r in index.runs.values() if r.job.sharing)

    def add_run(self, run: Run, now: float) -> None:
        job, sharing = run.job, run.job.sharing
        beside = sharing if len(self._index.runs) > 1 else None
        factor = 1.0 if beside is None else beside.factor(self._units)
        left = job.phase_seconds * factor
        left -= min(now - run.since, left)
        end = left + job.remaining_seconds - job.phase_seconds
        end += self._index.setup_seconds(job.needs)
        self._brought.update(job.needs)
        self._at = max(self._at, end)
        self._tell(job, 0, 0.0, end)
        if sharing is not None and sharing.mid_phase and job.last_phase:
            self._together.setdefault(sharing.key, _Together(0.0, self._units))

    def add(self, job: Job) -> None:
        position = len(self.found) - len(self._index.runs) + 1
        sharing = job.sharing
        if sharing is not None and sharing.mid_phase and job.last_phase:
            together = self._together.get(sharing.key)
            if together is not None and together.units + sharing.units <= sharing.units_max:
                together.units += sharing.units
                seconds = job.remaining_seconds * sharing.factor(together.units)
                self._at = max(self._at, together.start + seconds)
                self._tell(job, position, together.start, together.start + seconds)
                return
        needs = tuple(name for name in job.needs if name not in self._brought)
        start = self._at + self._index.setup_seconds(needs)
        self._brought.update(job.needs)
        self._at = start + job.remaining_seconds
        self._tell(job, position, start, self._at)
        if sharing is not None and sharing.mid_phase and job.last_phase:
            self._together[sharing.key] = _Together(start, sharing.units)

    def _tell(self, job: Job, position: int, start: float, finish: float) -> None:
        self._variance += job.spread_seconds**2
        late = finish + math.sqrt(self._variance)
        self.found.append(Estimate(job.id, position, start, finish, late))
