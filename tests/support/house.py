"""A whole service over the fake device, real SQLite and folders, and a local receiver."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable, Iterator, Mapping
from contextlib import (
    AbstractAsyncContextManager,
    AsyncExitStack,
    asynccontextmanager,
    contextmanager,
)
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from uuid import UUID, uuid5

import anyio
import orjson
from anyio.abc import TaskStatus
from support.queues import SharedServer, letters
from support.turns import turns

from ourvidz.adapters.device_fake import FakeDevice
from ourvidz.adapters.queue_embedded import EmbeddedQueues
from ourvidz.adapters.receiver import ReceivedCallback, Receiver
from ourvidz.app import open_service
from ourvidz.config import Settings, load
from ourvidz.jobs import JobState
from ourvidz.ports import AssetStore, Clock
from ourvidz.service.service import Service
from scheduler.messages import Start

REPOSITORY = Path(__file__).parents[2]
SECRET = "test-secret"
USER = "00000000-0000-4000-8000-000000000001"
# Nothing here takes so long; it turns a hang into a failure.
LIMIT_SECONDS = 20
_SPACE = UUID("00000000-0000-4000-8000-0000000000ff")
_QUEUES = {"sdxl_generate": "sdxl_queue", "wan_generate": "wan_queue"}


OpenHouse = Callable[..., AbstractAsyncContextManager["House"]]


def job_id(name: str) -> str:
    """The same name gives the same id."""
    return str(uuid5(_Ids.space, name))


class _Ids:
    space = _SPACE


@contextmanager
def ids_of(test: str) -> Iterator[None]:
    """Job ids of this test's own inside the block."""
    _Ids.space = uuid5(_SPACE, test)
    try:
        yield
    finally:
        _Ids.space = _SPACE


def payload(name: str, type_: str = "sdxl_generate", **fields: Any) -> dict[str, Any]:
    base: dict[str, Any] = {"id": job_id(name), "type": type_, "user_id": USER, "prompt": "a pear"}
    if type_ == "sdxl_generate":
        base |= {"steps": 4, "width": 64, "height": 64}
    if type_ == "wan_generate":
        base |= {"steps": 4, "width": 64, "height": 32, "frames": 5}
    return {**base, **fields}


@dataclass(slots=True)
class House:
    """One running service and what stands round it."""

    service: Service
    device: FakeDevice
    receiver: Receiver
    root: Path
    scope: anyio.CancelScope
    stopped: anyio.Event
    queues: SharedServer | None = None

    @property
    def source(self) -> EmbeddedQueues:
        assert isinstance(self.service.source, EmbeddedQueues)
        return self.service.source

    def kill(self) -> None:
        """Cut the service off where it stands, without a drain."""
        self.scope.cancel()

    async def drain(self) -> None:
        """Ask for a drain; returns when it is under way."""
        self.service.stop()
        with anyio.fail_after(LIMIT_SECONDS):
            while not self.service.draining:
                await anyio.lowlevel.checkpoint()

    async def drained(self) -> None:
        """Return once the service has ended; its database can still be asked."""
        with anyio.fail_after(LIMIT_SECONDS):
            await self.stopped.wait()

    async def push(self, queue: str, body: Any) -> None:
        raw = body if isinstance(body, bytes) else orjson.dumps(body)
        await self.service.source.push(queue, raw)

    async def run(self, name: str, type_: str = "sdxl_generate", **fields: Any) -> dict[str, Any]:
        """Push a job into its queue and return its terminal callback's body."""
        await self.push(_QUEUES.get(type_, "chat_queue"), payload(name, type_, **fields))
        return await self.ended(name)

    async def fine(self, name: str = "other", type_: str = "sdxl_generate") -> None:
        """Another job goes as it should, and nothing is left."""
        assert (await self.run(name, type_))["status"] == "completed"
        await self.quiet()

    async def ended(self, name: str) -> dict[str, Any]:
        """The terminal callback's body."""
        wanted = job_id(name)
        with anyio.fail_after(LIMIT_SECONDS):
            await self.receiver.until(lambda _: bool(self.terminal(wanted)))
        return dict(self.terminal(wanted)[-1].body)

    def terminal(self, wanted: str) -> list[ReceivedCallback]:
        """The terminal callbacks that came for an id, in order."""
        return [
            c
            for c in self.receiver.callbacks
            if c.body["job_id"] == wanted and c.status in ("completed", "failed")
        ]

    async def status(self, name: str) -> str | None:
        job = await self.job(name)
        return None if job is None else str(job["status"])

    async def job(self, name: str) -> Mapping[str, Any] | None:
        return await self.service.job(job_id(name), "")

    async def reached(self, name: str, *statuses: str) -> None:
        """Return once the job has one of these statuses on the wire."""
        log = self.service.events.open(UUID(job_id(name)))
        with anyio.fail_after(LIMIT_SECONDS):
            async for event in log.follow(0):
                if event.data.get("status") in statuses:
                    return

    async def rendered(self, name: str) -> None:
        """Return once every file of the job is in spool and journal."""
        with anyio.fail_after(LIMIT_SECONDS):
            while not any(
                str(record.spec.id) == job_id(name)
                for record in await self.service.journal.in_states(JobState.RENDERED)
            ):
                await turns()

    async def quiet(self) -> None:
        """Return once nothing is queued, held or owed; and nothing may be left of any job."""
        with anyio.fail_after(LIMIT_SECONDS):
            while True:
                changed = self.service.room.ticket
                left = await self.elements()
                if self.service.roster.busy or self.service.delivery.pending:
                    await changed.wait()
                elif left:
                    await turns()  # not held here, or not yet
                else:
                    break
        snapshot = self.service.engine.snapshot()
        assert set(snapshot["ledger"]["device"]["by"]) <= {"weights"}, snapshot
        assert not snapshot["running"]
        assert not snapshot["waiting"]
        assert not self.service.leases.held()
        assert all(isinstance(key, str) for key in self.service.watch._watched), "a run is watched"
        assert self.service.delivery.uploads._begun == {}
        assert self.device._runs == self.device._planned == self.device._controls == {}
        spool = self.root / "data" / "spool"
        assert not spool.exists() or not list(spool.iterdir())

    async def barrier(self) -> None:
        """Return once what every task was about to ask of the database has been answered."""
        for _ in range(3):
            await turns()
            await self.elements()

    async def elements(self) -> int:
        """How many elements the queues hold, claimed or not."""
        if self.queues is not None:
            return self.queues.elements(*self.service.settings.queues)
        count = "SELECT count(*) FROM queue_items"
        return int(await self._database(lambda c: c.execute(count).fetchone()[0]))

    async def attempts(self) -> list[int]:
        """The attempts of every element, claimed or not."""
        select = "SELECT attempts FROM queue_items ORDER BY position"
        return [row[0] for row in await self._database(lambda c: c.execute(select).fetchall())]

    async def state(self, name: str) -> JobState:
        record = await self.service.journal.get(UUID(job_id(name)))
        assert record is not None
        return record.state

    async def dead_letters(self) -> list[str]:
        """The reasons, oldest first."""
        if self.queues is not None:
            return [reason for _, _, reason in letters(self.queues.redis)]
        found = await self.source.dead_letters(1000)
        return [letter.reason for letter in reversed(found)]

    def starts(self, name: str) -> int:
        """How many phases of a job were started."""
        return starts(self.device, name)

    async def _database(self, operation: Any) -> Any:
        return await self.source._database.run(operation)


def starts(device: FakeDevice, name: str) -> int:
    """How many phases of a job this device was told to start."""
    jobs = [c.lease.job for c in device.log if isinstance(c, Start)]
    return sum(job.partition("/")[0] == job_id(name) for job in jobs)


def settings_for(
    root: Path,
    url: str,
    environ: Mapping[str, str] | None = None,
    service_key: str = "",
    **flags: Any,
) -> Settings:
    given = {"JOB_CALLBACK_SECRET": SECRET, **(environ or {})}
    if service_key:
        given["SUPABASE_SERVICE_KEY"] = service_key
    return load(
        REPOSITORY / "config.toml",
        environ=given,
        flags={
            "service.data_dir": str(root / "data"),
            "store.dir": str(root / "store"),
            "callback.url": url,
            "callback.retry_seconds_min": 0.001,
            "callback.retry_seconds_max": 0.01,
            "device.budget_bytes": 51_000,
            "device.host_budget_bytes": 64_000,
            **flags,
        },
    )


@asynccontextmanager
async def open_house(
    root: Path,
    device: FakeDevice | None = None,
    receiver: Receiver | None = None,
    store: AssetStore | None = None,
    clock: Clock | None = None,
    queues: SharedServer | None = None,
    **flags: Any,
) -> AsyncIterator[House]:
    """A service that runs until the block is left, then drains.

    A ``receiver`` that is given listens already, and outlives the service. ``queues`` is where the
    queues lie, if not in the service's own files.
    """
    device = device or FakeDevice()
    async with AsyncExitStack() as stack:
        receiver = receiver or await stack.enter_async_context(Receiver(SECRET))
        environ = {**flags.pop("environ", {}), **(queues.environ if queues else {})}
        settings = settings_for(root, flags.pop("url", receiver.url), environ, **flags)
        async with (
            open_service(settings, device, clock, store) as service,
            anyio.create_task_group() as tasks,
        ):
            scope, stopped = tasks.cancel_scope, anyio.Event()
            house = House(service, device, receiver, root, scope, stopped, queues)
            await tasks.start(_serve, house)
            yield house
            service.stop()


async def _serve(house: House, *, task_status: TaskStatus[None]) -> None:
    await house.service.run(task_status=task_status)
    house.stopped.set()
