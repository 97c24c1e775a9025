"""The loop's heartbeat and the figures that health and metrics show; never touches the device."""

from __future__ import annotations

from collections import deque
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Final

import anyio
from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram

from ourvidz.ports import Clock

# One minute of beats at the default period: enough for a p99.
_BEATS = 600
# Of what was measured to what was expected.
_RATIOS = (0.25, 0.5, 0.75, 0.9, 1.0, 1.1, 1.25, 1.5, 2.0, 4.0)

# The alarms. A job met a defect of ours and was answered as failed.
JOB_DEFECT: Final = "job_defect"
# Another worker may have one of our jobs.
LEASE_LOST: Final = "lease_lost"
# Claims, renewals and the like fail for now; silenced when one succeeds.
QUEUE_UNAVAILABLE: Final = "queue_unavailable"
# A delivery met what nobody foresaw and is tried again; silenced when one succeeds.
DELIVERY_BROKE: Final = "delivery_broke"
# A component could not be staged or loaded, by its name behind a colon; silenced when it is.
COMPONENT_FAILED: Final = "component_failed"
# The scheduler's turns are not recorded any more, as the disk is full or too slow.
RECORDING_STOPPED: Final = "recording_stopped"
# Callbacks were given up and are kept as dead.
PARKED_CALLBACKS: Final = "parked_callbacks"


class Alarms:
    """What a person should look at, by name."""

    def __init__(self) -> None:
        self._ringing: set[str] = set()

    def ring(self, name: str) -> None:
        self._ringing.add(name)

    def silence(self, name: str) -> None:
        self._ringing.discard(name)

    @property
    def ringing(self) -> Sequence[str]:
        return sorted(self._ringing)


@dataclass(slots=True)
class Heartbeat:
    """Sleeps a fixed period and measures how much later than asked it woke: the loop's lag."""

    clock: Clock
    period_seconds: float
    metrics: Metrics
    _lags: deque[float] = field(default_factory=lambda: deque(maxlen=_BEATS))

    async def beat(self) -> None:
        """For ever."""
        while True:
            before = self.clock.monotonic()
            await anyio.sleep(self.period_seconds)
            lag = max(0.0, self.clock.monotonic() - before - self.period_seconds)
            self._lags.append(lag)
            self.metrics.loop_lag.observe(lag)

    def lag_seconds(self) -> dict[str, float]:
        """p50, p99 and the worst of the last beats."""
        lags = sorted(self._lags) or [0.0]
        return {
            "p50": round(lags[len(lags) // 2], 6),
            "p99": round(lags[min(len(lags) - 1, len(lags) * 99 // 100)], 6),
            "max": round(lags[-1], 6),
        }


class Metrics:
    """The service's own registry: several services in one process do not share counts."""

    def __init__(self) -> None:
        self.registry = CollectorRegistry()
        self.loop_lag = Histogram(
            "ourvidz_loop_lag_seconds",
            "How late the event loop woke its heartbeat.",
            buckets=(0.001, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 5.0),
            registry=self.registry,
        )
        self.jobs_ended = Counter(
            "ourvidz_jobs_ended",
            "Jobs that ended, by type and status.",
            ("type", "status"),
            registry=self.registry,
        )
        self.job_seconds = Histogram(
            "ourvidz_job_run_seconds",
            "From the first part's arrival at the scheduler to the last file in the spool.",
            ("type",),
            buckets=(0.1, 0.5, 1, 2, 5, 10, 30, 60, 120, 300, 600),
            registry=self.registry,
        )
        self.component_moves = Counter(
            "ourvidz_component_moves",
            "Components staged, loaded, evicted and unstaged, by terminal event.",
            ("event",),
            registry=self.registry,
        )
        self.estimate_ratio = Histogram(
            "ourvidz_estimate_ratio",
            "Seconds of a phase to those expected, where it had the device to itself, by phase.",
            ("phase",),
            buckets=_RATIOS,
            registry=self.registry,
        )
        self.component_seconds = Gauge(
            "ourvidz_component_seconds",
            "What staging and loading a component takes, as learned.",
            ("component", "move", "quantile"),
            registry=self.registry,
        )
        self.eta_ratio = Histogram(
            "ourvidz_eta_ratio",
            "Seconds from a part's arrival at the scheduler to its end, to its first ETA.",
            buckets=_RATIOS,
            registry=self.registry,
        )
        self.etas = Counter(
            "ourvidz_etas", "Parts that ended and had an ETA.", registry=self.registry
        )
        self.etas_within_p90 = Counter(
            "ourvidz_etas_within_p90",
            "Of those, the parts that ended within the 90th percentile of their first ETA.",
            registry=self.registry,
        )
        self.device_reserved = Gauge(
            "ourvidz_device_reserved_bytes",
            "Bytes the ledger has given out on the device.",
            registry=self.registry,
        )
        self.waiting_jobs = Gauge(
            "ourvidz_waiting_jobs", "Jobs waiting for the device.", registry=self.registry
        )
        self.undelivered = Gauge(
            "ourvidz_undelivered_jobs",
            "Ended jobs whose callback is not acknowledged.",
            registry=self.registry,
        )
        self.parked = Gauge(
            "ourvidz_parked_callbacks", "Callbacks given up.", registry=self.registry
        )
