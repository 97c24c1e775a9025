"""As much of Redis' protocol and of HTTP/1.1 as the fault proxy reads; its names for requests."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any, Protocol

import orjson
from anyio.streams.buffered import BufferedByteReceiveStream
from support.raw_http import Targeted

from ourvidz.adapters import queue_scripts

_HEAD_BYTES_MAX = 1 << 20
_SCRIPTS = {
    text: name for name, text in vars(queue_scripts).items() if name.isupper() and "\n" in str(text)
}


@dataclass(frozen=True, slots=True)
class Request(Targeted):
    """``raw`` is every byte of it. Of HTTP only: ``target``, ``headers`` by names in lower case."""

    raw: bytes
    method: str
    body: bytes = b""
    target: str = ""
    headers: Mapping[str, str] = field(default_factory=dict)
    arguments: tuple[bytes, ...] = ()


@dataclass(frozen=True, slots=True)
class Reply:
    """``head`` and ``body`` are every byte of it; of an endless one, which goes on behind its head,
    ``body`` is empty."""

    head: bytes
    body: bytes
    endless: bool = False


class Wire(Protocol):
    """How requests and replies are told from each other."""

    async def request(self, stream: BufferedByteReceiveStream) -> Request: ...

    async def reply(self, stream: BufferedByteReceiveStream, to: Request) -> Reply: ...

    def kind(self, request: Request) -> str: ...


class RedisWire:
    """A kind is a command, or the name of one of our scripts."""

    async def request(self, stream: BufferedByteReceiveStream) -> Request:
        raw, value = await _value(stream)
        arguments = tuple(value)
        return Request(raw, arguments[0].decode().upper(), arguments=arguments)

    async def reply(self, stream: BufferedByteReceiveStream, to: Request) -> Reply:
        raw, _ = await _value(stream)
        return Reply(b"", raw)

    def kind(self, request: Request) -> str:
        return _command([argument.decode(errors="replace") for argument in request.arguments])


class HttpWire:
    """``name`` gives a request its kind."""

    def __init__(self, name: Callable[[Request], str]) -> None:
        self.kind = name

    async def request(self, stream: BufferedByteReceiveStream) -> Request:
        head = await _until(stream, b"\r\n\r\n")
        first, headers = _head(head)
        method, target, _ = first.split(" ")
        raw, body = await _body(stream, headers, b"")
        return Request(head + raw, method, body, target, headers)

    async def reply(self, stream: BufferedByteReceiveStream, to: Request) -> Reply:
        head = await _until(stream, b"\r\n\r\n")
        first, headers = _head(head)
        status = int(first.split(" ")[1])
        if status < 200:
            further = await self.reply(stream, to)
            return Reply(head + further.head, further.body, further.endless)
        if headers.get("content-type", "").startswith("text/event-stream"):
            return Reply(head, b"", endless=True)
        if to.method == "HEAD" or status in (204, 304):
            return Reply(head, b"")
        raw, _ = await _body(stream, headers, None)
        return Reply(head, raw)


def upstash_kind(request: Request) -> str:
    """The name of a command to Upstash's REST API, as ``RedisWire`` would have it."""
    if request.path.startswith("/subscribe/"):
        channel = request.path.removeprefix("/subscribe/")
        return "SUBSCRIBE probe" if "probe" in channel else "SUBSCRIBE"
    return _command(orjson.loads(request.body))


def s3_kind(request: Request) -> str:
    """The method, and what it concerns: a kind of file, or a step of an upload in parts."""
    query = request.query
    if "uploads" in query:
        return "POST begin"
    if "partNumber" in query:
        return "PUT part"
    if "uploadId" in query:
        return {"POST": "POST complete", "DELETE": "DELETE abort"}[request.method]
    return f"{request.method} {request.path.rpartition('.')[2]}"


def callback_kind(request: Request) -> str:
    """The status that is reported."""
    return str(orjson.loads(request.body)["status"])


def signer_kind(request: Request) -> str:
    """What a URL is asked for."""
    return f"sign {orjson.loads(request.body)['method']}"


def _command(parts: list[Any]) -> str:
    name = str(parts[0]).upper()
    if name == "EVAL":
        return _SCRIPTS.get(str(parts[1]), "EVAL probe")
    return f"{name} {parts[1]}".upper() if name in ("CLIENT", "CONFIG") else name


async def _value(stream: BufferedByteReceiveStream) -> tuple[bytes, Any]:
    """One value of Redis' protocol: its bytes, and strings and arrays of them."""
    line = await _until(stream, b"\r\n")
    tag, rest = line[:1], line[1:-2]
    if tag == b"$" and rest != b"-1":
        raw = await stream.receive_exactly(int(rest) + 2)
        return line + raw, raw[:-2]
    if tag == b"*" and rest != b"-1":
        values = [await _value(stream) for _ in range(int(rest))]
        return line + b"".join(raw for raw, _ in values), [value for _, value in values]
    return line, rest


def _head(head: bytes) -> tuple[str, dict[str, str]]:
    first, *lines = head.decode("latin-1").split("\r\n")
    pairs = (line.partition(":") for line in lines if line)
    return first, {name.lower(): value.strip() for name, _, value in pairs}


async def _body(
    stream: BufferedByteReceiveStream, headers: Mapping[str, str], without_length: bytes | None
) -> tuple[bytes, bytes]:
    """A body as it was sent, and what it says. ``without_length``: what a body of no told length
    is; ``None`` where it goes on to the connection's end."""
    if "content-length" in headers:
        raw = await stream.receive_exactly(int(headers["content-length"]))
        return raw, raw
    if headers.get("transfer-encoding") != "chunked":
        assert without_length is not None, "every server here tells the length of a body"
        return without_length, without_length
    raw, said = b"", b""
    while True:
        line = await _until(stream, b"\r\n")
        size = int(line.split(b";")[0], 16)
        chunk = await stream.receive_exactly(size + 2)
        raw, said = raw + line + chunk, said + chunk[:-2]
        if not size:
            return raw, said


async def _until(stream: BufferedByteReceiveStream, mark: bytes) -> bytes:
    return await stream.receive_until(mark, _HEAD_BYTES_MAX) + mark
