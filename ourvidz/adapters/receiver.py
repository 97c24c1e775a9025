"""A backend's side of the callbacks, on loopback: for the demo and for tests."""

from __future__ import annotations

import contextlib
import socket
import time
from collections import deque
from collections.abc import (
    AsyncIterator,
    Awaitable,
    Callable,
    Iterable,
    Iterator,
    Mapping,
    Sequence,
)
from contextlib import AsyncExitStack
from dataclasses import dataclass, field
from typing import Any, Self

import anyio
import orjson
import uvicorn

from ourvidz.adapters.signatures import CallbackSigner

PATH = "/functions/v1/job-callback"
CALLBACKS_MAX = 10_000
BODY_BYTES_MAX = 16 * 1024 * 1024
SHUTDOWN_SECONDS_MAX = 5

Message = Mapping[str, Any]
Receive = Callable[[], Awaitable[Message]]
Send = Callable[[Message], Awaitable[None]]


@dataclass(frozen=True, slots=True)
class Answer:
    """How one callback is answered. ``body`` replaces the JSON that the backend would send."""

    status: int = 200
    skipped: bool = False
    delay_seconds: float = 0.0
    headers: Mapping[str, str] = field(default_factory=dict)
    body: bytes | None = None


@dataclass(frozen=True, slots=True)
class ReceivedCallback:
    """``status`` is the job's status in the body, ``answered`` the HTTP status given for it, and
    ``skipped`` if the answer says so. ``body`` is the parsed JSON, or ``None`` where it was none;
    ``headers`` are in lower case. ``at`` is when it came, on the machine's monotonic clock."""

    status: str | None
    signature_valid: bool
    answered: int
    body: Any
    raw: bytes
    headers: Mapping[str, str]
    skipped: bool
    at: float


class Receiver:
    """``async with Receiver(secret) as receiver`` listens on a free port of 127.0.0.1.

    ``answers`` are given in order, then 200 for each further callback. A wrong signature is
    answered 401 and uses none up. The last ``CALLBACKS_MAX`` are kept.
    """

    def __init__(self, secret: str, answers: Iterable[Answer] = ()) -> None:
        self._signer = CallbackSigner(secret)
        self._answers = deque(answers)
        self._callbacks: deque[ReceivedCallback] = deque(maxlen=CALLBACKS_MAX)
        self._arrived = anyio.Condition()
        self._stack = AsyncExitStack()
        self._url = ""

    @property
    def url(self) -> str:
        """Where callbacks are to be posted; known once it listens."""
        return self._url

    @property
    def callbacks(self) -> Sequence[ReceivedCallback]:
        """What has arrived, in order."""
        return tuple(self._callbacks)

    def reset(self, answers: Iterable[Answer] = ()) -> None:
        """Forget what has arrived, and give these answers from here on."""
        self._callbacks.clear()
        self._answers = deque(answers)

    async def until(self, condition: Callable[[Sequence[ReceivedCallback]], bool]) -> None:
        """Return once the callbacks that have arrived meet ``condition``."""
        async with self._arrived:
            while not condition(self.callbacks):
                await self._arrived.wait()

    async def __aenter__(self) -> Self:
        await self._stack.enter_async_context(self._listening())
        return self

    async def __aexit__(self, *exc_info: object) -> None:
        await self._stack.aclose()

    @contextlib.asynccontextmanager
    async def _listening(self) -> AsyncIterator[None]:
        with socket.create_server(("127.0.0.1", 0)) as listener:
            self._url = f"http://127.0.0.1:{listener.getsockname()[1]}{PATH}"
            server = _Server(
                uvicorn.Config(
                    self._app,
                    interface="asgi3",
                    log_config=None,
                    access_log=False,
                    lifespan="off",
                    timeout_graceful_shutdown=SHUTDOWN_SECONDS_MAX,
                )
            )
            async with anyio.create_task_group() as tasks:
                tasks.start_soon(server.serve, [listener])
                try:
                    yield
                finally:
                    server.should_exit = True

    async def _app(self, scope: Message, receive: Receive, send: Send) -> None:
        if scope["type"] != "http" or scope["method"] != "POST" or scope["path"] != PATH:
            await _respond(send, Answer(status=404))
            return
        headers = {name.decode("latin-1"): v.decode("latin-1") for name, v in scope["headers"]}
        raw = await _read(receive)
        if raw is None:
            await _respond(send, Answer(status=413))
            return
        answer = await self._record(headers, raw)
        if answer.delay_seconds:
            await anyio.sleep(answer.delay_seconds)
        await _respond(send, answer)

    async def _record(self, headers: Mapping[str, str], raw: bytes) -> Answer:
        at = time.monotonic()
        valid = self._signer.verify(dict(headers), raw)
        try:
            body = orjson.loads(raw)
        except orjson.JSONDecodeError:
            body = None
        answer = self._answer(body) if valid else Answer(status=401)
        status = body.get("status") if isinstance(body, dict) else None
        async with self._arrived:
            self._callbacks.append(
                ReceivedCallback(
                    status, valid, answer.status, body, raw, headers, answer.skipped, at
                )
            )
            self._arrived.notify_all()
        return answer

    def _answer(self, body: Any) -> Answer:  # noqa: ARG002 - for subclasses
        """What a callback with a valid signature is answered."""
        return self._answers.popleft() if self._answers else Answer()


class _Server(uvicorn.Server):
    @contextlib.contextmanager
    def capture_signals(self) -> Iterator[None]:
        """Signals belong to the process that hosts this."""
        yield


async def _read(receive: Receive) -> bytes | None:
    body = bytearray()
    while True:
        message = await receive()
        body += message.get("body", b"")
        if len(body) > BODY_BYTES_MAX or message["type"] != "http.request":
            return None
        if not message.get("more_body", False):
            return bytes(body)


async def _respond(send: Send, answer: Answer) -> None:
    body = answer.body
    if body is None:
        body = orjson.dumps({"success": answer.status < 400, "skipped": answer.skipped})
    headers = {"content-type": "application/json", **answer.headers}
    encoded = [(name.encode("latin-1"), v.encode("latin-1")) for name, v in headers.items()]
    await send({"type": "http.response.start", "status": answer.status, "headers": encoded})
    await send({"type": "http.response.body", "body": body})
