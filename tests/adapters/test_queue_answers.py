"""What a shared server answers: elements of any form, errors, nothing, and what makes no sense."""

from __future__ import annotations

import random
from collections.abc import Awaitable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import anyio
import httpx
import orjson
import pytest
from support.queues import (
    LEASE,
    LEFT,
    OWNER,
    RIGHT,
    SIDES,
    claim,
    native,
    shared,
    upstash,
)
from support.redis_process import RedisProcess, redis_process
from support.tls_front import tls_front
from support.upstash import TOKEN, Fault, UpstashFront

from ourvidz.adapters.clock import SystemClock
from ourvidz.adapters.queue_redis import redis_server
from ourvidz.adapters.queue_shared import SharedQueues
from ourvidz.adapters.queue_upstash import UpstashServer
from ourvidz.adapters.queue_watch import Pauses
from ourvidz.adapters.upstash_rest import UpstashRest
from ourvidz.ports import QueueRefused, QueueUnavailable

pytestmark = [pytest.mark.anyio, pytest.mark.slow, pytest.mark.usefixtures("quick_retries")]

ODD = {
    "an object": orjson.dumps({"id": "1"}),
    "an array with a string": orjson.dumps([orjson.dumps({"id": "1"}).decode()]),
    "a string": orjson.dumps(orjson.dumps({"id": "1"}).decode()),
    "under data": orjson.dumps({"data": orjson.dumps({"id": "1"}).decode()}),
    "a number": b"00123",
    "what encodings look like": b"ZWxlbWVudA==",
    "a status": b"OK",
    "a mark": b"element",
    "no text": b"\xff\xfe\x00",
    "nothing": b"",
    "much": b'"' + b"x" * 5_000_000 + b'"',
}


@pytest.mark.parametrize("raw", ODD.values(), ids=ODD)
@pytest.mark.parametrize("encoding", [True, False])
async def test_elements_of_any_form_come_as_they_were_pushed(
    redis: RedisProcess, monkeypatch: pytest.MonkeyPatch, raw: bytes, encoding: bool
) -> None:
    """A front that does not know the encoding can give text alone."""
    async with upstash(redis, streaming=False) as world:
        if not encoding:
            monkeypatch.setattr("support.upstash._base64", lambda raw: raw.decode(errors="replace"))
        redis.client.rpush(LEFT, raw)
        claimed = await claim(world.source)
        assert claimed.raw == (raw if encoding else raw.decode(errors="replace").encode())
        await world.source.dead_letter(claimed.claim_id, "odd \ud800")
        assert await world.dead_letters() == [(LEFT, raw, "odd ?")]
        (letter,) = await world.source.dead_letters(10)
        assert (letter.beginning, letter.reason) == (claimed.raw[:4096], "odd ?")


JSON = {"content-type": "application/json"}


ANSWERS: dict[str, tuple[int, bytes, type[Exception], str]] = {
    "401": (401, b'{"error":"WRONGPASS"}', QueueRefused, "UPSTASH_REDIS_REST_TOKEN"),
    "403": (403, b"<html>no</html>", QueueRefused, "UPSTASH_REDIS_REST_TOKEN"),
    "404": (404, b"not here", QueueRefused, "404: not here"),
    "405": (405, b"", QueueRefused, "405"),
    "413": (413, b'{"error":"ERR max request size exceeded"}', QueueRefused, "max request size"),
    "415": (415, b"", QueueRefused, "415"),
    "a redirect": (302, b"", QueueRefused, "302"),
    "a command it lacks": (400, b'{"error":"ERR unknown command"}', QueueRefused, "unknown"),
    "a quota": (
        400,
        b'{"error":"ERR max requests limit exceeded. Limit: 500000"}',
        QueueUnavailable,
        "limit exceeded",
    ),
    "408": (408, b"", QueueUnavailable, "408"),
    "429": (429, b'{"error":"slow down"}', QueueUnavailable, "429: slow down"),
    "500": (500, b"oops", QueueUnavailable, "500: oops"),
    "503": (503, b"<html>", QueueUnavailable, "503"),
    "no JSON": (200, b"<html>welcome</html>", QueueUnavailable, "does not speak as Upstash"),
    "other JSON": (200, b'{"ok":true}', QueueUnavailable, "does not speak as Upstash"),
    "an error with 200": (200, b'{"error":"LOADING"}', QueueUnavailable, "LOADING"),
    "a refusal with 200": (200, b'{"error":"ERR no"}', QueueRefused, "ERR no"),
}


@pytest.mark.parametrize(("status", "body", "kind", "says"), ANSWERS.values(), ids=ANSWERS)
async def test_what_the_server_answers_is_told(
    redis: RedisProcess, status: int, body: bytes, kind: type[Exception], says: str
) -> None:
    async with upstash(redis, streaming=False) as world:
        await world.source.push(LEFT, b"a")
        world.front.faults.append(Fault(status=status, body=body, headers=JSON))
        with pytest.raises(kind, match=says) as caught:
            await world.source.claim(LEFT, "mine", LEASE)
        assert TOKEN not in str(caught.value)
        assert len(str(caught.value)) < 400
        assert await world.source.claim(LEFT, "mine", LEASE) is not None, "and then it goes on"


async def test_a_wrong_token_is_told(redis: RedisProcess) -> None:
    redis.empty()
    async with UpstashFront(redis, token="other") as front, httpx.AsyncClient() as client:
        rest = UpstashRest(front.url, "wrong", 10, client, SystemClock())
        with pytest.raises(QueueRefused, match=r"UPSTASH_REDIS_REST_TOKEN \(401\)"):
            await rest.command("PING")


async def test_nobody_there_is_told() -> None:
    async with (
        httpx.AsyncClient() as client,
        redis_server("redis://127.0.0.1:1/0", 5, SystemClock()) as server,
    ):
        rest = UpstashRest("http://127.0.0.1:1", TOKEN, 5, client, SystemClock())
        with pytest.raises(QueueUnavailable, match="does not answer"):
            await rest.command("PING")
        source = SharedQueues(server, "me", {LEFT: "left"})
        for call in (source.recover(), source.claim(LEFT, "c", 1), source.wait(LEFT, 1)):
            with pytest.raises(QueueUnavailable, match="does not answer"):
                await call


async def test_a_server_that_says_nothing_is_given_up() -> None:
    async with await anyio.create_tcp_listener(local_host="127.0.0.1") as listener:
        port = listener.extra(anyio.abc.SocketAttribute.local_port)
        async with (
            anyio.create_task_group() as tasks,
            httpx.AsyncClient() as client,
            redis_server(f"redis://127.0.0.1:{port}/0", 0.05, SystemClock()) as server,
        ):
            tasks.start_soon(listener.serve, lambda _: anyio.sleep_forever())
            rest = UpstashRest(f"http://127.0.0.1:{port}", TOKEN, 0.05, client, SystemClock())
            with pytest.raises(QueueUnavailable):
                await rest.command("PING")
            with pytest.raises(QueueUnavailable):
                await SharedQueues(server, "me", {LEFT: "left"}).claim(LEFT, "c", 1)
            tasks.cancel_scope.cancel()


async def test_a_native_server_comes_back(redis: RedisProcess) -> None:
    async with shared(redis, native(redis)) as world:
        """Connections that died meanwhile are no reason to start anew."""
        await world.source.push(LEFT, b"a")
        redis.client.client_kill_filter(_type="normal", skipme=True)
        await world.source.push(LEFT, b"b")
        assert [(await claim(world.source)).raw for _ in range(2)] == [b"a", b"b"]


async def test_a_native_password_that_is_wrong_is_told() -> None:
    with redis_process("--requirepass", "right") as process:
        for password, kind in (("right", None), ("wrong", QueueRefused), ("", QueueRefused)):
            user = f":{password}@" if password else ""
            url = f"redis://{user}127.0.0.1:{process.port}/0"
            async with redis_server(url, 5, SystemClock()) as server:
                source = SharedQueues(server, "me", {LEFT: "left"})
                if kind is None:
                    await source.push(LEFT, b"a")
                    continue
                with pytest.raises(kind) as caught:
                    await source.claim(LEFT, "c", 1)
                assert "wrong" not in str(caught.value).partition("answered")[0]


@dataclass
class OddServer:
    """Replies ``reply`` to every script."""

    reply: Any

    async def run(self, *_: Any, element: bool = False) -> Any:
        await anyio.lowlevel.checkpoint()
        return self.reply

    def claiming(self, queue: str) -> None: ...


ODD_REPLIES = [None, "text", {}, 1.5, [None], [[]], [b"a", b"b"], [b"element", 10**13], {"a": 1}]


@pytest.mark.parametrize("reply", ODD_REPLIES, ids=repr)
async def test_a_reply_that_no_script_gives_is_the_servers_fault(reply: Any) -> None:
    server: Any = OddServer(reply)
    source = SharedQueues(server, OWNER, SIDES)
    calls: list[Awaitable[object]] = [
        source.recover(),
        source.push(LEFT, b"a"),
        source.claim(LEFT, "c", LEASE),
        source.mark("c", "job", "body"),
        source.renew(["c"], LEASE),
        source.acknowledge("c"),
        source.count_attempt("c"),
        source.dead_letter("c", "why"),
        source.dead_letters(10),
        source.reap(),
    ]
    for call in calls:
        with pytest.raises(QueueUnavailable, match="does not give"):
            await call


async def test_a_lease_that_was_not_asked_for_is_not_lost() -> None:
    server: Any = OddServer([1, 7])
    assert await SharedQueues(server, OWNER, SIDES).renew(["c"], LEASE) == {"c"}


@dataclass
class OddRest:
    reply: Any

    async def command(self, *_: Any) -> Any:
        await anyio.lowlevel.checkpoint()
        return self.reply


@pytest.mark.parametrize("reply", [None, {}, [1], [1, None], [b"a", b"b"], "12"], ids=repr)
async def test_a_look_at_the_queues_that_says_nothing_is_the_servers_fault(reply: Any) -> None:
    rest: Any = OddRest(reply)
    server = UpstashServer(rest, [LEFT, RIGHT], Pauses(), random.Random(1))
    with pytest.raises(QueueUnavailable, match="does not give"):
        await server.watch._look([LEFT, RIGHT])


@pytest.mark.parametrize("trusted", [True, False])
async def test_a_certificate_that_nobody_vouches_for_is_not_taken(
    redis: RedisProcess, tmp_path: Path, trusted: bool
) -> None:
    async with tls_front(redis.port, tmp_path) as front:
        url = f"rediss://localhost:{front.port}/0" + (
            f"?ssl_ca_certs={front.ca}" if trusted else ""
        )
        async with redis_server(url, 10, SystemClock()) as server:
            source = SharedQueues(server, OWNER, SIDES)
            if trusted:
                assert await source.claim(LEFT, "c", LEASE) is None
            else:
                with pytest.raises(QueueUnavailable, match="CERTIFICATE_VERIFY_FAILED"):
                    await source.claim(LEFT, "c", LEASE)
