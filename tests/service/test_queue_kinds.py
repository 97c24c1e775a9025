"""A whole service over each kind of queues, with jobs as the official clients push them."""

from __future__ import annotations

import itertools
from collections.abc import AsyncIterator, Callable
from pathlib import Path
from typing import Any

import anyio
import httpx
import orjson
import pytest
from support.house import House, OpenHouse, job_id, payload
from support.node import npm_client
from support.queues import SharedServer, shared_server
from support.redis_process import RedisProcess
from support.stage import SteppedDevice
from support.turns import turns
from support.upstash import TOKEN, Fault, UpstashFront
from upstash_redis.asyncio import Redis

from ourvidz.adapters.queue_scripts import LEASES
from ourvidz.jobs import JobState

pytestmark = [pytest.mark.anyio, pytest.mark.slow, pytest.mark.usefixtures("quick_retries")]

LONG = 20.0


@pytest.fixture
async def front(redis: RedisProcess) -> AsyncIterator[UpstashFront]:
    redis.empty()
    async with UpstashFront(redis) as front:
        yield front


@pytest.fixture(params=["embedded", "redis", "upstash", "upstash polled"])
async def queues(
    request: pytest.FixtureRequest, redis: RedisProcess, front: UpstashFront
) -> SharedServer | None:
    kind, _, polled = request.param.partition(" ")
    front.streaming = not polled
    if kind == "embedded":
        return None
    return shared_server(kind, redis, front if kind == "upstash" else None)


def forms(name: str) -> dict[str, bytes]:
    """Every form of an element that producers have pushed."""
    text = {form: orjson.dumps(payload(f"{name} {form}")).decode() for form in "abcd"}
    elements = {"a": text["a"], "b": [text["b"]], "c": text["c"], "d": {"data": text["d"]}}
    encoded = {form: orjson.dumps(element) for form, element in elements.items()}
    return {**encoded, "a": text["a"].encode()}


async def all_end(house: House, *names: str) -> None:
    for name in names:
        assert (await house.ended(name))["status"] == "completed"
    await house.quiet()
    for name in names:
        assert len(house.terminal(job_id(name))) == 1
    assert await house.dead_letters() == []


async def test_each_kind_runs_what_comes(
    open_house: OpenHouse, queues: SharedServer | None
) -> None:
    async with open_house(queues=queues) as house:
        for element in forms("pushed").values():
            if queues is None:
                await house.push("sdxl_queue", element)
            else:
                queues.redis.client.rpush("sdxl_queue", element)
        await house.push("wan_queue", payload("video", "wan_generate"))
        await all_end(house, "video", *(f"pushed {form}" for form in "abcd"))
        assert house.service.health()["queues"]["kind"] in ("embedded", "redis", "upstash")


async def test_jobs_as_the_official_clients_push_them(
    open_house: OpenHouse, redis: RedisProcess, front: UpstashFront
) -> None:
    """The npm client repeats a push whose reply is lost, and so does the Python one."""
    async with (
        open_house(queues=shared_server("upstash", redis, front)) as house,
        Redis(front.url, TOKEN, rest_retry_interval=0.001) as python,
        httpx.AsyncClient(headers={"Authorization": f"Bearer {TOKEN}"}) as client,
    ):
        front.faults.append(Fault(execute=True, concerns=lambda text: "python" in text))
        await python.rpush("sdxl_queue", payload("python", metadata={"by": "python"}))
        front.faults.append(Fault(execute=True, concerns=lambda text: "from npm" in text))
        text = orjson.dumps(payload("npm text")).decode()
        await npm_client(
            front.url,
            TOKEN,
            ["rpush", "sdxl_queue", payload("npm", metadata={"by": "from npm"})],
            ["rpush", "sdxl_queue", text],
            ["rpush", "wan_queue", payload("npm video", "wan_generate")],
        )
        path = orjson.dumps(payload("path"))
        await client.post(f"{front.url}/rpush/sdxl_queue", content=path)
        await all_end(house, "python", "npm", "npm text", "npm video", "path")


async def test_a_reply_lost_at_each_request_in_turn_costs_nothing(
    open_house: OpenHouse, redis: RedisProcess, front: UpstashFront
) -> None:
    async with open_house(queues=shared_server("upstash", redis, front)) as house:
        with anyio.fail_after(LONG):
            await front.until(lambda: front.streams == 3)
        for number in range(12):
            front.faults.append(Fault(execute=True, concerns=_nth(number)))
            name = f"lost {number}"
            redis.client.rpush("sdxl_queue", orjson.dumps(payload(name)))
            await all_end(house, name)
            assert house.starts(name) == 3
            front.faults.clear()


def _nth(number: int) -> Callable[[str], bool]:
    """The request that so many others go before."""
    counted = itertools.count()
    return lambda _: next(counted) == number


async def test_a_worker_that_was_killed_takes_up_what_it_held(
    open_house: OpenHouse, queues: SharedServer | None
) -> None:
    device = SteppedDevice()
    hold = device.hold("a", "denoise")
    async with open_house(device, queues=queues) as house:
        await house.push("sdxl_queue", payload("a"))
        await hold.reached()
        house.kill()
    async with open_house(queues=queues) as house:
        await all_end(house, "a")


async def test_a_server_that_refuses_rings_and_is_asked_again(
    open_house: OpenHouse, redis: RedisProcess, front: UpstashFront
) -> None:
    front.token = "not yet"
    flags: dict[str, Any] = {"intake.poll_seconds": 0.01}
    async with open_house(queues=shared_server("upstash", redis, front), **flags) as house:
        assert "queue_refused" in house.service.health()["alarms"]
        redis.client.rpush("sdxl_queue", orjson.dumps(payload("a")))
        front.token = TOKEN
        await all_end(house, "a")
        assert house.service.health()["alarms"] == []


async def test_what_commands_cost_is_told(
    open_house: OpenHouse, redis: RedisProcess, front: UpstashFront
) -> None:
    async with open_house(queues=shared_server("upstash", redis, front)) as house:
        await house.run("a")
        await house.quiet()
        told = house.service.health()["queues"]["commands_per_minute"]
        assert told >= 5
        house.service.refresh_gauges()
        registry = house.service.metrics.registry
        assert registry.get_sample_value("ourvidz_queue_commands_per_minute") >= told


async def test_what_another_worker_has_taken_is_let_go(
    open_house: OpenHouse, redis: RedisProcess, tmp_path: Path
) -> None:
    redis.empty()
    device = SteppedDevice()
    hold = device.hold("a", "decode", 1)
    queues = shared_server("redis", redis, None)
    flags = {"callback.progress": False, "intake.renew_seconds": 30}
    async with open_house(device, queues=queues, root=tmp_path / "slow", **flags) as slow:
        await slow.push("sdxl_queue", payload("a", batch_size=2))
        await hold.reached()
        (claim_id,) = slow.service.leases.held()
        slow.service.intake.stop()
        redis.client.zadd(LEASES, {claim_id: 0})
        async with open_house(queues=queues, root=tmp_path / "other", **flags) as other:
            await other.service.source.reap()
            assert (await other.ended("a"))["status"] == "completed"
            await other.quiet()
        lost = await slow.service.source.renew([claim_id], 60)
        assert lost == {claim_id}
        await slow.service.leases._let_go(claim_id)
        hold.release()
        with anyio.fail_after(LONG):
            while slow.service.roster.busy or slow.service.delivery.pending:
                await turns()
        assert len(slow.terminal(job_id("a"))) == 1
        assert await slow.state("a") is JobState.QUEUED
        assert await slow.dead_letters() == []
