"""The service as its edges see it: submit, look, cancel, follow, drain."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from typing import Any
from uuid import UUID

import anyio
import orjson
import structlog
from anyio.abc import TaskGroup, TaskStatus

from ourvidz.config.settings import Settings
from ourvidz.jobs import InvalidJob, JobError, JobResult, JobSpec, JobState
from ourvidz.ports import Executor, JobRecord, JobSource, Journal, Known, QueueUnavailable
from ourvidz.service.active import ActiveJob, Roster, StopReason
from ourvidz.service.calibration import Forecasts
from ourvidz.service.delivery import Delivery, record_of
from ourvidz.service.device_watch import DeviceWatch
from ourvidz.service.disk import Disk
from ourvidz.service.engine import Engine, Place
from ourvidz.service.estimates import Estimates, Quantiles
from ourvidz.service.events import EventLog, Events
from ourvidz.service.faults import CANCELLED
from ourvidz.service.health import (
    DEVICE_FAILED,
    JOURNAL_UNAVAILABLE,
    MODEL_BROKEN,
    PARKED_CALLBACKS,
    Alarms,
    Heartbeat,
)
from ourvidz.service.intake import Intake
from ourvidz.service.leases import Leases
from ourvidz.service.metrics import Metrics
from ourvidz.service.recovery import recover
from ourvidz.service.signal import Signal
from ourvidz.service.views import job_data, letter_data, parked_data, rejected_data
from ourvidz.wire import Rules, parse_object
from scheduler.messages import CancelRequested

log = structlog.get_logger()

# After the drain's deadline a cancelled run is given this long to reach its next check.
_CANCEL_SECONDS = 5.0
# A caller does not wait longer for a queue; the answer to the backend does.
_QUEUE_SECONDS = 2.0
# What a disk may take to write down the last of what was learned, before the process ends.
_FLUSH_SECONDS = 2.0


class SubmissionInvalid(Exception):
    """The payload cannot be run."""

    def __init__(self, error: JobError) -> None:
        super().__init__(error.message)
        self.error = error


class IdConflict(Exception):
    """The id is taken by a job with another body."""


class TooLate(Exception):
    """The job has ended, or its files are already made: it cannot be cancelled any more."""


@dataclass(slots=True)
class Service:
    """Joins the parts; everything is handed in by the composition root.

    ``ending`` is set when the service's tasks begin to end, whatever for: after a drain, or because
    something has failed. Where a thread hangs ``run`` may never return after that.
    """

    settings: Settings
    rules: Rules
    source: JobSource
    journal: Journal
    executor: Executor
    engine: Engine
    forecasts: Forecasts
    estimates: Estimates
    roster: Roster
    intake: Intake
    delivery: Delivery
    leases: Leases
    watch: DeviceWatch
    disk: Disk
    heartbeat: Heartbeat
    events: Events
    metrics: Metrics
    alarms: Alarms
    room: Signal
    ready: bool = False
    draining: bool = False
    ending: anyio.Event = field(default_factory=anyio.Event)
    _stop: anyio.Event = field(default_factory=anyio.Event)
    _recovered: anyio.Event = field(default_factory=anyio.Event)
    _tasks: TaskGroup | None = None
    _undecided: dict[UUID, anyio.Event] = field(default_factory=dict)

    async def run(self, *, task_status: TaskStatus[None] = anyio.TASK_STATUS_IGNORED) -> None:
        """Serve until ``stop``, then drain. Started once the queues are being consumed.

        Raises ``DeviceFailed``, in a group, where the device is stuck or lost: what was claimed
        stays in the journal and in its queue as it is, for the next process.
        """
        async with anyio.create_task_group() as tasks:
            await self.estimates.recall()
            await recover(self.intake, self.journal, self.delivery, self.alarms, tasks)
            await self.disk.measure()
            self._tasks = tasks
            self._recovered.set()
            tasks.start_soon(self.engine.run)
            tasks.start_soon(self.forecasts.watch)
            tasks.start_soon(self.estimates.keep)
            tasks.start_soon(self.heartbeat.beat)
            tasks.start_soon(self.disk.watch)
            tasks.start_soon(self._watch_device)
            tasks.start_soon(self._announce_end)
            tasks.start_soon(self.leases.renew)
            tasks.start_soon(self.leases.reap)
            tasks.start_soon(self.intake.run, tasks)
            self.ready = True
            log.info("service_started", worker=self.settings.service.worker_id)
            task_status.started()
            await self._stop.wait()
            await self._drain()
            with anyio.move_on_after(_FLUSH_SECONDS):
                await self.estimates.flush()
            self._tasks = None
            tasks.cancel_scope.cancel()

    def stop(self) -> None:
        """Ask for the drain; returns at once."""
        self._stop.set()

    async def _watch_device(self) -> None:
        """Goes down with the device. Jobs and deliveries need no farewell: what they have reached
        stands in the journal already."""
        failure = await self.watch.failure()
        log.critical("device_failed", reason=str(failure), jobs=[str(j.id) for j in self.roster])
        self.alarms.ring(DEVICE_FAILED)
        # Health says from here on that nothing more is to be sent here.
        self.draining = True
        self.intake.stop()
        with anyio.move_on_after(_FLUSH_SECONDS):
            await self.estimates.flush()
        raise failure

    async def _announce_end(self) -> None:
        try:
            await anyio.sleep_forever()
        finally:
            self.ending.set()

    async def submit(self, body: Mapping[str, Any]) -> tuple[JobRecord, bool]:
        """Put a job into its queue. Returns its record and whether it is new.

        Raises ``SubmissionInvalid``, ``IdConflict``, ``QueueFull`` or ``QueueError``. The queue is
        told before the journal: a crash between the two loses nothing, and a repeat is recognised
        by its id.
        """
        spec = parse_object(body, self.rules)
        if isinstance(spec, InvalidJob):
            raise SubmissionInvalid(spec.error)
        queue = self._queue(spec)
        known = await self.journal.known(spec)
        if known is Known.CONFLICT:
            raise IdConflict(str(spec.id))
        if known is Known.NEW:
            await self.source.push(queue, orjson.dumps(dict(body)))
            if await self.journal.accept(spec, queue, None) is Known.CONFLICT:
                raise IdConflict(str(spec.id))
        record = await self.journal.get(spec.id)
        assert record is not None, "an accepted job is in the journal"
        return record, known is Known.NEW

    def _queue(self, spec: JobSpec) -> str:
        """The queue that serves this type; configuration checks that each type has one."""
        return next(n for n, q in self.settings.queues.items() if spec.type in q.types)

    async def job(self, job_id: str, base_url: str) -> Mapping[str, Any] | None:
        """The job resource, or ``None`` for an unknown id."""
        record = await record_of(self.journal, job_id)
        if record is not None:
            return self._data(record, base_url)
        invalid = await self.journal.rejected(job_id)
        return None if invalid is None else rejected_data(invalid, base_url)

    async def jobs(
        self, limit: int, before: UUID | None, status: str | None, base_url: str
    ) -> Sequence[Mapping[str, Any]]:
        """The newest first, those that follow the job ``before``: none if it is unknown."""
        records = await self.journal.recent(limit, before, status)
        return [self._data(record, base_url) for record in records]

    async def cancel(self, job_id: str) -> JobRecord | None:
        """Cancel a job; ``None`` for an unknown id. Raises ``TooLate``, ``QueueUnavailable``.
        Repeating is harmless.

        The job is looked for again after every wait, for it may have moved on meanwhile.
        """
        await self._recovered.wait()
        while True:
            entered = self.roster.entered.ticket
            record = await record_of(self.journal, job_id)
            if record is None:
                return None
            if record.state is JobState.CANCELLED:
                return await self._cancelled(record.spec.id)
            active = self.roster.get(record.spec.id)
            if active is not None and not active.decided:
                await self.stop_job(active, "api")
                return await record_of(self.journal, job_id)
            if active is not None:
                await active.left.wait()
            elif record.state is JobState.QUEUED:
                await self._cancel_queued(record)
            elif record.state is JobState.CLAIMED:
                await entered.wait()
            else:
                raise TooLate(f"the job is {record.state.value}")

    async def stop_job(self, job: ActiveJob, reason: StopReason) -> None:
        """Stop a job that this process holds, wherever it is; once it is decided how the job ends,
        nothing stops it."""
        if job.decided:
            return
        job.ask_stop(reason)
        log.info("job_stop_requested", job=str(job.id), reason=reason, step=job.stop_step)
        if job.scheduled:
            await self.engine.put(CancelRequested(job.part_id))

    async def lose_job(self, job: ActiveJob) -> None:
        """Stop a job whose lease is gone; nothing of it is delivered by the claim that was lost."""
        job.lose()
        if job.scheduled:
            await self.engine.put(CancelRequested(job.part_id))

    async def _cancel_queued(self, record: JobRecord) -> None:
        """Nothing happens if the job is not queued any more. Raises as ``_cancelled``."""
        result = JobResult("cancelled", error=CANCELLED, warnings=record.spec.warnings)
        cancelled = await self.journal.cancel_queued(record.spec.id, result)
        if not cancelled or self._tasks is None:
            return  # Nobody delivers while the service ends: the next start does.
        decided = self._undecided[record.spec.id] = anyio.Event()

        def decide() -> None:
            self._undecided.pop(record.spec.id, None)
            decided.set()

        self._tasks.start_soon(self.delivery.deliver, str(record.spec.id), None, decide)
        await self._cancelled(record.spec.id)

    async def _cancelled(self, job_id: UUID) -> JobRecord | None:
        """The record of a job that was cancelled, once that holds. Raises ``TooLate``, or
        ``QueueUnavailable`` where the queue does not say in time whether another worker has it."""
        decided = self._undecided.get(job_id)
        if decided is not None:
            with anyio.move_on_after(_QUEUE_SECONDS) as limit:
                await decided.wait()
            if limit.cancelled_caught:
                raise QueueUnavailable("the queue does not say whether another worker has the job")
        record = await self.journal.get(job_id)
        if record is not None and record.state is not JobState.CANCELLED:
            raise TooLate("another worker has the job, or had it")
        return record

    async def parked_callbacks(self, limit: int) -> Sequence[Mapping[str, Any]]:
        """The terminal callbacks that were given up, oldest first."""
        return [parked_data(each) for each in await self.journal.parked_answers(limit)]

    async def retry_callbacks(self, event_ids: Collection[str] | None, limit: int) -> int:
        """Send those that were given up once more: the ones named, or the oldest. Returns how many
        there were."""
        job_ids = await self.delivery.announcer.unpark(event_ids, limit)
        log.info("callbacks_retried", jobs=list(job_ids))
        if self._tasks is not None:  # else the next start delivers them
            for job_id in dict.fromkeys(job_ids):
                self._tasks.start_soon(self.delivery.deliver, job_id, None)
        return len(job_ids)

    async def dead_letters(self, limit: int) -> Sequence[Mapping[str, Any]]:
        """What lies beside the queues, the newest first. Raises ``QueueError``."""
        return [letter_data(letter) for letter in await self.source.dead_letters(limit)]

    async def log_of(self, job_id: str) -> EventLog | None:
        """The events of a job that is queued, present or lately ended."""
        record = await record_of(self.journal, job_id)
        if record is None:
            return None
        if record.state.terminal:
            return self.events.get(record.spec.id)
        return self.events.open(record.spec.id)

    @property
    def trouble(self) -> str | None:
        """Why nothing can be written down for now, if so."""
        return self.journal.trouble

    def health(self) -> Mapping[str, Any]:
        """Whether work goes on; reads memory only."""
        parked = [PARKED_CALLBACKS] if self.delivery.announcer.parked else []
        unwritten = [JOURNAL_UNAVAILABLE] if self.trouble is not None else []
        device = dict(self.executor.snapshot())
        broken = [f"{MODEL_BROKEN}:{name}" for name in device.get("broken_models", ())]
        state = "draining" if self.draining else "ready" if self.ready else "starting"
        return {
            "status": state,
            "worker_id": self.settings.service.worker_id,
            "loop_lag_seconds": self.heartbeat.lag_seconds(),
            "eta_calibration": self.forecasts.calibration.summary(),
            "active_jobs": len(self.roster),
            "undelivered_jobs": self.delivery.pending,
            "parked_callbacks": self.delivery.announcer.parked,
            "queues": dict(self.source.snapshot()),
            "device": device,
            "alarms": sorted([*self.alarms.ringing, *parked, *unwritten, *broken]),
        }

    def processes(self) -> Mapping[str, Any]:
        """What is resident, what runs, and every job that is held."""
        places = self.forecasts.places()
        jobs = [
            {
                "id": str(job.id),
                "type": job.spec.requested_type,
                "status": job.state.status,
                **job.progress(),
                **asdict(places.get(job.part_id, Place())),
            }
            for job in self.roster
        ]
        return {"jobs": jobs, "scheduler": dict(self.engine.snapshot())}

    def refresh_gauges(self) -> None:
        """Bring the gauges up to date, just before they are read."""
        snapshot = self.engine.snapshot()
        self.metrics.device_reserved.set(snapshot["ledger"]["device"]["reserved"])
        self.metrics.waiting_jobs.set(len(snapshot["waiting"]))
        self.metrics.undelivered.set(self.delivery.pending)
        self.metrics.parked.set(self.delivery.announcer.parked)
        self.metrics.queue_commands.set(self.source.snapshot()["commands_per_minute"])
        for component in snapshot["components"]:
            self._show("stage", component, self.estimates.stage_seconds(component))
            self._show("load", component, self.estimates.load_seconds(component))

    def _show(self, move: str, component: str, learned: Quantiles | None) -> None:
        for quantile, seconds in zip(("0.5", "0.9"), learned or (), strict=False):
            self.metrics.component_seconds.labels(component, move, quantile).set(seconds)

    def _data(self, record: JobRecord, base_url: str) -> Mapping[str, Any]:
        active = self.roster.get(record.spec.id)
        place = Place()
        if active is not None:
            place = self.forecasts.places().get(active.part_id, place)
        return job_data(record, active, place, base_url)

    async def _drain(self) -> None:
        """No new claims; what runs may finish until the deadline; the rest is handed back."""
        self.draining = True
        limit = self.settings.service.drain_seconds
        log.info("drain_started", jobs=len(self.roster), seconds=limit)
        self.intake.stop()
        self.roster.drain()
        with anyio.move_on_after(limit):
            for job in self.roster:
                if job.state is not JobState.RUNNING:
                    await self.stop_job(job, "drain")
            await self._idle(deliveries=True)
        with anyio.move_on_after(_CANCEL_SECONDS):
            for job in self.roster:
                await self.stop_job(job, "drain")
            await self._idle(deliveries=False)
        log.info("drain_finished", left=len(self.roster))

    async def _idle(self, deliveries: bool) -> None:
        """Until no claim is held and, if ``deliveries``, nothing is left to deliver."""
        changed = self.room.ticket
        while self.roster.busy or (deliveries and self.delivery.pending):
            await changed.wait()
            changed = self.room.ticket
