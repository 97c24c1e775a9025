"""The books of runs: attempts are counted durably before a run starts, durations after it."""

from __future__ import annotations

from dataclasses import dataclass

import structlog

from ourvidz.jobs import JobState
from ourvidz.ports import JobSource, Journal
from ourvidz.service.active import Roster
from ourvidz.service.demand import Demands
from ourvidz.service.health import COMPONENT_FAILED, Alarms, Metrics
from scheduler.messages import (
    Event,
    LoadFailed,
    LoadSucceeded,
    PhaseFinished,
    Settle,
    StageFailed,
)
from scheduler.types import Lease

log = structlog.get_logger()


@dataclass(frozen=True, slots=True)
class Runs:
    """``engine.RunWatcher`` over the journal and the roster."""

    source: JobSource
    journal: Journal
    roster: Roster
    demands: Demands
    metrics: Metrics
    alarms: Alarms

    async def before_run(self, lease: Lease) -> None:
        """A job that kills the process must have been counted before it did."""
        job = self.roster.of_part(lease.job)
        if job is not None and job.state is JobState.WAITING:
            await self.source.count_attempt(job.claimed.claim_id)
            await self.journal.move(job.id, JobState.RUNNING)
            job.change(JobState.RUNNING)

    def after_run(self, lease: Lease, event: Event, seconds: float | None) -> None:
        job = self.roster.of_part(lease.job)
        if job is not None and isinstance(event, PhaseFinished):
            job.phase, job.step = lease.phase + 1, 0
            if seconds is not None:
                phase = job.phases[job.part][lease.phase]
                self.demands.observe(job.spec.works[job.part], phase, seconds)

    def after_move(self, event: Event) -> None:
        if isinstance(event, StageFailed | LoadFailed):
            log.error("component_failed", component=event.component, reason=event.detail)
            self.alarms.ring(f"{COMPONENT_FAILED}:{event.component}")
        elif isinstance(event, LoadSucceeded):
            self.alarms.silence(f"{COMPONENT_FAILED}:{event.component}")
        self.metrics.component_moves.labels(type(event).__name__).inc()

    def on_settle(self, settle: Settle) -> None:
        job = self.roster.of_part(settle.job)
        if job is not None:
            job.settle(settle)
