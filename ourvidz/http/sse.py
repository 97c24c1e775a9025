"""A job's events as server-sent events, in the form of the HTML standard.

``id`` is the event's number, which a client gives back as ``Last-Event-ID``; ``event`` is status,
progress, delta, asset or end; ``data`` is one JSON object. Where the history after that number is
not known any more, the first event is a ``status`` that holds the job's present state. Comments
keep an idle connection alive. The stream is over after ``end``; it is cut without one when the
server stops, and a client that comes back goes on where it was.
"""

from __future__ import annotations

from collections.abc import AsyncGenerator, Mapping
from contextlib import aclosing
from typing import Any

import anyio
import orjson
from anyio.abc import TaskGroup
from fastapi.sse import KEEPALIVE_COMMENT, format_sse_event
from starlette.responses import Response
from starlette.types import Receive, Scope, Send

from ourvidz.http.facade import Log
from ourvidz.http.open_requests import OpenRequests
from ourvidz.service.events import JobEvent

# A client that reads nothing for so long has stalled; its connection is dropped.
SEND_SECONDS_MAX = 30.0
_ID_DIGITS_MAX = 18
_TERMINAL = frozenset({"completed", "failed", "cancelled"})
_SNAPSHOT = ("status", "progress", "queue_position", "eta_seconds")
_END = ("status", "output", "error")


def ended(resource: Mapping[str, Any]) -> bool:
    return resource["status"] in _TERMINAL


def last_event_id(header: str | None) -> int | None:
    """The number of the last event that the client has; 0 for a new client, ``None`` for one that
    was never given out."""
    if header is None or header == "":
        return 0
    known = header.isascii() and header.isdecimal() and len(header) <= _ID_DIGITS_MAX
    return int(header) if known else None


def seen_to_the_end(log: Log | None, last_id: int | None) -> bool:
    """Whether the client has the ``end`` event already."""
    return log is not None and log.ended and last_id == log.last_id


async def events(
    resource: Mapping[str, Any], log: Log | None, newest: int, last_id: int | None
) -> AsyncGenerator[bytes, None]:
    """What a client is sent that has the events up to ``last_id``, encoded.

    ``resource`` is the job at some time after ``newest`` was the log's last event.
    """
    if log is not None and last_id is not None and log.covers(last_id) and log.last_id:
        async with aclosing(log.follow(last_id)) as following:
            async for event in following:
                yield encode(event)
        return
    if ended(resource) or log is None:
        yield _encode("end", {name: resource[name] for name in _END}, None)
        return
    yield _encode("status", {name: resource[name] for name in _SNAPSHOT}, newest)
    async with aclosing(log.follow(newest)) as following:
        async for event in following:
            yield encode(event)


def encode(event: JobEvent) -> bytes:
    return _encode(event.name, event.data, event.id)


def _encode(name: str, data: Mapping[str, Any], event_id: int | None) -> bytes:
    number = None if event_id is None else str(event_id)
    return format_sse_event(event=name, data_str=orjson.dumps(data).decode(), id=number)


class EventStream(Response):
    """Sends ``frames`` until they end, the client leaves or the server stops."""

    media_type = "text/event-stream"

    def __init__(
        self,
        frames: AsyncGenerator[bytes, None],
        requests: OpenRequests,
        ping_seconds: float,
        send_seconds_max: float = SEND_SECONDS_MAX,
    ) -> None:
        self.status_code = 200
        self.background = None
        self.init_headers({"Cache-Control": "no-store", "X-Accel-Buffering": "no"})
        self._frames = frames
        self._requests = requests
        self._ping_seconds = ping_seconds
        self._send_seconds_max = send_seconds_max
        self._stalled = False

    async def __call__(
        self,
        scope: Scope,  # noqa: ARG002 - ASGI's signature
        receive: Receive,
        send: Send,
    ) -> None:
        start = {
            "type": "http.response.start",
            "status": self.status_code,
            "headers": self.raw_headers,
        }
        await send(start)
        async with aclosing(self._frames), self._requests.hold(receive) as tasks:
            tasks.start_soon(self._ping, send, tasks)
            async for frame in self._frames:
                await self._send(send, frame, tasks)
        if not self._stalled:
            await send({"type": "http.response.body", "body": b"", "more_body": False})

    async def _ping(self, send: Send, tasks: TaskGroup) -> None:
        while True:
            await anyio.sleep(self._ping_seconds)
            await self._send(send, KEEPALIVE_COMMENT, tasks)

    async def _send(self, send: Send, body: bytes, tasks: TaskGroup) -> None:
        with anyio.move_on_after(self._send_seconds_max) as sending:
            await send({"type": "http.response.body", "body": body, "more_body": True})
        if sending.cancelled_caught:
            self._stalled = True
            tasks.cancel_scope.cancel()
