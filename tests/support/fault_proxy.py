"""A proxy on this machine that counts what goes through it, by kind, and breaks what it is told to.

It stands between the service and one server. A fault happens to requests of one kind or of all, to
the nth or to so many as come.
"""

from __future__ import annotations

import contextlib
import socket
import struct
from collections import Counter
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from urllib.parse import urlsplit, urlunsplit

import anyio
from anyio.abc import SocketAttribute, SocketStream
from anyio.streams.buffered import BufferedByteReceiveStream
from anyio.streams.memory import MemoryObjectSendStream
from support.proxy_wires import Reply, Request, Wire

_AT_ONCE = struct.pack("ii", 1, 0)  # SO_LINGER: a close is a reset
_GONE = (
    anyio.EndOfStream,
    anyio.IncompleteRead,
    anyio.BrokenResourceError,
    anyio.ClosedResourceError,
    OSError,
)


@dataclass(frozen=True, slots=True)
class Reset:
    """The server never sees the request; the connection is reset."""


@dataclass(frozen=True, slots=True)
class Silence:
    """The connection stays and nothing is answered. ``executed``: the server has seen it."""

    executed: bool = False


@dataclass(frozen=True, slots=True)
class LoseReply:
    """The server has executed the request; then the connection is reset."""


@dataclass(frozen=True, slots=True)
class Truncate:
    """Half of the reply's body comes, or of its head where it has none; then the connection
    ends."""


@dataclass(frozen=True, slots=True)
class Status:
    """An HTTP answer in place of the server's. ``executed``: the server has seen the request."""

    status: int
    body: bytes = b"<html>busy</html>"
    headers: Mapping[str, str] = field(default_factory=dict)
    executed: bool = False


@dataclass(frozen=True, slots=True)
class Delay:
    """The request is held back until ``released``, or for so many ``seconds``."""

    seconds: float | None = None
    released: anyio.Event = field(default_factory=anyio.Event)


@dataclass(frozen=True, slots=True)
class Drip:
    """The reply comes byte by byte. It stops in its middle if it is ``endless``: what is still
    to come would come too late for anybody."""

    endless: bool = False


Fault = Reset | Silence | LoseReply | Truncate | Status | Delay | Drip


@dataclass(slots=True)
class Rule:
    """It happens to requests of a ``kind``, ``None`` is any, from number ``first`` on. ``left``: to
    how many more, ``None`` is all. ``hit`` are the kinds of those to which it has happened."""

    fault: Fault
    kind: str | None
    first: int
    left: int | None
    hit: list[str] = field(default_factory=list)

    def takes(self, kind: str, number: int) -> bool:
        fits = self.kind in (None, kind) and number >= self.first and self.left != 0
        if fits:
            self.left = None if self.left is None else self.left - 1
            self.hit.append(kind)
        return fits


@dataclass(slots=True)
class FaultProxy:
    """``seen`` are the requests that came, each with its kind; ``faults`` are asked in order."""

    wire: Wire
    host: str
    port: int
    url: str = ""
    seen: list[tuple[str, Request]] = field(default_factory=list)
    faults: list[Rule] = field(default_factory=list)
    counts: Counter[str] = field(default_factory=Counter)
    _changed: anyio.Condition = field(default_factory=anyio.Condition)
    _clients: set[SocketStream] = field(default_factory=set)

    @property
    def kinds(self) -> set[str]:
        return set(self.counts)

    def plan(
        self, fault: Fault, kind: str | None = None, after: int = 0, times: int | None = 1
    ) -> Rule:
        """To so many requests of the kind that come ``after`` so many more of them from now."""
        before = sum(self.counts.values()) if kind is None else self.counts[kind]
        rule = Rule(fault, kind, before + after, times)
        self.faults.append(rule)
        return rule

    def heal(self) -> None:
        """No more faults; who waits for an answer that will not come is cut off."""
        self.faults.clear()
        self.cut()

    def cut(self) -> None:
        """Reset every connection."""
        for client in list(self._clients):
            _reset(client)

    async def until(self, condition: Callable[[], bool]) -> None:
        """Return once ``condition`` holds after a request has come."""
        async with self._changed:
            while not condition():
                await self._changed.wait()

    async def serve(self, client: SocketStream) -> None:
        try:
            server = await anyio.connect_tcp(self.host, self.port)
        except OSError:  # nobody is behind the proxy any more
            _reset(client)
            return
        self._clients.add(client)
        try:
            async with client, server:
                await _Connection(self, client, server).run()
        finally:
            self._clients.discard(client)

    async def note(self, request: Request) -> Fault | None:
        """Count a request; returns what is to happen to it."""
        kind = self.wire.kind(request)
        async with self._changed:
            nth, overall = self.counts[kind], sum(self.counts.values())
            self.counts[kind] += 1
            self.seen.append((kind, request))
            self._changed.notify_all()
        for rule in self.faults:
            if rule.takes(kind, overall if rule.kind is None else nth):
                return rule.fault
        return None


@dataclass(slots=True)
class _Connection:
    """One client's, with a connection of its own to the server: one request after the other."""

    proxy: FaultProxy
    client: SocketStream
    server: SocketStream
    idle: bool = True

    async def run(self) -> None:
        """Until either side leaves."""
        give_request, requests = anyio.create_memory_object_stream[Request](1000)
        give_bytes, replied = anyio.create_memory_object_stream[bytes](1000)
        async with anyio.create_task_group() as tasks, give_request, requests, replied:
            tasks.start_soon(self._read, give_request.send, tasks.cancel_scope)
            tasks.start_soon(self._pump, give_bytes, tasks.cancel_scope)
            replies = BufferedByteReceiveStream(replied)
            with contextlib.suppress(*_GONE):
                async for request in requests:
                    self.idle = False
                    if not await self._exchange(request, replies):
                        break
                    self.idle = True
            tasks.cancel_scope.cancel()

    async def _read(
        self, found: Callable[[Request], Awaitable[None]], scope: anyio.CancelScope
    ) -> None:
        """A client that leaves need not be waited for, whatever the server is doing."""
        stream = BufferedByteReceiveStream(self.client)
        with contextlib.suppress(*_GONE):
            while True:
                await found(await self.proxy.wire.request(stream))
        scope.cancel()

    async def _pump(self, found: MemoryObjectSendStream[bytes], scope: anyio.CancelScope) -> None:
        """A server that leaves between two requests is seen by the client before its next one."""
        async with found:
            with contextlib.suppress(*_GONE):
                while True:
                    await found.send(await self.server.receive())
        if self.idle:
            scope.cancel()

    async def _exchange(self, request: Request, replies: BufferedByteReceiveStream) -> bool:
        """One request and its reply; whether the connection can be used again."""
        fault = await self.proxy.note(request)
        match fault:
            case Reset():
                _reset(self.client)
                return False
            case Silence(executed=False):
                await anyio.sleep_forever()
            case Status(executed=False):
                await self._answer(fault)
                return True
            case Delay():
                with anyio.move_on_after(fault.seconds):
                    await fault.released.wait()
        await self.server.send(request.raw)
        reply = await self.proxy.wire.reply(replies, request)
        return await self._pass_on(reply, replies, fault)

    async def _pass_on(
        self, reply: Reply, replies: BufferedByteReceiveStream, fault: Fault | None
    ) -> bool:
        whole = reply.head + reply.body
        match fault:
            case LoseReply():
                _reset(self.client)
                return False
            case Silence():
                await anyio.sleep_forever()
            case Status():
                await self._answer(fault)
                return True
            case Truncate():
                await self.client.send(whole[: -max(1, len(reply.body or whole) // 2)])
                return False
            case Drip():
                for place in range(len(whole)):
                    if fault.endless and place > len(whole) // 2:
                        await anyio.sleep_forever()
                    await self.client.send(whole[place : place + 1])
                    await anyio.lowlevel.checkpoint()
                return True
        await self.client.send(whole)
        while reply.endless:
            await self.client.send(await replies.receive())
        return True

    async def _answer(self, fault: Status) -> None:
        headers = {"Content-Length": str(len(fault.body)), **fault.headers}
        lines = [f"{name}: {value}" for name, value in headers.items()]
        head = "\r\n".join([f"HTTP/1.1 {fault.status} Planted", *lines, "", ""])
        await self.client.send(head.encode("latin-1") + fault.body)


def _reset(stream: SocketStream) -> None:
    raw = stream.extra(SocketAttribute.raw_socket)
    with contextlib.suppress(OSError):  # it is closed already
        raw.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, _AT_ONCE)
    stream._transport.abort()  # type: ignore[attr-defined]  # aclose says good-bye first


@asynccontextmanager
async def fault_proxy(url: str, wire: Wire) -> AsyncIterator[FaultProxy]:
    """In front of the server at ``url``, until the block is left. The proxy's URL names the same
    path."""
    parts = urlsplit(url)
    assert parts.hostname is not None
    assert parts.port is not None
    proxy = FaultProxy(wire, parts.hostname, parts.port)
    async with (
        await anyio.create_tcp_listener(local_host="127.0.0.1") as listener,
        anyio.create_task_group() as tasks,
    ):
        port = listener.extra(SocketAttribute.local_port)
        proxy.url = urlunsplit(parts._replace(netloc=f"127.0.0.1:{port}"))
        tasks.start_soon(listener.serve, proxy.serve)
        yield proxy
        tasks.cancel_scope.cancel()
