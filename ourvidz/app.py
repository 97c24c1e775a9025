"""The composition root: the only file that builds a service of concrete adapters."""

from __future__ import annotations

from collections.abc import AsyncIterator, Mapping
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass
from importlib import metadata

import anyio
import httpx

from ourvidz import __version__
from ourvidz.adapters.admission import AdmitAll
from ourvidz.adapters.clock import SystemClock
from ourvidz.adapters.database import Database
from ourvidz.adapters.http_answers import plain_client
from ourvidz.adapters.journal import JOURNAL_SCHEMA, SqliteJournal
from ourvidz.adapters.measurements import MEASUREMENTS_SCHEMA, SqliteMeasurements
from ourvidz.adapters.notify_http import HttpNotifier
from ourvidz.adapters.queue_embedded import QUEUE_SCHEMA, EmbeddedQueues
from ourvidz.adapters.queue_redis import redis_server
from ourvidz.adapters.queue_shared import SharedQueues
from ourvidz.adapters.queue_upstash import upstash_server
from ourvidz.adapters.queue_watch import Pauses
from ourvidz.adapters.recorder import FileRecorder
from ourvidz.adapters.references import GuardedReferences
from ourvidz.adapters.references_repeated import RepeatedReferences
from ourvidz.adapters.spool import SpoolRenderer
from ourvidz.adapters.store_folder import FolderStore
from ourvidz.adapters.store_presigned import PresignedStore
from ourvidz.adapters.worker import WORKER_SCHEMA, worker_identity
from ourvidz.config import Settings
from ourvidz.config.checks import queue_url
from ourvidz.config.urls import local_url
from ourvidz.ports import AssetStore, Clock, Executor, JobSource, Notifier, PopSide, References
from ourvidz.service.build import Ports, build_service
from ourvidz.service.service import Service

# Those that compute; their versions are read without importing them, which takes seconds.
_LIBRARIES = ("torch", "diffusers", "transformers")


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
    async with AsyncExitStack() as stack:
        database = Database(settings.service.data_dir / "ourvidz.db")
        # First of all: a second service must be refused before it takes seconds and memory.
        await database.open(QUEUE_SCHEMA, JOURNAL_SCHEMA, MEASUREMENTS_SCHEMA, WORKER_SCHEMA)
        stack.push_async_callback(database.aclose)
        executor = executor or _device(settings)
        await executor.open()
        if store is None:
            store = await stack.enter_async_context(_store(settings, clock))
        notifier = None
        if settings.callback.url:
            client = await stack.enter_async_context(plain_client())
            notifier = _notifier(settings, client, clock)
        recorder = None
        if settings.recorder.path is not None:
            recorder = FileRecorder(settings.recorder.path, settings.recorder)
            stack.push_async_callback(recorder.aclose)
        source = await stack.enter_async_context(_queues(settings, database, clock))
        ports = Ports(
            source=source,
            journal=SqliteJournal(database, clock),
            executor=executor,
            store=store,
            references=_references(settings, store),
            renderer=SpoolRenderer(),
            admission=AdmitAll(),
            notifier=notifier,
            clock=clock,
            measurements=SqliteMeasurements(database),
            versions=_versions(executor),
            recorder=recorder,
        )
        yield build_service(settings, ports)


@asynccontextmanager
async def _queues(settings: Settings, database: Database, clock: Clock) -> AsyncIterator[JobSource]:
    sides: Mapping[str, PopSide] = {name: q.pop_side for name, q in settings.queues.items()}
    server, url = settings.queue_server, queue_url(settings)
    if server.kind == "embedded":
        yield EmbeddedQueues(database, clock, sides)
        return
    owner = await worker_identity(database)
    if server.kind == "redis":
        async with redis_server(url, server.timeout_seconds, clock) as redis:
            yield SharedQueues(redis, owner, sides)
        return
    token = settings.secrets.upstash_redis_rest_token
    assert token is not None, "configuration asks for it"
    pauses = Pauses(server.look_seconds_min, server.look_seconds_max, settings.intake.poll_seconds)
    async with upstash_server(
        url,
        token.get_secret_value(),
        tuple(sides),
        server.timeout_seconds,
        clock,
        pauses,
        events=server.events,
    ) as upstash:
        yield SharedQueues(upstash, owner, sides)


def _versions(executor: Executor) -> str:
    """What seconds and bytes depend on beside the work: another version starts to learn anew."""
    libraries = [f"{name} {metadata.version(name)}" for name in _LIBRARIES]
    device = str(executor.snapshot().get("name", ""))
    return ", ".join([f"ourvidz {__version__}", *libraries, device])


def _device(settings: Settings) -> Executor:
    from ourvidz.adapters.device import DeviceExecutor  # noqa: PLC0415 - seconds of imports

    return DeviceExecutor(settings.device, settings.models)


@asynccontextmanager
async def _store(settings: Settings, clock: Clock) -> AsyncIterator[AssetStore]:
    config, secrets = settings.store, settings.secrets
    if config.kind == "s3":
        from ourvidz.adapters.store_s3 import open_s3_store  # noqa: PLC0415 - half a second

        async with open_s3_store(config, secrets, clock) as store:
            yield store
    elif config.kind == "presigned":
        assert secrets.job_callback_secret is not None, "configuration asks for it with this kind"
        secret, anon = secrets.job_callback_secret, secrets.supabase_anon_key
        async with plain_client() as client:
            yield PresignedStore(
                config,
                secret.get_secret_value(),
                anon.get_secret_value() if anon is not None else None,
                client,
                clock,
            )
    else:
        yield FolderStore(config.dir, config.concurrent_max)


def _references(settings: Settings, store: AssetStore) -> References:
    guarded = GuardedReferences(store, settings.references)
    return RepeatedReferences(guarded, settings.references.attempts_max)


def _notifier(settings: Settings, client: httpx.AsyncClient, clock: Clock) -> Notifier:
    secrets = settings.secrets
    assert secrets.job_callback_secret is not None, "configuration asks for it beside the URL"
    key = secrets.supabase_service_key
    return HttpNotifier(
        settings.callback.url,
        secrets.job_callback_secret.get_secret_value(),
        key.get_secret_value() if key is not None else None,
        settings.callback.timeout_seconds,
        client,
        wall=clock.wall,
    )


@dataclass(frozen=True, slots=True)
class Running:
    """A service that runs, and the base URL at which this machine reaches its API (empty where it
    is switched off). ``ending`` is ``Service.ending``."""

    service: Service
    url: str
    ending: anyio.Event


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
                yield Running(service, url, service.ending)
            finally:
                service.stop()
        tasks.cancel_scope.cancel()
