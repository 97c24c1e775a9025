"""The figures that are counted and measured, for Prometheus."""

from __future__ import annotations

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram

# Of what was measured to what was expected.
_RATIOS = (0.25, 0.5, 0.75, 0.9, 1.0, 1.1, 1.25, 1.5, 2.0, 4.0)


class Metrics:
    """The service's own registry: several services in one process do not share counts."""

    def __init__(self) -> None:
        self.registry = CollectorRegistry()
        self._jobs()
        self._learning()
        self._device()

    def _jobs(self) -> None:
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
        self.undelivered = Gauge(
            "ourvidz_undelivered_jobs",
            "Ended jobs whose callback is not acknowledged.",
            registry=self.registry,
        )
        self.queue_commands = Gauge(
            "ourvidz_queue_commands_per_minute",
            "Commands sent to the queues' server in the last minute; without jobs the idle cost.",
            registry=self.registry,
        )
        self.parked = Gauge(
            "ourvidz_parked_callbacks", "Callbacks given up.", registry=self.registry
        )

        self.spool_bytes = Gauge(
            "ourvidz_spool_bytes", "Bytes of files in the spool.", registry=self.registry
        )
        self.disk_free = Gauge(
            "ourvidz_disk_free_bytes",
            "Bytes that are free on the disk of the data directory.",
            registry=self.registry,
        )

    def _device(self) -> None:
        self.loop_lag = Histogram(
            "ourvidz_loop_lag_seconds",
            "How late the event loop woke its heartbeat.",
            buckets=(0.001, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 5.0),
            registry=self.registry,
        )
        self.component_moves = Counter(
            "ourvidz_component_moves",
            "Components staged, loaded, evicted and unstaged, by terminal event.",
            ("event",),
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

    def _learning(self) -> None:
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
