"""The API behind a real server on this machine."""

from __future__ import annotations

import signal
import socket
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import anyio
import httpx
import orjson
import pytest
from support.api import Api, FakeService, chat, settings_of

from ourvidz.config import ConfigError
from ourvidz.http import server
from ourvidz.http.app import create_api
from ourvidz.http.server import ListenError, serve

pytestmark = pytest.mark.anyio


class Served(Api):
    """An application of its own, since stopping it is for good."""

    def __init__(self, **flags: object) -> None:
        self.settings = settings_of(**{"http.port": 0, **flags})
        self.service = FakeService(self.settings)
        self.app = create_api(self.service, self.settings)


@asynccontextmanager
async def serving(served: Served) -> AsyncIterator[httpx.AsyncClient]:
    """The server until the block is left, with a client that keeps its connections longer."""
    with anyio.fail_after(20):
        async with httpx.AsyncClient() as client, anyio.create_task_group() as tasks:
            port = await tasks.start(_serve, served)
            client.base_url = httpx.URL(f"http://127.0.0.1:{port}")
            served.client = client
            yield client
            tasks.cancel_scope.cancel()


async def _serve(served: Served, *, task_status: anyio.abc.TaskStatus[int]) -> None:
    await serve(served.app, served.settings, task_status=task_status)


async def test_it_answers_as_soon_as_the_port_is_known() -> None:
    before = signal.getsignal(signal.SIGTERM), signal.getsignal(signal.SIGINT)
    served = Served()
    async with serving(served) as client:
        assert (signal.getsignal(signal.SIGTERM), signal.getsignal(signal.SIGINT)) == before
        answer = await client.get("/ping")
        assert answer.status_code == 200
        assert "server" not in answer.headers
        job = await client.post("/jobs", json=chat())
        assert job.headers["location"].startswith(str(client.base_url))
        assert (await client.get(job.headers["location"])).status_code == 200
    assert (signal.getsignal(signal.SIGTERM), signal.getsignal(signal.SIGINT)) == before


async def test_after_it_has_stopped_nothing_listens() -> None:
    async with serving(Served()) as client:
        port = client.base_url.port
    assert port is not None
    with socket.create_server(("127.0.0.1", port)):
        pass


async def test_a_stream_is_sent_event_by_event_and_ends_with_the_server() -> None:
    served = Served()
    async with serving(served) as client:
        job = await served.submit()
        async with client.stream("GET", f"/jobs/{job}/events") as answer:
            lines = answer.aiter_lines()
            assert await anext(lines) == "event: status"
            served.service.begin(job)
            while (line := await anext(lines)) != "id: 1":
                assert line != "event: end"
            async with anyio.create_task_group() as tasks:
                served.app.state.context.open_requests.close()
                tasks.start_soon(_exhaust, lines)
    assert len(served.open_requests) == 0


async def _exhaust(lines: AsyncIterator[str]) -> None:
    """To the proper end of a chunked answer: one that is cut off raises."""
    async for line in lines:
        assert line != "event: end"


async def test_a_stream_that_nobody_ends_does_not_hold_the_server(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(server, "GRACE_SECONDS", 1000)
    served = Served()
    async with serving(served) as client:
        job = await served.submit()
        request = client.build_request("GET", f"/jobs/{job}/events")
        answer = await client.send(request, stream=True)
        lines = answer.aiter_lines()
        assert await anext(lines) == "event: status"
    assert len(served.open_requests) == 0


async def test_a_request_that_hangs_is_cut_off(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(server, "GRACE_SECONDS", 0)
    served = Served()
    stuck = anyio.Event()

    async def hang(*_: object) -> None:
        stuck.set()
        await anyio.sleep_forever()

    async def ask(client: httpx.AsyncClient) -> None:
        with pytest.raises(httpx.HTTPError):
            (await client.post("/jobs", json=chat())).raise_for_status()

    monkeypatch.setattr(served.service, "submit", hang)
    async with anyio.create_task_group() as tasks, serving(served) as client:
        tasks.start_soon(ask, client)
        await stuck.wait()


async def test_a_large_upload_is_answered_although_it_goes_on() -> None:
    async def upload() -> AsyncIterator[bytes]:
        for _ in range(160):
            yield b" " * 65_536

    async with serving(Served()) as client:
        headers = {"content-type": "application/json"}
        answer = await client.post("/jobs", content=upload(), headers=headers)
        assert answer.status_code == 413
        assert answer.json()["code"] == "BODY_TOO_LARGE"
        assert (await client.get("/ping")).status_code == 200


async def test_what_is_no_http_is_refused() -> None:
    async with serving(Served()) as client:
        assert client.base_url.port is not None
        for sent in (b"\x16\x03\x01 hello\r\n\r\n", b"GET / HTTP/1.1\r\nx: " + b"y" * 20_000):
            stream = await anyio.connect_tcp("127.0.0.1", client.base_url.port)
            async with stream:
                await stream.send(sent)
                assert (await stream.receive()).startswith(b"HTTP/1.1 400 ")
        assert (await client.get("/ping")).status_code == 200


async def test_a_wait_is_answered_over_the_wire() -> None:
    served = Served()
    async with serving(served) as client, anyio.create_task_group() as tasks:

        async def work() -> None:
            await served.service.submitted.wait()
            (job,) = served.service.records
            served.service.end(str(job))

        tasks.start_soon(work)
        answer = await client.post("/jobs", json=chat(), headers={"Prefer": "wait=60"})
        assert answer.status_code == 200
        assert orjson.loads(answer.content)["status"] == "completed"


def resolve_to(monkeypatch: pytest.MonkeyPatch, *addresses: str) -> None:
    async def resolve(host: str, port: int, **_: object) -> list[object]:
        return [(socket.AF_INET, socket.SOCK_STREAM, 6, "", (a, port)) for a in addresses]

    monkeypatch.setattr(anyio, "getaddrinfo", resolve)


async def test_a_name_is_listened_on_by_its_addresses_here_on_one_port(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    resolve_to(monkeypatch, "127.0.0.1", "192.0.2.1", "127.0.0.2", "127.0.0.1")
    served = Served()
    async with serving(served) as client:
        other = client.base_url.copy_with(host="127.0.0.2")
        for url in (client.base_url, other):
            assert (await client.get(url.join("/ping"))).status_code == 200


async def test_a_name_without_an_address_here_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    resolve_to(monkeypatch, "192.0.2.1")
    served = Served()
    with pytest.raises(ListenError, match=r"http\.host, http\.port: 127\.0\.0\.1 port 0: .*assign"):
        await serve(served.app, served.settings)


async def test_one_address_that_is_taken_closes_the_others(monkeypatch: pytest.MonkeyPatch) -> None:
    with socket.create_server(("127.0.0.2", 0)) as taken:
        port = taken.getsockname()[1]
        resolve_to(monkeypatch, "127.0.0.1", "127.0.0.2")
        served = Served(**{"http.port": port})
        with pytest.raises(ListenError, match="in use"):
            await serve(served.app, served.settings)
        with socket.create_server(("127.0.0.1", port)):
            pass


async def test_an_address_that_is_taken_is_named() -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        served = Served(**{"http.port": port})
        message = rf"http\.port: 127\.0\.0\.1 port {port}: .*in use"
        with pytest.raises(ListenError, match=message) as caught:
            await serve(served.app, served.settings)
    assert caught.value.retryable


async def test_a_name_that_is_none_is_named() -> None:
    served = Served()
    settings = served.settings.model_copy(
        update={"http": served.settings.http.model_copy(update={"host": "no-such-host.invalid"})}
    )
    with pytest.raises((ListenError, ConfigError), match=r"http\.host"):
        await serve(served.app, settings)


async def test_a_bind_beyond_this_machine_needs_a_token() -> None:
    served = Served()
    http = served.settings.http.model_copy(update={"host": "0.0.0.0"})
    settings = served.settings.model_copy(update={"http": http})
    with pytest.raises(ConfigError, match="loopback"):
        await serve(served.app, settings)
