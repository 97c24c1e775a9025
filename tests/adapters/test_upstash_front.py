"""The tests' own REST front, proved by both official clients with their defaults."""

from __future__ import annotations

from collections.abc import AsyncIterator

import anyio
import httpx
import orjson
import pytest
from support.node import npm_client
from support.redis_process import RedisProcess
from support.upstash import TOKEN, UpstashFront
from upstash_redis.asyncio import Redis
from upstash_redis.errors import UpstashError

pytestmark = [pytest.mark.anyio, pytest.mark.slow]

QUEUE = "sdxl_queue"
JOB = {"id": "0", "prompt": "ünï \u2028", "config": {"seed": 1}}


@pytest.fixture
async def front(redis: RedisProcess) -> AsyncIterator[UpstashFront]:
    redis.empty()
    async with UpstashFront(redis) as front:
        yield front


@pytest.fixture
async def client(front: UpstashFront) -> AsyncIterator[httpx.AsyncClient]:
    headers = {"Authorization": f"Bearer {TOKEN}"}
    async with httpx.AsyncClient(base_url=front.url, headers=headers, trust_env=False) as client:
        yield client


async def test_the_npm_client(front: UpstashFront, redis: RedisProcess) -> None:
    script = "return {KEYS[1], ARGV[1], 3}"
    results = await npm_client(
        front.url,
        TOKEN,
        ["rpush", QUEUE, JOB],
        ["rpush", QUEUE, orjson.dumps(JOB).decode(), "123", "00123"],
        ["lrange", QUEUE, 0, -1],
        ["lpop", "nothing"],
        ["set", "k", "v"],
        ["eval", script, ["k"], ["a"]],
        ["transaction", [["incr", "n"], ["incr", "n"], ["get", "n"]]],
        ["echo", "news", "hello"],
        ["exec", ["BLPOP", QUEUE, "1"]],
        ["hget", QUEUE, "f"],
    )
    given = [each.get("result") for each in results]
    assert given[:8] == [
        1,
        4,
        [JOB, JOB, 123, "00123"],
        None,
        "OK",
        ["k", "a", 3],
        [1, 2, 2],
        {"channel": "news", "message": "hello"},
    ]
    assert "Command is not available: BLPOP" in results[8]["error"]
    assert "WRONGTYPE" in results[9]["error"]
    assert front.commands[0].startswith("pipeline [["), "it pipelines by default"
    assert redis.client.lrange(QUEUE, 0, 0) == [orjson.dumps(JOB)]


async def test_the_npm_client_with_a_wrong_token(front: UpstashFront) -> None:
    (refused,) = await npm_client(front.url, "wrong", ["get", "k"])
    assert "WRONGPASS" in refused["error"]


async def test_the_python_client(front: UpstashFront, redis: RedisProcess) -> None:
    async with Redis(front.url, TOKEN) as client:
        assert await client.rpush(QUEUE, JOB) == 1
        assert await client.rpush(QUEUE, "[1", "2") == 3
        popped = await client.lpop(QUEUE)
        assert popped is not None
        assert orjson.loads(popped) == JOB
        assert await client.lrange(QUEUE, 0, -1) == ["[1", "2"]
        assert await client.get("nothing") is None
        assert await client.set("k", "v") is True
        assert await client.eval("return {KEYS[1], ARGV[1], 3}", ["k"], ["a"]) == ["k", "a", 3]
        pipeline = client.pipeline()
        pipeline.incr("n")
        pipeline.get("n")
        assert await pipeline.exec() == [1, "1"]
        transaction = client.multi()
        transaction.incr("n")
        transaction.get("n")
        assert await transaction.exec() == [2, "2"]
        with pytest.raises(UpstashError, match="WRONGTYPE"):
            await client.hget(QUEUE, "f")
    async with Redis(front.url, "wrong", rest_retries=0) as client:
        with pytest.raises(UpstashError, match="WRONGPASS"):
            await client.get("k")


async def test_the_path_form_takes_the_body_as_the_last_argument(
    client: httpx.AsyncClient, redis: RedisProcess
) -> None:
    element = b'{"id": "a b/c"} \xff'
    assert (await client.post(f"/rpush/{QUEUE}", content=element)).json() == {"result": 1}
    assert redis.client.lrange(QUEUE, 0, -1) == [element]
    assert (await client.get("/set/a%20key/a%2Fb")).json() == {"result": "OK"}
    assert redis.client.get("a key") == b"a/b"
    encoded = await client.get("/get/a%20key", headers={"Upstash-Encoding": "base64"})
    assert encoded.json() == {"result": "YS9i"}


@pytest.mark.parametrize(
    ("method", "path", "body", "status"),
    [
        ("POST", "/", b"not JSON", 400),
        ("POST", "/", b"[]", 400),
        ("POST", "/", b"{}", 400),
        ("POST", "/", b'["GET", null]', 400),
        ("POST", "/", b'["NOSUCH", "k"]', 400),
        ("POST", "/", b'["BLMOVE", "a", "b", "LEFT", "LEFT", "1"]', 400),
        ("POST", "/pipeline", b"[]", 400),
        ("POST", "/pipeline", b'["GET", "k"]', 400),
        ("POST", "/multi-exec", b'[["NOSUCH"]]', 400),
        ("DELETE", "/get/k", b"", 405),
        ("POST", "/rpush/q", b"x" * 10_000_001, 413),
    ],
)
async def test_what_is_no_command_is_refused(
    client: httpx.AsyncClient, method: str, path: str, body: bytes, status: int
) -> None:
    answer = await client.request(method, path, content=body)
    assert answer.status_code == status
    assert isinstance(answer.json()["error"], str)


async def test_a_pipeline_goes_on_after_an_error(client: httpx.AsyncClient) -> None:
    answer = await client.post("/pipeline", json=[["SET", "k", 1], ["LPOP", "k"], ["GET", "k"]])
    ok, error, value = answer.json()
    assert (ok, value) == ({"result": "OK"}, {"result": "1"})
    assert error["error"].startswith("WRONGTYPE")


async def test_events_of_the_keyspace_are_streamed(
    client: httpx.AsyncClient, front: UpstashFront
) -> None:
    await client.post("/", json=["CONFIG", "SET", "notify-keyspace-events", "Kl"])
    channel = f"__keyspace@0__:{QUEUE}"
    lines: list[str] = []

    async def follow() -> None:
        async with client.stream("POST", f"/subscribe/{channel}") as stream:
            async for line in stream.aiter_lines():
                lines.extend([line] if line else [])
                if line and len(lines) == 1:
                    await client.post(f"/rpush/{QUEUE}", content=b"x")
                if len(lines) == 2:
                    front.drop_streams()

    with anyio.fail_after(20):
        # A stream that is cut off says no good-bye.
        with pytest.raises(httpx.RemoteProtocolError):
            await follow()
    assert lines == [f"data: subscribe,{channel},1", f"data: message,{channel},rpush"]
