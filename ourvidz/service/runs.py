"""The books of runs: attempts are counted durably before a run starts, durations after it."""

from __future__ import annotations

from dataclasses import dataclass

import structlog

from ourvidz.errors import DeviceFailed
from ourvidz.jobs import JobState
from ourvidz.ports import Clock, Journal, PeakMeter
from ourvidz.service.active import ActiveJob, Roster
from ourvidz.service.aside import Aside
from ourvidz.service.calibration import Calibration
from ourvidz.service.claims import Claims
from ourvidz.service.company import Company, Stretch
from ourvidz.service.device_watch import DeviceWatch
from ourvidz.service.engine import NotBegun
from ourvidz.service.estimates import Estimates
from ourvidz.service.health import COMPONENT_FAILED, LEASE_LOST, Alarms
from ourvidz.service.metrics import Metrics
from ourvidz.service.paces import Pace, Paces
from ourvidz.service.shapes import open_ended
from scheduler.messages import (
    Event,
    Load,
    LoadFailed,
    LoadSucceeded,
    Move,
    Moved,
    Paused,
    PhaseFinished,
    Settle,
    Stage,
    StageFailed,
    StageSucceeded,
)
from scheduler.types import Lease

log = structlog.get_logger()


@dataclass(frozen=True, slots=True)
class RunBooks:
    """``engine.RunWatcher`` over the journal and the roster; ``meter`` where the executor counts
    the device's bytes."""

    claims: Claims
    journal: Journal
    roster: Roster
    aside: Aside
    estimates: Estimates
    calibration: Calibration
    company: Company
    paces: Paces
    watch: DeviceWatch
    metrics: Metrics
    alarms: Alarms
    clock: Clock
    meter: PeakMeter | None

    async def before_run(self, lease: Lease) -> None:
        """A job that kills the process must have been counted before it did."""
        job = self.roster.of_part(lease.job)
        if job is not None and job.state is JobState.WAITING:
            if not await self.claims.count_attempt(job.claimed.claim_id):
                self._lease_lost(job)
            await self.journal.move(job.id, JobState.RUNNING)
            job.change(JobState.RUNNING)
        if job is not None:
            await self.aside.entering(job.id)
        phase = None if job is None else job.phases[job.part][lease.phase]
        self.company.run_began(lease)
        units = 1 if phase is None or phase.sharing is None else phase.sharing.units
        self._learn_shared(self.paces.run_began(lease, units, self.clock.monotonic()))
        self.watch.run_began(lease, phase)

    def _lease_lost(self, job: ActiveJob) -> None:
        """The queue does not know the claim any more. Raises ``NotBegun``."""
        log.error("lease_lost", job=str(job.id))
        self.alarms.ring(LEASE_LOST)
        job.lose()
        raise NotBegun("the lease is gone")

    def after_run(self, lease: Lease, event: Event, seconds: float) -> None:
        self.watch.run_ended(lease)
        self._learn_shared(self.paces.run_ended(lease, self.clock.monotonic()))
        job = self.roster.of_part(lease.job)
        reached = 0 if job is None else _reached(job, lease, event)
        stretch = self.company.run_ended(lease, event, seconds, reached)
        if job is None:
            return
        self.aside.left(job, lease, event)
        job.run_seconds += seconds
        job.undisturbed = job.undisturbed and stretch.undisturbed
        self._learn(job, lease, stretch, seconds)
        if isinstance(event, PhaseFinished):
            self._compare(job, lease, stretch, reached)
            job.phase, job.step = lease.phase + 1, 0

    def before_move(self, command: Move) -> None:
        self.company.move_began(command.component)
        self.paces.move_began()
        self.watch.move_began(command.component, self._move_seconds(command))

    def after_move(self, event: Event, seconds: float) -> None:
        assert isinstance(event, Moved), f"{event!r} ends no move"
        self.watch.move_ended(event.component)
        self.paces.move_ended()
        alone = self.company.move_ended(event.component)
        if isinstance(event, StageFailed | LoadFailed):
            log.error("component_failed", component=event.component, reason=event.detail)
            self.alarms.ring(f"{COMPONENT_FAILED}:{event.component}")
        elif isinstance(event, LoadSucceeded):
            self.alarms.silence(f"{COMPONENT_FAILED}:{event.component}")
        if alone and isinstance(event, StageSucceeded):
            self.estimates.staged(event.component, seconds)
        elif alone and isinstance(event, LoadSucceeded):
            self.estimates.loaded(event.component, seconds)
        self.metrics.component_moves.labels(type(event).__name__).inc()

    def on_settle(self, settle: Settle) -> None:
        self.company.forget(settle.job)
        self.calibration.settled(settle)
        job = self.roster.of_part(settle.job)
        if job is not None:
            job.settle(settle)

    def device_failed(self, failure: DeviceFailed) -> None:
        self.watch.lost(failure)

    def _move_seconds(self, command: Move) -> float:
        """As learned, at the slow end; 0 where nothing is."""
        learned = None
        if isinstance(command, Stage):
            learned = self.estimates.stage_seconds(command.component)
        elif isinstance(command, Load):
            learned = self.estimates.load_seconds(command.component)
        return 0.0 if learned is None else learned[1]

    def _learn(self, job: ActiveJob, lease: Lease, stretch: Stretch, seconds: float) -> None:
        """From a run that had the device to itself and did all that its phase is planned for."""
        if not stretch.undisturbed or job.resumed:
            return
        work = job.spec.works[job.part]
        if stretch.steps:
            phase = job.phases[job.part][lease.phase]
            self.estimates.ran(work, phase, stretch.steps, seconds)
        peak_bytes = None if self.meter is None else self.meter.peak_bytes(lease)
        if peak_bytes is not None:
            self.estimates.peaked(work, job.planned[job.part][lease.phase], peak_bytes)

    def _learn_shared(self, pace: Pace | None) -> None:
        """From the steps of a run that several shared."""
        if pace is None:
            return
        for lease in pace.leases:
            job = self.roster.of_part(lease.job)
            if job is not None:
                phase = job.phases[job.part][lease.phase]
                self.estimates.shared(job.spec.works[job.part], phase, pace.units, pace.seconds)

    def _compare(self, job: ActiveJob, lease: Lease, stretch: Stretch, reached: int) -> None:
        """What a phase took with what was expected."""
        phase = job.phases[job.part][lease.phase]
        self.estimates.ended(job.spec.works[job.part], phase, reached)
        if stretch.whole is not None and phase.seconds:
            ratio = stretch.whole / phase.seconds
            self.metrics.estimate_ratio.labels(phase.name).observe(ratio)


def _reached(job: ActiveJob, lease: Lease, event: Event) -> int:
    """The steps of the leased phase that are done, after a run that left them done."""
    match event:
        case Paused(step=step):
            return step
        case PhaseFinished():
            whole = max(1, job.phases[job.part][lease.phase].steps)
            return job.step if open_ended(job.spec.works[job.part]) else whole
    return 0
