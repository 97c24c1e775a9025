"""What no schedule can beat, and how far from it one is.

``mean_flow_bound`` is preemptive SRPT without set-ups, pausing anywhere, a chained request released
no earlier than its parent's arrival and service. It bounds a device that runs one request at a
time; one that runs several together may go below it.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from heapq import heappop, heappush

from scheduler.types import Demand, Links
from scheduler.workload import Workload


@dataclass(frozen=True, slots=True)
class Use:
    """A stretch of running: what had to be on the device beside ``working_bytes``."""

    components: tuple[str, ...]
    working_bytes: int


def service_seconds(demand: Demand) -> float:
    return sum(phase.seconds for phase in demand.phases)


def releases(workload: Workload, services: Mapping[str, float]) -> list[tuple[float, str]]:
    """When each request can be released at the earliest, and its id, in order."""
    earliest: dict[str, float] = {}
    walk = [r for r in workload.requests if r.after is None]
    for request in walk:  # grows by the children of those released
        at = request.arrival
        if request.after is not None:
            at = max(at, earliest[request.after] + services[request.after])
        earliest[request.id] = at
        walk += workload.children.get(request.id, ())
    return sorted((at, job) for job, at in earliest.items())


def mean_flow_bound(workload: Workload, services: Mapping[str, float]) -> float:
    """Mean flow seconds under preemptive SRPT without set-ups."""
    coming = releases(workload, services)
    arrivals = {r.id: r.arrival for r in workload.requests}
    left: list[tuple[float, str]] = []
    now, total, number = -math.inf, 0.0, 0
    while number < len(coming) or left:
        if not left:
            now = max(now, coming[number][0])
        while number < len(coming) and coming[number][0] <= now:
            job = coming[number][1]
            heappush(left, (services[job], job))
            number += 1
        seconds, job = heappop(left)
        until = coming[number][0] if number < len(coming) else math.inf
        if now + seconds <= until:
            now += seconds
            total += now - arrivals[job]
        else:
            heappush(left, (seconds - (until - now), job))
            now = until
    return total / len(arrivals)


def belady_misses(uses: Sequence[Use], sizes: Mapping[str, int], budget: int) -> int:
    """Loads that the order served would have needed with hindsight: what is used again last goes
    first, and what is not used again before anything else."""
    ahead: dict[str, list[int]] = {name: [] for name in sizes}
    for number in range(len(uses) - 1, -1, -1):
        for name in uses[number].components:
            ahead[name].append(number)
    resident: list[str] = []
    misses = 0

    def next_use(name: str) -> tuple[float, str]:
        return (ahead[name][-1] if ahead[name] else math.inf), name

    for use in uses:
        for name in use.components:
            ahead[name].pop()
            if name not in resident:
                misses += 1
                resident.append(name)
        spare = sorted((n for n in resident if n not in use.components), key=next_use)
        held = sum(sizes[name] for name in resident)
        while spare and held + use.working_bytes > budget:
            gone = spare.pop()
            resident.remove(gone)
            held -= sizes[gone]
    return misses


def busy_period_bound(
    workload: Workload, demands: Mapping[str, Demand], links: Links, sizes: Mapping[str, int]
) -> float:
    """Seconds that the device cannot but be busy: all work, and one load of each component that any
    of it needs."""
    needed = dict.fromkeys(
        name for r in workload.requests for p in demands[r.id].phases for name in p.components
    )
    work = sum(service_seconds(demands[r.id]) for r in workload.requests)
    return work + sum(links.load_seconds(sizes[name]) for name in needed)
