"""The composition root: the only file that names concrete adapters."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass

import anyio
import httpx

from ourvidz.adapters.admission import AdmitAll
from ourvidz.adapters.clock import SystemClock
from ourvidz.adapters.database import Database
from ourvidz.adapters.journal import JOURNAL_SCHEMA, SqliteJournal
from ourvidz.adapters.notify_http import HttpNotifier, callback_client
from ourvidz.adapters.queue_embedded import QUEUE_SCHEMA, EmbeddedQueues
from ourvidz.adapters.references import GuardedReferences
from ourvidz.adapters.spool import SpoolRenderer
from ourvidz.adapters.store_folder import FolderStore
from ourvidz.config import Settings
from ourvidz.config.urls import local_url
from ourvidz.ports import AssetStore, Clock, Executor, Notifier
from ourvidz.service.active import ActiveJob, Roster
from ourvidz.service.delivery import Delivery
from ourvidz.service.demand import Demands
from ourvidz.service.engine import Engine
from ourvidz.service.events import Events
from ourvidz.service.flow import Flow
from ourvidz.service.health import Alarms, Heartbeat, Metrics
from ourvidz.service.intake import Intake
from ourvidz.service.leases import Leases
from ourvidz.service.produce import Production
from ourvidz.service.progress import ProgressReporter
from ourvidz.service.runs import Runs
from ourvidz.service.service import Service
from ourvidz.service.signal import Signal
from ourvidz.wire import Rules
from scheduler import Scheduler, SchedulerSettings
from scheduler.types import Budget, Links


@asynccontextmanager
async def open_service(
    settings: Settings,
    executor: Executor | None = None,
    clock: Clock | None = None,
    store: AssetStore | None = None,
) -> AsyncIterator[Service]:
    """Everything opened and joined, nothing running yet: ``Service.run`` serves.

    ``executor``, ``clock`` and ``store`` stand in for the configured device, the machine's clocks
    and the configured store. Raises ``DataDirError``.
    """
    clock = clock or SystemClock()
    store = store or FolderStore(settings.store.dir, settings.store.concurrent_max)
    async with AsyncExitStack() as stack:
        database = Database(settings.service.data_dir / "ourvidz.db")
        # First of all: a second service must be refused before it takes seconds and memory.
        await database.open(QUEUE_SCHEMA, JOURNAL_SCHEMA)
        stack.push_async_callback(database.aclose)
        executor = executor or _device(settings)
        await executor.open()
        notifier = None
        if settings.callback.url:
            client = await stack.enter_async_context(callback_client())
            notifier = _notifier(settings, client)
        yield _join(settings, database, executor, store, notifier, clock)


def _device(settings: Settings) -> Executor:
    from ourvidz.adapters.device import DeviceExecutor  # noqa: PLC0415 - seconds of imports

    return DeviceExecutor(settings.device, settings.models)


def _notifier(settings: Settings, client: httpx.AsyncClient) -> Notifier:
    secrets = settings.secrets
    assert secrets.job_callback_secret is not None, "configuration asks for it beside the URL"
    key = secrets.supabase_service_key
    return HttpNotifier(
        settings.callback.url,
        secrets.job_callback_secret.get_secret_value(),
        key.get_secret_value() if key is not None else None,
        settings.callback.timeout_seconds,
        client,
        attempts=1,
    )


def _scheduler(settings: Settings, executor: Executor) -> Scheduler:
    device, links, policy = settings.device, settings.links, settings.scheduler
    return Scheduler(
        executor.components,
        Budget(device.budget_bytes - device.reserve_bytes, device.host_budget_bytes),
        Links(
            links.disk_to_host_bytes_per_second,
            links.host_to_device_bytes_per_second,
            links.fixed_seconds,
        ),
        SchedulerSettings(
            ageing_seconds=policy.ageing_seconds,
            wait_seconds_max=policy.wait_seconds_max,
            waiting_jobs_max=policy.waiting_jobs_max,
            load_attempts_max=policy.load_attempts_max,
            load_retry_seconds=policy.load_retry_seconds,
            class_weights=policy.class_weights,
        ),
    )


def _join(
    settings: Settings,
    database: Database,
    executor: Executor,
    store: AssetStore,
    notifier: Notifier | None,
    clock: Clock,
) -> Service:
    room, events, metrics, alarms = Signal(), Events(), Metrics(), Alarms()
    roster = Roster(events, room)
    pop_sides = {name: queue.pop_side for name, queue in settings.queues.items()}
    source = EmbeddedQueues(database, clock, pop_sides)
    journal = SqliteJournal(database, clock)
    demands = Demands(clock)
    runs = Runs(source, journal, roster, demands)
    engine = Engine(
        _scheduler(settings, executor), executor, clock, settings.service.inbox_events, runs, room
    )
    delivery = Delivery(
        journal=journal,
        source=source,
        store=store,
        notifier=notifier,
        events=events,
        clock=clock,
        metrics=metrics,
        store_settings=settings.store,
        callback=settings.callback,
        spool=settings.service.data_dir / "spool",
        room=room,
        alarms=alarms,
    )

    async def skipped(job: ActiveJob) -> None:
        await service.stop_job(job, "backend")

    flow = Flow(
        settings=settings,
        rules=Rules.from_settings(settings),
        source=source,
        journal=journal,
        executor=executor,
        references=GuardedReferences(store, settings.references),
        admission=AdmitAll(),
        production=Production(SpoolRenderer(settings.models), journal, clock, engine.step_reached),
        engine=engine,
        roster=roster,
        demands=demands,
        delivery=delivery,
        reporter=ProgressReporter(notifier, settings.callback, skipped),
        alarms=alarms,
        metrics=metrics,
    )
    service = Service(
        settings=settings,
        rules=flow.rules,
        source=source,
        journal=journal,
        executor=executor,
        engine=engine,
        roster=roster,
        intake=Intake(
            source=source,
            engine=engine,
            roster=roster,
            flow=flow,
            delivery=delivery,
            queues=settings.queues,
            settings=settings.intake,
            undelivered_max=settings.callback.undelivered_max,
            room=room,
            alarms=alarms,
        ),
        delivery=delivery,
        leases=Leases(source, roster, delivery, settings.intake, alarms),
        heartbeat=Heartbeat(clock, settings.service.heartbeat_seconds, metrics),
        events=events,
        metrics=metrics,
        alarms=alarms,
        room=room,
    )
    return service


@dataclass(frozen=True, slots=True)
class Running:
    """A service that runs, and the base URL at which this machine reaches its API (empty where it
    is switched off)."""

    service: Service
    url: str


@asynccontextmanager
async def running(settings: Settings) -> AsyncIterator[Running]:
    """Service and API together; leaving the block drains both. The API listens until the drain
    is over, so that callers can still look at their jobs."""
    # Seconds of imports that a process without an API saves.
    from ourvidz.http.app import create_api  # noqa: PLC0415 - see above
    from ourvidz.http.server import serve  # noqa: PLC0415 - see above

    async with open_service(settings) as service, anyio.create_task_group() as tasks:
        url = ""
        if settings.http.enabled:
            api = create_api(service, settings)
            port = await tasks.start(serve, api, settings)
            url = local_url(settings.http.host, port)
        async with anyio.create_task_group() as service_task:
            await service_task.start(service.run)
            try:
                yield Running(service, url)
            finally:
                service.stop()
        tasks.cancel_scope.cancel()
