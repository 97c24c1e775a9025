"""The jobs that wait, in the orders in which they are looked for.

By what they still need, weight, kind and lane (within such a group set-up costs are equal and the
policy's rank alone decides, so a policy looks at the heads of a few groups and not at a thousand
jobs); by arrival; by whom they could share a run with. A job's place holds until its time is over,
then ``due`` places it anew.
"""

from __future__ import annotations

import math
from bisect import bisect_left, insort
from collections.abc import Callable, Hashable, Iterable, Iterator, Sequence
from heapq import heappop, heappush

from scheduler.job import Job
from scheduler.policy import Place

_Entry = tuple[int, float, float, str, Job]
_GroupKey = tuple[tuple[str, ...], float, str, int]


class Group:
    """Waiting jobs with the same needs, weight, kind and lane, in order of rank, arrival and id."""

    __slots__ = ("entries", "kind", "lane", "needs", "weight")

    def __init__(self, needs: tuple[str, ...], weight: float, kind: str, lane: int) -> None:
        self.needs = needs
        self.weight = weight
        self.kind = kind
        self.lane = lane
        self.entries: list[_Entry] = []

    def jobs(self) -> Iterator[Job]:
        return (entry[4] for entry in self.entries)


class Waiting:
    def __init__(self, components: Iterable[str], place: Callable[[Job, float], Place]) -> None:
        self._place = place
        self._groups: dict[_GroupKey, Group] = {}
        self._arrivals: list[tuple[float, str, Job]] = []
        self._shared: dict[Hashable, list[_Entry]] = {}
        self._needed = dict.fromkeys(components, 0)
        self._kinds: dict[str, int] = {}
        self._due: list[tuple[float, int, Job]] = []
        self._placings = 0

    def __len__(self) -> int:
        return len(self._arrivals)

    def add(self, job: Job, now: float) -> None:
        self._put(job, now)
        insort(self._arrivals, (job.demand.arrival, job.id, job))
        for name in job.needs:
            self._needed[name] += 1
        self._kinds[job.demand.kind] = self._kinds.get(job.demand.kind, 0) + 1

    def remove(self, job: Job) -> None:
        self._take(job)
        del self._arrivals[bisect_left(self._arrivals, (job.demand.arrival, job.id))]
        for name in job.needs:
            self._needed[name] -= 1
        self._kinds[job.demand.kind] -= 1

    def due(self, now: float) -> None:
        """Place anew whose place has run out."""
        while self.next_due <= now:
            _, _, job = heappop(self._due)
            self._take(job)
            self._put(job, now)

    @property
    def next_due(self) -> float:
        """When the next place runs out; infinity if none does."""
        while self._due:
            until, placing, job = self._due[0]
            if job.placing == placing and job.waits:
                return until
            heappop(self._due)
        return math.inf

    def by_arrival(self) -> Iterator[Job]:
        return (entry[2] for entry in self._arrivals)

    def groups(self) -> Iterator[Group]:
        return iter(self._groups.values())

    def needed(self, component: str) -> int:
        """How many need it in a phase that is left to them."""
        return self._needed[component]

    def of_kind(self, kind: str) -> int:
        return self._kinds.get(kind, 0)

    def sharers(self, job: Job) -> Iterator[Job]:
        """Those that could share a run of this one's current phase now."""
        return self._others(job, _share_key(job, job.phase))

    def coming_sharers(self, job: Job) -> Iterator[Job]:
        """Those whose next phase could share a run of this one's current one."""
        return self._others(job, ("next", _share_key(job, job.phase)))

    def _others(self, job: Job, key: Hashable) -> Iterator[Job]:
        """Nobody is entered under ``None``, the key of those who must run alone."""
        entries: Sequence[_Entry] = self._shared.get(key, ())
        return (entry[4] for entry in entries if entry[4] is not job)

    def _put(self, job: Job, now: float) -> None:
        place = self._place(job, now)
        job.rank, job.lane = place.rank, place.lane
        self._placings += 1
        job.placed_seconds = job.remaining_seconds
        job.placing = self._placings
        job.waits = True
        if place.until < math.inf:
            heappush(self._due, (place.until, job.placing, job))
        key = _group_key(job)
        if key not in self._groups:
            self._groups[key] = Group(*key)
        insort(self._groups[key].entries, _entry(job))
        for shared in _shared_keys(job):
            insort(self._shared.setdefault(shared, []), _entry(job))

    def _take(self, job: Job) -> None:
        key = _group_key(job)
        group = self._groups[key]
        del group.entries[bisect_left(group.entries, _entry(job))]
        if not group.entries:
            del self._groups[key]
        for shared in _shared_keys(job):
            entries = self._shared[shared]
            del entries[bisect_left(entries, _entry(job))]
            if not entries:
                del self._shared[shared]
        job.waits = False


def _group_key(job: Job) -> _GroupKey:
    return (job.needs, job.weight, job.demand.kind, job.lane)


def _entry(job: Job) -> _Entry:
    return (-job.lane, job.rank, job.demand.arrival, job.id, job)


def _share_key(job: Job, phase: int) -> Hashable:
    """Equal for jobs whose phases could run together now; ``None`` if it must run alone."""
    sharing = None if job.solo else job.demand.phases[phase].sharing
    if sharing is None:
        return None
    step = job.step if phase == job.phase else 0
    return (sharing.key, 0 if sharing.mid_phase else step)


def _shared_keys(job: Job) -> Iterator[Hashable]:
    own = _share_key(job, job.phase)
    if own is not None:
        yield own
    elif not job.last_phase and (following := _share_key(job, job.phase + 1)) is not None:
        yield ("next", following)
