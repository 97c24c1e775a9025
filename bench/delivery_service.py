"""Whole services over a device that takes no time: what a job costs, and what it costs to idle."""

from __future__ import annotations

import time
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import anyio
import orjson
from support.house import House, open_house, payload
from support.queues import SharedServer, shared_server
from support.redis_process import RedisProcess, redis_process
from support.upstash import UpstashFront

# As the configuration has it, where the tests' house differs.
DEFAULTS = {"callback.progress": False}


@dataclass(frozen=True, slots=True)
class Cost:
    """Of the whole way of a job; the receiver's part is in it, as it shares the process."""

    jobs: int
    seconds: float
    cpu_seconds: float

    @property
    def facts(self) -> Mapping[str, float]:
        return {
            "jobs": self.jobs,
            "jobs_per_second": round(self.jobs / self.seconds, 1),
            "us_per_job": round(1e6 * self.seconds / self.jobs),
            "cpu_us_per_job": round(1e6 * self.cpu_seconds / self.jobs),
        }


async def throughput(folder: Path, queues: SharedServer | None, jobs: int, **fields: Any) -> Cost:
    """``jobs`` lie in the queue; measured from the first claim to the last acknowledgement."""
    flags = {**DEFAULTS, "queues.chat_queue.claims_max": 16, **fields}
    async with open_house(folder, queues=queues, **flags) as house:
        names = [f"job {number}" for number in range(jobs)]
        bodies = [orjson.dumps(payload(name, "enhance_base", max_tokens=1)) for name in names]
        began, cpu = time.perf_counter(), time.process_time()
        await _push(house, queues, bodies)
        with anyio.fail_after(600):
            await house.receiver.until(lambda seen: len(seen) >= jobs)
            while house.service.delivery.pending or house.service.roster.busy:
                changed = house.service.room.ticket
                await changed.wait()
        return Cost(jobs, time.perf_counter() - began, time.process_time() - cpu)


async def _push(house: House, queues: SharedServer | None, bodies: list[bytes]) -> None:
    if queues is not None:
        queues.redis.client.rpush("chat_queue", *bodies)
        return
    for body in bodies:
        await house.service.source.push("chat_queue", body)


async def throughputs(redis: RedisProcess, folder: Path, jobs: int) -> dict[str, Cost]:
    found = {"embedded": await throughput(folder / "embedded", None, jobs)}
    redis.empty()
    found["redis"] = await throughput(folder / "redis", shared_server("redis", redis), jobs)
    redis.empty()
    async with UpstashFront(redis) as front:
        queues = shared_server("upstash", redis, front)
        found["upstash"] = await throughput(folder / "upstash", queues, jobs)
    return found


async def idle(folder: Path, seconds: float) -> dict[str, int]:
    """Commands of the last minute of an idle service, after so many seconds, all at once."""
    found: dict[str, int] = {}

    async def one(name: str, queues: SharedServer | None, **flags: Any) -> None:
        place = folder / name.replace(" ", "").replace(",", "")
        async with open_house(place, queues=queues, **DEFAULTS, **flags) as house:
            await anyio.sleep(seconds)
            found[name] = house.service.health()["queues"]["commands_per_minute"]

    with redis_process() as redis, redis_process() as behind, redis_process() as polled:
        async with (
            UpstashFront(behind) as announcing,
            UpstashFront(polled, streaming=False) as silent,
            anyio.create_task_group() as tasks,
        ):
            tasks.start_soon(one, "embedded", None)
            tasks.start_soon(one, "redis", shared_server("redis", redis))
            tasks.start_soon(one, "upstash, SSE", shared_server("upstash", behind, announcing))
            tasks.start_soon(one, "upstash, polled", shared_server("upstash", polled, silent))
    return found
