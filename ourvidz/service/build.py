"""Joins the service's parts over whatever meets its ports."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from dataclasses import dataclass

import structlog

from ourvidz.config.policy import scheduler_settings
from ourvidz.config.settings import Settings
from ourvidz.ports import (
    Admission,
    AssetStore,
    Clock,
    Executor,
    JobSource,
    Journal,
    Measurements,
    Notifier,
    PeakMeter,
    Recorder,
    References,
    Renderer,
)
from ourvidz.service.active import ActiveJob, Roster
from ourvidz.service.announcer import Announcer
from ourvidz.service.aside import Aside
from ourvidz.service.calibration import Calibration, Forecasts
from ourvidz.service.claims import Claims
from ourvidz.service.company import Company
from ourvidz.service.delivery import Delivery
from ourvidz.service.demand import Demands
from ourvidz.service.device_watch import DeviceWatch
from ourvidz.service.disk import Disk
from ourvidz.service.engine import Engine
from ourvidz.service.estimates import Estimates, Hardware
from ourvidz.service.events import Events
from ourvidz.service.flow import Flow
from ourvidz.service.health import RECORDING_STOPPED, Alarms, Heartbeat
from ourvidz.service.intake import Intake
from ourvidz.service.leases import Leases
from ourvidz.service.metrics import Metrics
from ourvidz.service.offers import consumed
from ourvidz.service.paces import Paces
from ourvidz.service.parts import Parts
from ourvidz.service.produce import Production
from ourvidz.service.progress import ProgressReporter
from ourvidz.service.runs import RunBooks
from ourvidz.service.service import Service
from ourvidz.service.signal import Signal
from ourvidz.service.spool import Spool
from ourvidz.service.uploads import Uploads
from ourvidz.wire import Rules
from scheduler.messages import StepReached
from scheduler.recording import VERSION, Header
from scheduler.replay import scheduler_of
from scheduler.types import Budget, Links

log = structlog.get_logger()


@dataclass(frozen=True, slots=True)
class Ports:
    """The adapters of one service. ``notifier`` is ``None`` where no callbacks are sent,
    ``recorder`` where nothing is recorded; ``versions`` names the software and the device that
    measurements depend on."""

    source: JobSource
    journal: Journal
    executor: Executor
    store: AssetStore
    references: References
    renderer: Renderer
    admission: Admission
    notifier: Notifier | None
    clock: Clock
    measurements: Measurements
    versions: str
    recorder: Recorder | None


class _Shared:
    """What every part of one service writes to."""

    def __init__(self, settings: Settings, ports: Ports) -> None:
        self.room = Signal()
        self.events = Events()
        self.metrics = Metrics()
        self.alarms = Alarms()
        self.claims = Claims(ports.source, self.alarms)
        self.roster = Roster(self.events, self.room)
        self.spool = Spool(settings.service.data_dir / "spool")
        self.calibration = Calibration(ports.clock, self.metrics)
        self.estimates = Estimates(ports.measurements, _hardware(settings, ports))
        self.disk = Disk(self.spool.root, settings.spool, self.room, self.alarms, self.metrics)
        device = settings.device
        self.watch = DeviceWatch(ports.clock, device.stall_seconds, device.stall_factor)


def build_service(settings: Settings, ports: Ports) -> Service:
    """A service that is ready to run; nothing has been started."""
    shared = _Shared(settings, ports)
    header = _header(settings, ports)
    if ports.recorder is not None:
        ports.recorder.begin(header, lambda: shared.alarms.ring(RECORDING_STOPPED))
    engine = Engine(
        scheduler_of(header),
        ports.executor,
        ports.clock,
        settings.service.inbox_events,
        _runs(ports, shared),
        shared.room,
        ports.recorder,
    )
    delivery = _delivery(settings, ports, shared)

    async def skipped(job: ActiveJob) -> None:
        await service.stop_job(job, "backend")

    async def lose(job: ActiveJob) -> None:
        await service.lose_job(job)

    reporter = ProgressReporter(ports.notifier, settings.callback, skipped)
    flow = _flow(settings, ports, shared, engine, delivery, reporter)
    service = Service(
        settings=settings,
        rules=flow.rules,
        source=ports.source,
        journal=ports.journal,
        executor=ports.executor,
        engine=engine,
        forecasts=Forecasts(engine, shared.roster, ports.clock, shared.calibration, shared.room),
        estimates=shared.estimates,
        roster=shared.roster,
        intake=_intake(settings, ports, shared, engine, flow),
        delivery=delivery,
        leases=_leases(settings, ports, shared, delivery, lose),
        watch=shared.watch,
        disk=shared.disk,
        heartbeat=Heartbeat(ports.clock, settings.service.heartbeat_seconds, shared.metrics),
        events=shared.events,
        metrics=shared.metrics,
        alarms=shared.alarms,
        room=shared.room,
    )
    return service


def _header(settings: Settings, ports: Ports) -> Header:
    """How the scheduler is made, which is also what a recording begins with."""
    device, links = settings.device, settings.links
    return Header(
        version=VERSION,
        components=tuple(ports.executor.components),
        staged=(),
        budget=Budget(device.budget_bytes - device.reserve_bytes, device.host_budget_bytes),
        links=Links(
            links.disk_to_host_bytes_per_second,
            links.host_to_device_bytes_per_second,
            links.fixed_seconds,
        ),
        settings=scheduler_settings(settings.scheduler),
        policy="default",
        wall=ports.clock.wall(),
        monotonic=ports.clock.monotonic(),
    )


def _hardware(settings: Settings, ports: Ports) -> Hardware:
    return Hardware(
        ports.versions,
        {name: model.dtype for name, model in settings.models.items()},
        {component.name: component.weight_bytes for component in ports.executor.components},
        settings.device.budget_bytes - settings.device.reserve_bytes,
    )


def _runs(ports: Ports, shared: _Shared) -> RunBooks:
    return RunBooks(
        claims=shared.claims,
        journal=ports.journal,
        roster=shared.roster,
        aside=Aside(ports.journal, shared.roster),
        estimates=shared.estimates,
        calibration=shared.calibration,
        company=Company(),
        paces=Paces(shared.roster.step),
        watch=shared.watch,
        metrics=shared.metrics,
        alarms=shared.alarms,
        clock=ports.clock,
        meter=ports.executor if isinstance(ports.executor, PeakMeter) else None,
    )


def _delivery(settings: Settings, ports: Ports, shared: _Shared) -> Delivery:
    return Delivery(
        journal=ports.journal,
        claims=shared.claims,
        uploads=Uploads(ports.store, settings.store.bucket, settings.callback, shared.alarms),
        announcer=Announcer(
            ports.journal, ports.notifier, settings.callback, ports.clock, shared.alarms
        ),
        events=shared.events,
        metrics=shared.metrics,
        callback=settings.callback,
        spool=shared.spool,
        room=shared.room,
        disk=shared.disk,
        alarms=shared.alarms,
    )


def _leases(
    settings: Settings,
    ports: Ports,
    shared: _Shared,
    delivery: Delivery,
    lose: Callable[[ActiveJob], Awaitable[None]],
) -> Leases:
    return Leases(
        source=ports.source,
        claims=shared.claims,
        roster=shared.roster,
        delivery=delivery,
        settings=settings.intake,
        alarms=shared.alarms,
        lose=lose,
    )


def _flow(
    settings: Settings,
    ports: Ports,
    shared: _Shared,
    engine: Engine,
    delivery: Delivery,
    reporter: ProgressReporter,
) -> Flow:
    return Flow(
        rules=Rules.from_settings(settings),
        claims=shared.claims,
        journal=ports.journal,
        roster=shared.roster,
        parts=_parts(settings, ports, shared, engine, delivery, reporter),
        delivery=delivery,
        spool=shared.spool,
        alarms=shared.alarms,
    )


def _parts(
    settings: Settings,
    ports: Ports,
    shared: _Shared,
    engine: Engine,
    delivery: Delivery,
    reporter: ProgressReporter,
) -> Parts:
    def on_step(event: StepReached) -> None:
        shared.watch.stepped(event.lease)
        engine.step_reached(event)

    return Parts(
        attempts_max=settings.intake.attempts_max,
        journal=ports.journal,
        executor=ports.executor,
        references=ports.references,
        admission=ports.admission,
        production=Production(
            ports.renderer,
            ports.journal,
            ports.clock,
            shared.disk,
            on_step,
            delivery.uploads.begin,
            shared.alarms,
        ),
        engine=engine,
        demands=Demands(ports.clock, shared.estimates, settings.scheduler.deadline_seconds),
        spool=shared.spool,
        disk=shared.disk,
        reporter=reporter,
        metrics=shared.metrics,
        alarms=shared.alarms,
    )


def _intake(
    settings: Settings, ports: Ports, shared: _Shared, engine: Engine, flow: Flow
) -> Intake:
    broken = ports.executor.snapshot().get("broken_models", {})
    queues = consumed(settings, broken)
    for name in settings.queues.keys() - queues.keys():
        log.warning("queue_left_to_others", queue=name, broken_models=sorted(broken))
    return Intake(
        source=ports.source,
        engine=engine,
        roster=shared.roster,
        flow=flow,
        delivery=flow.delivery,
        queues=queues,
        settings=settings.intake,
        undelivered_max=settings.callback.undelivered_max,
        room=shared.room,
        disk=shared.disk,
        alarms=shared.alarms,
    )
