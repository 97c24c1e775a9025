"""How long an element lies in an idle queue before a worker has it, by kind of queue.

A producer pushes after pauses of random length: an even beat could stay in step with a poller's.
"""

from __future__ import annotations

import random
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from uuid import uuid4

import anyio
import httpx
from redis.asyncio import Redis
from support.redis_process import RedisProcess
from support.upstash import TOKEN, UpstashFront

from ourvidz.adapters.clock import SystemClock
from ourvidz.adapters.database import Database
from ourvidz.adapters.queue_embedded import QUEUE_SCHEMA, EmbeddedQueues
from ourvidz.adapters.queue_redis import redis_server
from ourvidz.adapters.queue_shared import SharedQueues
from ourvidz.adapters.queue_upstash import upstash_server
from ourvidz.adapters.queue_watch import Pauses
from ourvidz.config.settings import Intake, QueueServer
from ourvidz.ports import JobSource, QueueUnavailable

SERVER, INTAKE = QueueServer(), Intake()
OLD_SECONDS = (2.0, 5.0)
_RETRY_SECONDS = 0.5
# The front closes connections that are idle for five seconds, as long as one of the loops pauses.
_FRESH = httpx.Limits(keepalive_expiry=1.0)


@dataclass(frozen=True, slots=True)
class Effort:
    """How much is measured. ``settle_seconds``: after so long without a job a poller is idle; they
    start within half of it, as each begins with many looks."""

    samples: int = 200
    pause_seconds: float = 0.2
    pollers: int = 40
    settle_seconds: float = 90.0
    old_samples: int = 5


class Arrivals:
    """When each element had been claimed, by ``time.perf_counter``."""

    def __init__(self) -> None:
        self._at: dict[str, float] = {}
        self._changed = anyio.Event()

    def note(self, element: str) -> None:
        self._at[element] = time.perf_counter()
        self._changed.set()
        self._changed = anyio.Event()

    async def of(self, element: str) -> float:
        while element not in self._at:
            await self._changed.wait()
        return self._at[element]


async def consume(source: JobSource, queue: str, arrivals: Arrivals) -> None:
    """As the service's intake does."""
    while True:
        try:
            claimed = await source.claim(queue, uuid4().hex, INTAKE.lease_seconds)
            if claimed is None:
                await source.wait(queue, INTAKE.poll_seconds)
                continue
            arrivals.note(claimed.raw.decode())
            await source.acknowledge(claimed.claim_id)
        except QueueUnavailable:
            await anyio.sleep(_RETRY_SECONDS)


@asynccontextmanager
async def embedded(folder: Path) -> AsyncIterator[EmbeddedQueues]:
    database = Database(folder / "pickup.db")
    await database.open(QUEUE_SCHEMA)
    try:
        yield EmbeddedQueues(database, SystemClock(), {"queue": "left"})
    finally:
        await database.aclose()


@asynccontextmanager
async def native(redis: RedisProcess) -> AsyncIterator[SharedQueues]:
    async with redis_server(redis.url, SERVER.timeout_seconds, SystemClock()) as server:
        yield SharedQueues(server, uuid4().hex, {"queue": "left"})


@asynccontextmanager
async def upstash(
    front: UpstashFront, queue: str = "queue", *, events: bool
) -> AsyncIterator[SharedQueues]:
    pauses = Pauses(SERVER.look_seconds_min, SERVER.look_seconds_max, INTAKE.poll_seconds)
    clock, timeout = SystemClock(), SERVER.timeout_seconds
    async with upstash_server(
        front.url, TOKEN, [queue], timeout, clock, pauses, events=events
    ) as server:
        yield SharedQueues(server, uuid4().hex, {queue: "left"})


async def woken(
    source: JobSource, push: Callable[[str], Awaitable[object]], effort: Effort, rng: random.Random
) -> list[float]:
    """Seconds from before each push until the claim, of one worker that is told of elements."""
    arrivals, taken = Arrivals(), []
    async with anyio.create_task_group() as tasks:
        tasks.start_soon(consume, source, "queue", arrivals)
        await anyio.sleep(2 * effort.pause_seconds)
        for number in range(effort.samples):
            await anyio.sleep(effort.pause_seconds * (0.5 + rng.random()))
            began = time.perf_counter()
            await push(str(number))
            taken.append(await arrivals.of(str(number)) - began)
        tasks.cancel_scope.cancel()
    return taken


async def by_kind(redis: RedisProcess, folder: Path, effort: Effort) -> dict[str, list[float]]:
    """The kinds of queues that wake their workers, one after the other."""
    rng, found = random.Random(7), {}
    async with embedded(folder) as source:
        found["embedded"] = await woken(
            source, lambda text: source.push("queue", text.encode()), effort, rng
        )
    async with Redis(port=redis.port) as producer:

        def push(text: str) -> Awaitable[object]:
            return producer.rpush("queue", text)

        async with native(redis) as source:
            found["redis"] = await woken(source, push, effort, rng)
        async with UpstashFront(redis) as front, upstash(front, events=True) as source:
            await front.until(lambda: front.streams == 1)
            found["upstash, SSE"] = await woken(source, push, effort, rng)
    return found


async def polled(redis: RedisProcess, effort: Effort) -> list[float]:
    """Many workers at once, each on a queue of its own on which nothing has come for long, and that
    is then pushed to once."""
    rng, taken = random.Random(8), list[float]()

    async def one(number: int, seconds: float) -> None:
        queue, arrivals = f"polled{number}", Arrivals()
        await anyio.sleep(seconds / 2 * rng.random())
        async with (
            upstash(front, queue, events=False) as source,
            anyio.create_task_group() as worker,
        ):
            worker.start_soon(consume, source, queue, arrivals)
            await anyio.sleep(seconds * (1 + rng.random() / 6))
            began = time.perf_counter()
            await producer.rpush(queue, "element")
            taken.append(await arrivals.of("element") - began)
            worker.cancel_scope.cancel()

    async with (
        UpstashFront(redis, streaming=False) as front,
        Redis(port=redis.port) as producer,
        anyio.create_task_group() as tasks,
    ):
        for number in range(effort.pollers):
            tasks.start_soon(one, number, effort.settle_seconds)
    return taken


@dataclass(slots=True)
class Old:
    """What polling in an even beat gives: seconds of each pickup, and the commands a minute of one
    loop that finds nothing."""

    taken: list[float]
    commands_per_minute: float


async def old_loop(redis: RedisProcess, seconds: float, effort: Effort) -> Old:
    """The loop that was: a pop over REST and, where that finds nothing, a pause. Really polling,
    many of them at once."""
    rng, taken, pauses, rested = random.Random(9), list[float](), 0, 0.0

    async def one(client: httpx.AsyncClient, number: int) -> None:
        queue, arrivals = f"old{seconds:g}-{number}", Arrivals()

        async def poll() -> None:
            nonlocal pauses, rested
            await anyio.sleep(seconds * rng.random())
            while True:
                began = time.perf_counter()
                reply = await client.post(front.url, json=["RPOP", queue])
                element = reply.json()["result"]
                if element is None:
                    await anyio.sleep(seconds)
                    pauses, rested = pauses + 1, rested + time.perf_counter() - began
                else:
                    arrivals.note(element)

        async with anyio.create_task_group() as worker:
            worker.start_soon(poll)
            for sample in range(effort.old_samples):
                await anyio.sleep(seconds * (1 + rng.random()))
                began = time.perf_counter()
                await producer.rpush(queue, str(sample))
                taken.append(await arrivals.of(str(sample)) - began)
            worker.cancel_scope.cancel()

    async with (
        UpstashFront(redis, streaming=False) as front,
        Redis(port=redis.port) as producer,
        httpx.AsyncClient(
            headers={"Authorization": f"Bearer {TOKEN}"}, timeout=60, limits=_FRESH
        ) as client,
        anyio.create_task_group() as tasks,
    ):
        for number in range(effort.pollers):
            tasks.start_soon(one, client, number)
    return Old(taken, 60.0 * pauses / rested)
