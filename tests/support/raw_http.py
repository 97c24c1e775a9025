"""A server of HTTP/1.1 that answers what a test says, whole, cut short or not at all."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping
from dataclasses import dataclass, field
from urllib.parse import parse_qs, unquote, urlsplit


class Targeted:
    """A request's ``target`` in parts; ``query`` without repeats."""

    __slots__ = ()
    target: str

    @property
    def path(self) -> str:
        return unquote(urlsplit(self.target).path)

    @property
    def query(self) -> Mapping[str, str]:
        pairs = parse_qs(urlsplit(self.target).query, keep_blank_values=True)
        return {name: values[0] for name, values in pairs.items()}


@dataclass(frozen=True, slots=True)
class Request(Targeted):
    """``headers`` by their names in lower case."""

    method: str
    target: str
    headers: Mapping[str, str]
    body: bytes


@dataclass(frozen=True, slots=True)
class Reply:
    """``cut``: so many bytes of the body are left out and the connection ends; ``reset``: nothing
    is answered and the connection is reset."""

    status: int = 200
    headers: Mapping[str, str] = field(default_factory=dict)
    body: bytes = b""
    cut: int = 0
    reset: bool = False


Handler = Callable[[Request], Awaitable[Reply]]


@contextlib.asynccontextmanager
async def raw_http(handler: Handler) -> AsyncIterator[str]:
    """The server's URL. Connections are cut when the block is left."""
    writers: set[asyncio.StreamWriter] = set()

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writers.add(writer)
        with contextlib.suppress(ConnectionError, asyncio.IncompleteReadError):
            while await _exchange(handler, reader, writer):
                pass
        writer.close()

    server = await asyncio.start_server(serve, "127.0.0.1", 0, limit=1 << 24)
    try:
        yield f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}"
    finally:
        server.close()
        for writer in writers:
            writer.transport.abort()


async def _exchange(
    handler: Handler, reader: asyncio.StreamReader, writer: asyncio.StreamWriter
) -> bool:
    """One request and its reply; whether the connection can be used again."""
    head = (await reader.readuntil(b"\r\n\r\n")).decode("latin-1").split("\r\n")
    method, target, _ = head[0].split(" ")
    pairs = (line.partition(":") for line in head[1:] if line)
    headers = {name.lower(): value.strip() for name, _, value in pairs}
    assert "expect" not in headers, "nobody here says 100 Continue"
    assert "transfer-encoding" not in headers, "S3 wants a length"
    body = await reader.readexactly(int(headers.get("content-length", "0")))
    reply = await handler(Request(method, target, headers, body))
    if reply.reset:
        writer.transport.abort()
        return False
    length = {"Content-Length": str(len(reply.body))}
    lines = [f"{name}: {value}" for name, value in (length | dict(reply.headers)).items()]
    start = "\r\n".join([f"HTTP/1.1 {reply.status} Answer", *lines, "", ""]).encode("latin-1")
    sent = b"" if method == "HEAD" else reply.body[: len(reply.body) - reply.cut]
    writer.write(start + sent)
    await writer.drain()
    return not reply.cut
