"""Fetching from a checked address, against a real TLS server on loopback."""

import asyncio
import contextlib
import socket
import ssl
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import httpx
import pytest

from ourvidz.adapters.safe_http import FetchRefused, FetchUnavailable, PinnedClient

pytestmark = pytest.mark.anyio

CERTIFICATE = Path(__file__).with_name("tls") / "good_test.pem"
OK = b"HTTP/1.1 200 OK\r\nContent-Length: 7\r\n\r\npicture"
Answer = Callable[[asyncio.StreamWriter], Awaitable[None]]


@dataclass
class Server:
    port: int = 0
    requests: list[str] = field(default_factory=list)
    names: list[str | None] = field(default_factory=list)


@contextlib.asynccontextmanager
async def serving(answer: Answer | bytes) -> AsyncIterator[Server]:
    """A TLS server on 127.0.0.1 whose every connection gets one answer."""
    server = Server()
    context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    context.load_cert_chain(CERTIFICATE)
    context.sni_callback = lambda _socket, name, _context: server.names.append(name)

    async def handle(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        with contextlib.suppress(OSError, asyncio.IncompleteReadError):
            server.requests.append((await reader.readuntil(b"\r\n\r\n")).decode())
            if isinstance(answer, bytes):
                writer.write(answer)
            else:
                await answer(writer)
            await writer.drain()
        writer.close()

    listener = await asyncio.start_server(handle, "127.0.0.1", 0, ssl=context)
    server.port = listener.sockets[0].getsockname()[1]
    async with listener:
        yield server


class Names:
    """A resolver whose answers are given in order; the last one stands."""

    def __init__(self, *answers: Sequence[str]) -> None:
        self.answers = list(answers)
        self.asked: list[tuple[str, int]] = []

    async def __call__(self, host: str, port: int) -> Sequence[str]:
        self.asked.append((host, port))
        return self.answers.pop(0) if len(self.answers) > 1 else self.answers[0]


def client(names: Names, allowed: Callable[[str], bool] = lambda _address: True) -> PinnedClient:
    trusting = ssl.create_default_context(cafile=CERTIFICATE)
    return PinnedClient(resolve=names, allowed=allowed, ssl_context=trusting)


async def get(
    server: Server,
    names: Names | None = None,
    path: str = "/a.png?token=t",
    host: str = "good.test",
    bytes_max: int = 1000,
    seconds_max: float = 10.0,
) -> bytes:
    url = httpx.URL(f"https://{host}:{server.port}{path}")
    fetcher = client(names or Names(["127.0.0.1"]))
    return await fetcher.get(url, bytes_max=bytes_max, seconds_max=seconds_max)


async def test_the_address_is_pinned_and_the_name_stays() -> None:
    names = Names(["127.0.0.1"])
    async with serving(OK) as server:
        assert await get(server, names) == b"picture"
    assert names.asked == [("good.test", server.port)]
    assert server.names == ["good.test"]
    request = server.requests[0]
    assert request.startswith("GET /a.png?token=t HTTP/1.1\r\n")
    headers = dict(line.lower().split(": ", 1) for line in request.strip().split("\r\n")[1:])
    assert headers["host"] == f"good.test:{server.port}"
    assert headers["accept-encoding"] == "identity"
    assert not {"cookie", "authorization", "referer"} & set(headers)


async def test_an_international_name_is_asked_for_in_its_ascii_form() -> None:
    names = Names(["127.0.0.1"])
    async with serving(OK) as server:
        assert await get(server, names, host="b\u00dccher.test") == b"picture"
    assert names.asked[0][0] == "xn--bcher-kva.test"
    assert server.names == ["xn--bcher-kva.test"]


async def test_a_name_that_changes_its_address_is_resolved_once_only() -> None:
    """Rebinding: what passes the check is what is connected to; the next answer is not asked."""
    names = Names(["127.0.0.1"], ["10.0.0.1"])
    async with serving(OK) as server:
        url = httpx.URL(f"https://good.test:{server.port}/")
        fetcher = client(names, allowed=lambda address: address == "127.0.0.1")
        assert await fetcher.get(url, bytes_max=100, seconds_max=10) == b"picture"
        assert len(names.asked) == 1
        with pytest.raises(FetchRefused, match="public addresses"):
            await fetcher.get(url, bytes_max=100, seconds_max=10)
    assert len(server.requests) == 1


@pytest.mark.parametrize(
    "addresses", [["10.0.0.1"], ["127.0.0.1", "10.0.0.1"], ["10.0.0.1", "127.0.0.1"], []]
)
async def test_every_address_must_be_allowed(addresses: list[str]) -> None:
    async with serving(OK) as server:
        fetcher = client(Names(addresses), allowed=lambda address: address == "127.0.0.1")
        with pytest.raises(FetchRefused, match="public addresses"):
            await fetcher.get(
                httpx.URL(f"https://good.test:{server.port}/"), bytes_max=100, seconds_max=10
            )
    assert server.requests == []


async def test_production_refuses_loopback() -> None:
    async with serving(OK) as server:
        fetcher = PinnedClient(resolve=Names(["127.0.0.1"]))
        with pytest.raises(FetchRefused, match="public addresses"):
            await fetcher.get(
                httpx.URL(f"https://good.test:{server.port}/"), bytes_max=100, seconds_max=10
            )
    assert server.requests == []


async def test_the_next_address_is_tried_when_one_does_not_answer() -> None:
    async with serving(OK) as server:
        assert await get(server, Names(["127.0.0.2", "127.0.0.1"])) == b"picture"
    assert len(server.requests) == 1


@pytest.mark.parametrize(
    "url",
    [
        "http://good.test/",
        "https://user@good.test/",
        "https://user:pw@good.test/",
        "https:///x",
        "ftp://good.test/",
        "//good.test/",
        "/a.png",
    ],
)
async def test_other_urls_are_refused_before_they_are_resolved(url: str) -> None:
    names = Names(["127.0.0.1"])
    with pytest.raises(FetchRefused, match="only https"):
        await client(names).get(httpx.URL(url), bytes_max=100, seconds_max=10)
    assert names.asked == []


@pytest.mark.parametrize("status", [301, 302, 303, 307, 308, 304, 300])
async def test_redirects_are_refused(status: int) -> None:
    answer = f"HTTP/1.1 {status} X\r\nLocation: /elsewhere\r\nContent-Length: 0\r\n\r\n"
    async with serving(answer.encode()) as server:
        with pytest.raises(FetchRefused, match=f"{status}; redirects are not followed"):
            await get(server)
    assert len(server.requests) == 1


@pytest.mark.parametrize("status", [201, 204, 206, 400, 401, 403, 404, 410])
async def test_other_answers_are_refused_for_good(status: int) -> None:
    async with serving(f"HTTP/1.1 {status} X\r\nContent-Length: 0\r\n\r\n".encode()) as server:
        with pytest.raises(FetchRefused, match=str(status)):
            await get(server)


@pytest.mark.parametrize("status", [429, 500, 502, 503, 504])
async def test_a_busy_host_may_be_asked_again(status: int) -> None:
    async with serving(f"HTTP/1.1 {status} X\r\nContent-Length: 0\r\n\r\n".encode()) as server:
        with pytest.raises(FetchUnavailable, match=str(status)):
            await get(server)


async def test_the_announced_length_is_checked_before_the_body() -> None:
    head = b"HTTP/1.1 200 OK\r\nContent-Length: 1001\r\n\r\n"
    async with serving(head) as server:
        with pytest.raises(FetchRefused, match="1001 bytes; at most 1000"):
            await get(server)


async def test_the_body_is_counted_while_it_streams() -> None:
    async def endless(writer: asyncio.StreamWriter) -> None:
        writer.write(b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n")
        while True:
            writer.write(b"200\r\n" + b"x" * 512 + b"\r\n")
            await writer.drain()

    async with serving(endless) as server:
        with pytest.raises(FetchRefused, match="more than 1000 bytes"):
            await get(server)


async def test_exactly_the_limit_is_allowed() -> None:
    async with serving(OK) as server:
        assert await get(server, bytes_max=7) == b"picture"
        with pytest.raises(FetchRefused):
            await get(server, bytes_max=6)


async def test_a_content_coding_is_refused() -> None:
    answer = b"HTTP/1.1 200 OK\r\nContent-Encoding: gzip\r\nContent-Length: 7\r\n\r\npicture"
    async with serving(answer) as server:
        with pytest.raises(FetchRefused, match="content coding"):
            await get(server)


async def test_silence_ends_at_the_deadline() -> None:
    async def silent(_writer: asyncio.StreamWriter) -> None:
        await asyncio.Event().wait()

    async with serving(silent) as server:
        with pytest.raises(FetchUnavailable, match=r"within 0\.1 s"):
            await get(server, seconds_max=0.1)


async def test_the_deadline_is_for_the_whole_fetch() -> None:
    """One byte now and then keeps every single read in time."""

    async def drip(writer: asyncio.StreamWriter) -> None:
        writer.write(b"HTTP/1.1 200 OK\r\nContent-Length: 1000\r\n\r\n")
        while True:
            writer.write(b"x")
            await writer.drain()
            await asyncio.sleep(0.02)

    async with serving(drip) as server:
        with pytest.raises(FetchUnavailable, match=r"within 0\.2 s"):
            await get(server, seconds_max=0.2)


async def test_a_slow_resolver_counts_too() -> None:
    async def never(_host: str, _port: int) -> Sequence[str]:
        await asyncio.Event().wait()
        return []

    fetcher = PinnedClient(resolve=never)
    with pytest.raises(FetchUnavailable):
        await fetcher.get(httpx.URL("https://good.test/"), bytes_max=1, seconds_max=0.05)


@pytest.mark.parametrize(
    ("code", "kind"),
    [(socket.EAI_NONAME, FetchRefused), (socket.EAI_AGAIN, FetchUnavailable)],
)
async def test_a_name_that_does_not_resolve(code: int, kind: type[Exception]) -> None:
    async def fail(_host: str, _port: int) -> Sequence[str]:
        raise socket.gaierror(code, "no")

    with pytest.raises(kind, match="does not resolve"):
        await PinnedClient(resolve=fail).get(
            httpx.URL("https://good.test/"), bytes_max=1, seconds_max=10
        )


async def test_a_body_that_breaks_off_may_be_asked_for_again() -> None:
    answer = b"HTTP/1.1 200 OK\r\nContent-Length: 100\r\n\r\npict"
    async with serving(answer) as server:
        with pytest.raises(FetchUnavailable, match="broke off"):
            await get(server)


@pytest.mark.parametrize("answer", [b"", b"nonsense\r\n\r\n", b"HTTP/1.1 200 OK\r\nX" * 20_000])
async def test_what_is_not_http_does_no_harm(answer: bytes) -> None:
    async with serving(answer) as server:
        with pytest.raises((FetchRefused, FetchUnavailable)):
            await get(server)


async def test_a_host_that_does_not_listen_may_be_asked_again() -> None:
    async with serving(OK) as server:
        pass
    with pytest.raises(FetchUnavailable, match="no connection"):
        await get(server)


async def test_a_certificate_for_another_name_is_refused() -> None:
    async with serving(OK) as server:
        with pytest.raises(FetchRefused, match="certificate"):
            await get(server, host="other.test")
    assert server.requests == []


async def test_an_unknown_issuer_is_refused() -> None:
    fetcher = PinnedClient(resolve=Names(["127.0.0.1"]), allowed=lambda _address: True)
    async with serving(OK) as server:
        with pytest.raises(FetchRefused, match="certificate"):
            await fetcher.get(
                httpx.URL(f"https://good.test:{server.port}/"), bytes_max=100, seconds_max=10
            )
    assert server.requests == []


async def test_proxies_of_the_environment_are_not_used(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("HTTPS_PROXY", "https_proxy", "ALL_PROXY", "all_proxy"):
        monkeypatch.setenv(name, "http://127.0.0.1:9")
    async with serving(OK) as server:
        assert await get(server) == b"picture"


async def test_cookies_are_not_kept() -> None:
    answer = b"HTTP/1.1 200 OK\r\nSet-Cookie: a=b\r\nContent-Length: 7\r\n\r\npicture"
    async with serving(answer) as server:
        fetcher = client(Names(["127.0.0.1"]))
        url = httpx.URL(f"https://good.test:{server.port}/")
        for _ in range(2):
            await fetcher.get(url, bytes_max=100, seconds_max=10)
    assert len(server.requests) == 2
    assert "cookie" not in server.requests[1].lower()
