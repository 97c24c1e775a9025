"""The fault proxy itself: it changes nothing unless it is told to, and then that."""

from __future__ import annotations

from collections.abc import AsyncIterator

import anyio
import httpx
import pytest
from redis import exceptions as errors
from redis.asyncio import Redis
from redis.asyncio.retry import Retry
from redis.backoff import NoBackoff
from support.fault_proxy import (
    Delay,
    Drip,
    FaultProxy,
    LoseReply,
    Reset,
    Silence,
    Status,
    Truncate,
    fault_proxy,
)
from support.proxy_wires import HttpWire, RedisWire
from support.raw_http import Reply, Request, raw_http
from support.redis_process import RedisProcess

from ourvidz.adapters.queue_scripts import DEPTHS

pytestmark = [pytest.mark.anyio, pytest.mark.slow]

LONG = 20.0
SHORT = 0.05
TEXT = b"what the server says"


@pytest.fixture
async def native(redis: RedisProcess) -> AsyncIterator[FaultProxy]:
    redis.empty()
    async with fault_proxy(redis.url, RedisWire()) as proxy:
        yield proxy


@pytest.fixture
async def client(native: FaultProxy) -> AsyncIterator[Redis]:
    async with Redis(port=port(native), retry=Retry(NoBackoff(), 0), protocol=2) as client:
        yield client


@pytest.fixture
async def came() -> list[Request]:
    return []


@pytest.fixture
async def web(came: list[Request]) -> AsyncIterator[FaultProxy]:
    async def answer(request: Request) -> Reply:
        came.append(request)
        return Reply(body=TEXT)

    async with (
        raw_http(answer) as url,
        fault_proxy(f"{url}/there", HttpWire(lambda request: request.method)) as proxy,
    ):
        yield proxy


def port(proxy: FaultProxy) -> int:
    return int(proxy.url.rpartition(":")[2].partition("/")[0])


async def test_whatever_goes_through_is_as_it_was(native: FaultProxy, client: Redis) -> None:
    big = b"\r\n$1\x00" * 100_000
    assert await client.rpush("list", big, b"") == 2
    assert await client.lrange("list", 0, -1) == [big, b""]
    assert await client.get("nothing") is None
    with pytest.raises(errors.ResponseError, match="WRONGTYPE"):
        await client.get("list")
    assert await client.eval(DEPTHS, 1, "list") == [2]
    assert native.kinds >= {"RPUSH", "LRANGE", "GET", "DEPTHS", "CLIENT SETINFO"}
    assert native.counts["GET"] == 2


async def test_a_client_that_leaves_takes_its_blocking_command_along(
    native: FaultProxy, client: Redis, redis: RedisProcess
) -> None:
    with anyio.move_on_after(LONG):
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(client.blpop, ["nothing"], 0)
            await native.until(lambda: "BLPOP" in native.counts)
            tasks.cancel_scope.cancel()
    with anyio.fail_after(LONG):
        while redis.client.info("clients")["blocked_clients"]:
            await anyio.lowlevel.checkpoint()


@pytest.mark.parametrize(
    ("fault", "executed"),
    [(Reset(), False), (LoseReply(), True), (Truncate(), True)],
    ids=lambda value: type(value).__name__,
)
async def test_a_command_whose_reply_does_not_come(
    native: FaultProxy, client: Redis, redis: RedisProcess, fault: LoseReply, executed: bool
) -> None:
    rule = native.plan(fault, "INCRBY", after=1)
    assert await client.incr("count") == 1
    with pytest.raises(errors.ConnectionError):
        await client.incr("count")
    assert rule.hit == ["INCRBY"]
    assert redis.client.get("count") == (b"2" if executed else b"1")
    assert await client.incr("count") == (3 if executed else 2), "and then it goes on"


@pytest.mark.parametrize("executed", [True, False])
async def test_silence_lasts_until_the_client_leaves(
    native: FaultProxy, client: Redis, redis: RedisProcess, executed: bool
) -> None:
    arrived = b"1" if executed else None
    rule, answers = native.plan(Silence(executed), "INCRBY"), list[int]()

    async def ask() -> None:
        answers.append(await client.incr("count"))

    async with anyio.create_task_group() as tasks:
        tasks.start_soon(ask)
        with anyio.fail_after(LONG):
            while rule.hit != ["INCRBY"] or redis.client.get("count") != arrived:
                await anyio.lowlevel.checkpoint()
        for _ in range(10):
            assert await client.ping(), "by another connection"
        tasks.cancel_scope.cancel()
    assert answers == []
    assert await client.incr("count") == 1 + executed


async def test_http_faults(web: FaultProxy, came: list[Request]) -> None:
    async with httpx.AsyncClient(timeout=LONG) as client:

        async def ask() -> httpx.Response:
            return await client.post(web.url, content=b"body")

        assert (await ask()).content == TEXT
        assert (came[0].path, came[0].body) == ("/there", b"body")
        for fault in (Reset(), LoseReply(), Truncate()):
            web.plan(fault)
            with pytest.raises(httpx.TransportError):
                await ask()
        assert len(came) == 3, "the one that was reset never came"
        for executed in (False, True):
            web.plan(Status(503, headers={"Retry-After": "7"}, executed=executed))
            answer = await ask()
            assert (answer.status_code, answer.headers["retry-after"]) == (503, "7")
        assert len(came) == 4
        web.plan(Drip())
        assert (await ask()).content == TEXT
        web.plan(Drip(endless=True))
        with pytest.raises(httpx.ReadTimeout):
            await client.post(web.url, content=b"body", timeout=httpx.Timeout(LONG, read=SHORT))


async def test_a_delay_lasts_until_it_is_released(web: FaultProxy, came: list[Request]) -> None:
    delay = Delay()
    web.plan(delay, "GET")
    async with httpx.AsyncClient(timeout=LONG) as client, anyio.create_task_group() as tasks:
        tasks.start_soon(client.get, web.url)
        await web.until(lambda: web.counts["GET"] == 1)
        await client.post(web.url)
        assert [request.method for request in came] == ["POST"]
        delay.released.set()
    assert [request.method for request in came] == ["POST", "GET"]


async def test_healed_everything_goes_through(web: FaultProxy) -> None:
    web.plan(Status(500), times=None)
    web.plan(Silence(), after=3)
    async with httpx.AsyncClient(timeout=LONG) as client:
        for _ in range(3):
            assert (await client.get(web.url)).status_code == 500
        web.heal()
    async with httpx.AsyncClient(timeout=LONG) as client:
        assert (await client.get(web.url)).content == TEXT
