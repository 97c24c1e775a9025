"""Each implementation of ``ports.JobSource`` with its server, as the contract's tests see it."""

from __future__ import annotations

import random
from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from contextlib import AbstractAsyncContextManager, AsyncExitStack, asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol
from uuid import uuid4

import orjson
from support.redis_process import DEAD, HELD, RedisProcess
from support.tls_front import tls_front
from support.upstash import TOKEN, UpstashFront

from ourvidz.adapters.clock import SystemClock
from ourvidz.adapters.database import Database
from ourvidz.adapters.queue_embedded import QUEUE_SCHEMA, EmbeddedQueues
from ourvidz.adapters.queue_redis import redis_server
from ourvidz.adapters.queue_shared import Bounds, ScriptServer, SharedQueues
from ourvidz.adapters.queue_upstash import UpstashServer, upstash_server
from ourvidz.adapters.queue_watch import Pauses
from ourvidz.adapters.upstash_events import UpstashEvents
from ourvidz.ports import Claimed, JobSource, PopSide

# Taken from at the left, at the right, and one more beside.
LEFT, RIGHT, OTHER = "left_queue", "right_queue", "other_queue"
SIDES: dict[str, PopSide] = {LEFT: "left", RIGHT: "right", OTHER: "left"}
OWNER = "this-worker"
LEASE = 60.0

OpenServer = Callable[[], AbstractAsyncContextManager[ScriptServer]]


async def claim(source: JobSource, queue: str = LEFT) -> Claimed:
    claimed = await source.claim(queue, uuid4().hex, LEASE)
    assert claimed is not None
    return claimed


class QueueWorld(Protocol):
    """The server goes on while sources come and go."""

    source: JobSource

    async def reopen(self) -> JobSource:
        """The worker's process has died and starts again, without having said good-bye."""

    def advance(self, seconds: float) -> None:
        """Time goes by for leases."""

    async def dead_letters(self) -> Sequence[tuple[str, bytes, str]]:
        """Queue, element and reason of each, oldest first."""


class MovedClock:
    def __init__(self) -> None:
        self.now = 1_700_000_000.0

    def monotonic(self) -> float:
        return self.now

    def wall(self) -> float:
        return self.now


class EmbeddedWorld:
    """``QueueWorld`` over SQLite."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._clock = MovedClock()
        self._database = Database(path)

    async def open(self) -> None:
        self._database = Database(self._path)
        await self._database.open(QUEUE_SCHEMA)
        self.source = EmbeddedQueues(self._database, self._clock, SIDES)

    async def aclose(self) -> None:
        await self._database.aclose()

    async def reopen(self) -> JobSource:
        await self.aclose()
        await self.open()
        return self.source

    def advance(self, seconds: float) -> None:
        self._clock.now += seconds

    async def dead_letters(self) -> Sequence[tuple[str, bytes, str]]:
        found = await self.source.dead_letters(1000)
        return [(letter.queue, letter.beginning, letter.reason) for letter in reversed(found)]


class SharedWorld:
    """``QueueWorld`` over a Redis server; ``open_server`` makes the worker's way to it."""

    def __init__(self, redis: RedisProcess, open_server: OpenServer, bounds: Bounds) -> None:
        self.redis = redis
        self._open_server = open_server
        self._bounds = bounds
        self._stack = AsyncExitStack()

    async def open(self) -> None:
        self.source = await self.worker(OWNER)

    async def worker(self, owner: str) -> SharedQueues:
        """One more worker on the same server."""
        server = await self._stack.enter_async_context(self._open_server())
        return SharedQueues(server, owner, SIDES, self._bounds)

    async def aclose(self) -> None:
        await self._stack.aclose()

    async def reopen(self) -> JobSource:
        await self.aclose()
        await self.open()
        return self.source

    def advance(self, seconds: float) -> None:
        self.redis.advance(seconds)

    async def dead_letters(self) -> Sequence[tuple[str, bytes, str]]:
        return letters(self.redis)


@dataclass(frozen=True, slots=True)
class SharedServer:
    """Where a whole service's queues lie: what its environment says, and the server itself."""

    environ: Mapping[str, str]
    redis: RedisProcess
    front: UpstashFront | None = None

    def elements(self, *queues: str) -> int:
        """How many elements the queues hold, claimed or not."""
        return self.redis.client.hlen(HELD) + sum(map(self.redis.client.llen, queues))


def shared_server(
    kind: str, redis: RedisProcess, front: UpstashFront | None = None
) -> SharedServer:
    environ = {"OURVIDZ__QUEUE_SERVER__KIND": kind}
    if front is None:
        environ["REDIS_URL"] = redis.url
    else:
        environ["UPSTASH_REDIS_REST_URL"] = front.url
        environ["UPSTASH_REDIS_REST_TOKEN"] = TOKEN
    return SharedServer(environ, redis, front)


def letters(redis: RedisProcess) -> list[tuple[str, bytes, str]]:
    """Queue, element and reason of each dead letter, oldest first."""
    found = []
    for letter in redis.client.lrange(DEAD, 0, -1):
        head, _, element = letter.partition(b"\n")
        facts = orjson.loads(head)
        found.append((facts["queue"], element, facts["reason"]))
    return found


@asynccontextmanager
async def shared(
    redis: RedisProcess, open_server: OpenServer, bounds: Bounds | None = None
) -> AsyncIterator[SharedWorld]:
    redis.empty()
    world = SharedWorld(redis, open_server, bounds or Bounds())
    await world.open()
    try:
        yield world
    finally:
        await world.aclose()


def native(redis: RedisProcess) -> OpenServer:
    return lambda: redis_server(redis.url, 10, SystemClock())


@asynccontextmanager
async def encrypted(redis: RedisProcess, folder: Path) -> AsyncIterator[SharedWorld]:
    """The same server behind TLS."""
    async with tls_front(redis.port, folder) as front:
        url = f"rediss://localhost:{front.port}/0?ssl_ca_certs={front.ca}"
        async with shared(redis, lambda: redis_server(url, 10, SystemClock())) as world:
            yield world


@asynccontextmanager
async def upstash(
    redis: RedisProcess, *, streaming: bool, events: bool | None = None
) -> AsyncIterator[UpstashWorld]:
    """Behind the REST front; ``streaming`` if the front can, ``events`` if the adapter asks."""
    redis.empty()
    async with UpstashFront(redis, streaming=streaming) as front:

        def open_server() -> AbstractAsyncContextManager[ScriptServer]:
            pauses = Pauses(0.001, 0.01, 600.0)
            asks = streaming if events is None else events
            clock = SystemClock()
            return upstash_server(front.url, TOKEN, list(SIDES), 10, clock, pauses, events=asks)

        world = UpstashWorld(redis, open_server, Bounds())
        world.front = front
        await world.open()
        if streaming and events is not False:
            await front.until(lambda: front.streams == len(SIDES))
        try:
            yield world
        finally:
            await world.aclose()


class UpstashWorld(SharedWorld):
    """With the front itself, to be broken."""

    front: UpstashFront

    @property
    def server(self) -> UpstashServer:
        server = self.source._server
        assert isinstance(server, UpstashServer)
        return server

    def events(self) -> UpstashEvents:
        """Announcements that are not under way yet."""
        return UpstashEvents(self.server.rest, list(SIDES), self.server.watch, random.Random(7))


@asynccontextmanager
async def embedded(folder: Path) -> AsyncIterator[QueueWorld]:
    world = EmbeddedWorld(folder / "queues.db")
    await world.open()
    try:
        yield world
    finally:
        await world.aclose()
