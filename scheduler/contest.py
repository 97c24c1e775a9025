"""The policies by name, and how one of them fared on a workload."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from scheduler import baselines
from scheduler.bound import (
    belady_misses,
    busy_period_bound,
    mean_flow_bound,
    service_seconds,
)
from scheduler.policy_priced import PricedWork
from scheduler.profile import Costs
from scheduler.simulate import Contestant, Record, simulate
from scheduler.strategy import Eviction
from scheduler.types import SchedulerSettings
from scheduler.workload import CLASSES, Request, Workload

# Beyond either a request counts as starved: flow over its own service, and seconds of waiting.
STARVED_SLOWDOWN = 15.0
STARVED_WAIT_SECONDS = 3600.0

_LRU, _FAMILY, _UNWAITED = Eviction.RECENCY, Eviction.FAMILY, Eviction.UNWAITED

CONTESTANTS: Mapping[str, Callable[[SchedulerSettings], Contestant]] = {
    "default": lambda settings: Contestant(PricedWork(settings.policy)),
    "fifo-exclusive": lambda _: Contestant(
        baselines.InOrder(baselines.by_arrival), _FAMILY, naive=True
    ),
    "fifo-lru-naive": lambda _: Contestant(
        baselines.InOrder(baselines.by_arrival), _LRU, naive=True
    ),
    "fifo-lru": lambda _: Contestant(baselines.InOrder(baselines.by_arrival), _LRU),
    "srpt-setup": lambda _: Contestant(baselines.InOrder(baselines.by_work), _UNWAITED),
    "srpt-setup-preempt": lambda _: Contestant(baselines.PreemptiveWork(), _UNWAITED),
    "edf": lambda _: Contestant(baselines.InOrder(baselines.by_deadline), _LRU),
    "affinity-age": lambda _: Contestant(baselines.InOrder(baselines.by_affinity), _LRU),
}


@dataclass(frozen=True, slots=True)
class Served:
    """One request, served: seconds from arrival to end, and of running."""

    request: Request
    flow: float
    service: float

    @property
    def slowdown(self) -> float:
        return self.flow / self.service if self.service else 1.0

    @property
    def starved(self) -> bool:
        waited = self.flow - self.service
        return self.slowdown > STARVED_SLOWDOWN or waited > STARVED_WAIT_SECONDS


def contest(
    name: str, workload: Workload, profile: Costs, settings: SchedulerSettings
) -> dict[str, Any]:
    """Serve a workload by the policy of this name and sum it up. Raises ``KeyError`` for a name
    that is not in ``CONTESTANTS`` and ``InputError`` for a request that cannot be served."""
    record = simulate(workload, profile, CONTESTANTS[name](settings), settings)
    return {"policy": name, **summary(workload, profile, record)}


def summary(workload: Workload, profile: Costs, record: Record) -> dict[str, Any]:
    """Seconds, counts, and shares as fractions; by class ``None`` where it has no requests."""
    demands = {r.id: profile.demand(r) for r in workload.requests}
    services = {job: service_seconds(demand) for job, demand in demands.items()}
    sizes = {c.name: c.weight_bytes for c in profile.components}
    served = [Served(r, record.ends[r.id] - r.arrival, services[r.id]) for r in workload.requests]
    by_class = {c: [s for s in served if s.request.job_class == c] for c in CLASSES}
    flows = {c: sorted(s.flow for s in some) for c, some in by_class.items()}
    mean, bound = _mean([s.flow for s in served]), mean_flow_bound(workload, services)
    span = max(record.ends.values()) - workload.requests[0].arrival
    counts = record.counts

    def within(some: Sequence[Served]) -> float | None:
        met = [float(s.flow <= profile.slo_seconds[s.request.type]) for s in some]
        return _mean(met) if met else None

    return {
        "jobs": len(served),
        "mean_flow_s": mean,
        "bound_mean_flow_s": bound,
        "ratio": mean / bound if bound else 1.0,
        "slo": within(served),
        "slo_by_class": {c: within(some) for c, some in by_class.items()},
        **{f"p{p}": {c: percentile(some, p) for c, some in flows.items()} for p in (50, 95, 99)},
        "max_slowdown": max(s.slowdown for s in served),
        "loads": counts.loads,
        "load_s": counts.load_seconds,
        "gpu_busy": counts.run_seconds / span if span else 0.0,
        "preemptions": counts.preemptions,
        "starved": sum(s.starved for s in served),
        "belady_misses": belady_misses(counts.uses, sizes, profile.budget.device_bytes),
        "busy_bound_s": busy_period_bound(workload, demands, profile.links, sizes),
    }


def percentile(ordered: Sequence[float], percent: int) -> float | None:
    """Of sorted values, by nearest rank."""
    if not ordered:
        return None
    return ordered[max(0, math.ceil(len(ordered) * percent / 100) - 1)]


def _mean(values: Sequence[float]) -> float:
    return sum(values) / len(values)
