"""Announcements over server-sent events: probed, followed, renewed, and done without."""

from __future__ import annotations

import anyio
import httpx
import pytest
from support.queues import LEFT, SIDES, UpstashWorld, upstash
from support.raw_http import Reply, Request, raw_http
from support.redis_process import RedisProcess
from support.upstash import Fault

from ourvidz.adapters import upstash_events
from ourvidz.adapters.clock import SystemClock
from ourvidz.adapters.queue_shared import SharedQueues
from ourvidz.adapters.upstash_rest import UpstashRest
from ourvidz.ports import QueueUnavailable

pytestmark = [pytest.mark.anyio, pytest.mark.slow, pytest.mark.usefixtures("quick_retries")]

LONG = 20.0
WAIT = 600.0


def looks(world: UpstashWorld) -> int:
    return sum("depths" in request for request in world.front.commands)


async def until_announced(source: SharedQueues, wake: str = "events") -> None:
    while source.snapshot()["wake"] != wake:
        await anyio.lowlevel.checkpoint()


async def settled(source: SharedQueues) -> None:
    """Each stream's beginning lets its queue be looked at once."""
    await until_announced(source)
    for queue in SIDES:
        assert await source.claim(queue, "none", 60) is None


async def test_what_comes_is_announced_without_a_look(redis: RedisProcess) -> None:
    async with upstash(redis, streaming=True) as world:
        with anyio.fail_after(LONG):
            await settled(world.source)
            before = len(world.front.commands)
            async with anyio.create_task_group() as tasks:
                tasks.start_soon(world.source.wait, LEFT, WAIT)
                await anyio.lowlevel.checkpoint()
                redis.client.rpush(LEFT, "a")
            assert world.front.commands[before:] == []
            assert await world.source.claim(LEFT, "mine", 60) is not None


async def test_flags_that_are_set_stay_set(redis: RedisProcess) -> None:
    redis.empty()
    async with upstash(redis, streaming=True, events=False) as world:
        redis.client.config_set("notify-keyspace-events", "Ex")
        events = world.events()
        assert await events._probe() is True
        assert set(redis.client.config_get()["notify-keyspace-events"]) == set("ExKl")


async def test_a_stream_that_breaks_is_taken_up_again_with_a_claim(redis: RedisProcess) -> None:
    async with upstash(redis, streaming=True) as world, anyio.create_task_group() as tasks:
        with anyio.fail_after(LONG):
            await settled(world.source)
            woken = anyio.Event()

            async def wait() -> None:
                assert await world.source.wait(LEFT, WAIT)
                woken.set()

            tasks.start_soon(wait)
            world.front.streaming = False
            world.front.drop_streams()
            await until_announced(world.source, "polling")
            world.front.streaming = True
            await woken.wait()
            await until_announced(world.source)


async def test_elements_are_found_while_no_stream_is_to_be_had(redis: RedisProcess) -> None:
    async with upstash(redis, streaming=True) as world:
        with anyio.fail_after(LONG):
            await settled(world.source)
            world.front.streaming = False
            world.front.drop_streams()
            await until_announced(world.source, "polling")
            redis.client.rpush(LEFT, "a")
            assert await world.source.wait(LEFT, WAIT)
            assert await world.source.claim(LEFT, "mine", 60) is not None


async def test_a_stream_that_is_deaf_is_renewed(redis: RedisProcess) -> None:
    async with upstash(redis, streaming=True) as world:
        with anyio.fail_after(LONG):
            await settled(world.source)
            subscribed = f"subscribe/__keyspace@0__:{LEFT} "
            assert world.front.commands.count(subscribed) == 1
            world.server.watch.missed(LEFT)
            await world.front.until(lambda: world.front.commands.count(subscribed) == 2)
            await until_announced(world.source)


@pytest.mark.parametrize("refuse", ["CONFIG", "subscribe", "nothing comes"])
async def test_a_server_that_announces_nothing_is_polled(
    redis: RedisProcess, monkeypatch: pytest.MonkeyPatch, refuse: str
) -> None:
    if refuse == "nothing comes":
        monkeypatch.setattr(upstash_events, "_PROBE_SECONDS", 0.05)
    body = b'{"error":"ERR unknown command"}'
    async with upstash(redis, streaming=refuse != "subscribe", events=False) as world:
        if refuse == "subscribe":
            assert await world.events()._probed() is False
        else:
            for _ in range(2 if refuse == "nothing comes" else 1):
                world.front.faults.append(Fault(status=400, body=body))
            if refuse == "CONFIG":
                redis.client.config_set("notify-keyspace-events", "Kl")
                assert await world.events()._probed() is True, "it may announce all the same"
            else:
                world.front.faults.clear()
                monkeypatch.setattr(upstash_events, "_FLAGS", "maxmemory-policy")
                assert await world.events()._probed() is False


async def test_a_server_that_is_down_is_probed_again(redis: RedisProcess) -> None:
    async with upstash(redis, streaming=True, events=False) as world:
        for _ in range(3):
            world.front.faults.append(Fault(status=503))
        assert await world.events()._probed() is True


@pytest.mark.parametrize("cut", [0, 5], ids=["whole", "cut short"])
async def test_a_stream_that_is_refused_for_now_may_be_asked_for_again(cut: int) -> None:
    async def refused(_: Request) -> Reply:
        return Reply(503, body=b"try again later", cut=cut)

    async with raw_http(refused) as url, httpx.AsyncClient() as client:
        rest = UpstashRest(url, "token", LONG, client, SystemClock())
        with pytest.raises(QueueUnavailable, match=r"Upstash (answered 503|does not answer)"):
            async with rest.subscribed("channel"):
                raise AssertionError
