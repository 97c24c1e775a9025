"""A second simulator, written from the rules alone: it shares no code with the first but the input.

One device, one phase at a time, loads block, decisions when a phase has ended and, to preempt, at
the first step boundary after an arrival.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

from scheduler.profile import Profile
from scheduler.workload import Workload


@dataclass
class Item:
    id: str
    arrival: float
    deadline: float
    phases: list[tuple[str, int, float, int]]
    children: list[Item]
    phase: int = 0
    step: int = 0

    def remaining(self) -> float:
        _, _, seconds, steps = self.phases[self.phase]
        after = sum(p[2] for p in self.phases[self.phase + 1 :])
        return seconds * (1 - self.step / steps) + after


def items(workload: Workload, profile: Profile) -> list[Item]:
    found = {}
    for request in workload.requests:
        demand = profile.demand(request)
        phases = [(p.components[0], p.working_bytes, p.seconds, p.steps) for p in demand.phases]
        assert demand.deadline is not None
        found[request.id] = Item(request.id, request.arrival, demand.deadline, phases, [])
    for parent, children in workload.children.items():
        found[parent].children += [found[c.id] for c in children]
    return [found[r.id] for r in workload.requests if r.after is None]


def serve(workload: Workload, profile: Profile, policy: str) -> tuple[dict[str, float], int]:
    """Each request's end, and the loads, by ``fifo-exclusive``, ``fifo-lru-naive``, ``fifo-lru`` or
    ``edf``."""
    coming = sorted(items(workload, profile), key=lambda i: (i.arrival, i.id))
    sizes = {c.name: c.weight_bytes for c in profile.components}
    links = profile.links_naive if policy in {"fifo-exclusive", "fifo-lru-naive"} else profile.links
    waiting: list[Item] = []
    used: dict[str, float] = {}
    ends: dict[str, float] = {}
    now, loads = -math.inf, 0
    while coming or waiting:
        if not waiting:
            now = max(now, coming[0].arrival)
        while coming and coming[0].arrival <= now:
            waiting.append(coming.pop(0))
        item = min(
            waiting, key=lambda i: (i.deadline if policy == "edf" else i.arrival, i.arrival, i.id)
        )
        component, work, seconds, _ = item.phases[item.phase]
        if policy == "fifo-exclusive":
            family = component.split(".")[0]
            used = {name: at for name, at in used.items() if name.split(".")[0] == family}
        begun = sum(1 for i in waiting if i.phase > 0)
        lack = work + begun * profile.paused_bytes - profile.budget.device_bytes
        kept = used.pop(component, None)
        while sum(sizes[name] for name in used) + sizes[component] + lack > 0:
            del used[min(used, key=lambda name: used[name])]
        if kept is None:
            now += links.load_seconds(sizes[component])
            loads += 1
        now += seconds
        used[component] = now
        item.phase += 1
        if item.phase == len(item.phases):
            ends[item.id] = now
            waiting.remove(item)
            coming += item.children
            coming.sort(key=lambda i: (i.arrival, i.id))
    return ends, loads


def srpt(workload: Workload, services: dict[str, float], tick: float) -> float:
    """Mean flow of preemptive SRPT without set-ups, a tick at a time: all times are multiples."""
    release = {
        r.id: r.arrival
        if r.after is None
        else max(
            r.arrival,
            next(p for p in workload.requests if p.id == r.after).arrival + services[r.after],
        )
        for r in workload.requests
    }
    left, ends, now = dict(services), {}, min(release.values())
    while left:
        ready = [job for job in left if release[job] <= now]
        now += tick
        if ready:
            job = min(ready, key=lambda j: (left[j], j))
            left[job] -= tick
            if left[job] <= 0:
                ends[job] = now
                del left[job]
    return sum(ends[r.id] - r.arrival for r in workload.requests) / len(ends)
