"""Redis behind HTTP as Upstash's REST API is, over a real Redis server, with faults on demand.

POST /                  ["CMD", "arg", ...]
POST /pipeline          [["CMD", ...], ...]      each its own result or error
POST /multi-exec        [["CMD", ...], ...]      all or nothing
POST /cmd/arg/...       the body, if there is one, is the last argument
POST /subscribe/CHANNEL, /psubscribe/PATTERN     server-sent events
"""

from __future__ import annotations

import base64
import contextlib
import socket
from collections import deque
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Self
from urllib.parse import parse_qs, unquote

import anyio
import orjson
import uvicorn
from redis.asyncio import Connection, Redis
from redis.exceptions import ResponseError
from support.redis_process import RedisProcess

TOKEN = "upstash-test-token"
BODY_BYTES_MAX = 10_000_000
_BLOCKING = {
    b"BLPOP", b"BRPOP", b"BLMOVE", b"BRPOPLPUSH", b"BLMPOP", b"BZPOPMIN", b"BZPOPMAX", b"BZMPOP",
    b"SUBSCRIBE", b"PSUBSCRIBE", b"MONITOR", b"WAIT", b"MULTI", b"EXEC", b"WATCH",
}  # fmt: skip
Message = Mapping[str, Any]
Receive = Callable[[], Awaitable[Message]]
Send = Callable[[Message], Awaitable[None]]
Command = list[bytes]


class BadRequest(Exception):
    pass


@dataclass(frozen=True, slots=True)
class Fault:
    """What becomes of one request that ``concerns`` fits. Executed or not, the reply is lost, or is
    ``status`` with ``body``."""

    execute: bool = False
    status: int | None = None
    body: bytes = b""
    headers: Mapping[str, str] = field(default_factory=dict)
    concerns: Callable[[str], bool] = lambda _: True


class UpstashFront:
    """``async with UpstashFront(redis) as front`` listens on a free port of 127.0.0.1.

    ``faults`` happen to the next requests, in order; ``commands`` are the requests that came, as
    text; ``streaming`` off answers subscriptions with 404.
    """

    def __init__(self, redis: RedisProcess, token: str = TOKEN, *, streaming: bool = True) -> None:
        self.token = token
        self.streaming = streaming
        self.faults: deque[Fault] = deque()
        self.commands: list[str] = []
        self.streams = 0
        self.changed = anyio.Condition()
        self._redis = redis
        self._drop = anyio.Event()
        self._lock = anyio.Lock()
        self._stack = contextlib.AsyncExitStack()

    async def __aenter__(self) -> Self:
        self._connection = Connection(port=self._redis.port, protocol=2)
        await self._connection.connect()
        self._stack.push_async_callback(self._connection.disconnect)
        self._events = Redis(port=self._redis.port, socket_timeout=None)
        self._stack.push_async_callback(self._events.aclose)
        await self._stack.enter_async_context(self._listening())
        return self

    async def __aexit__(self, *exc_info: object) -> None:
        await self._stack.aclose()

    def drop_streams(self) -> None:
        """Cut every stream of events off."""
        self._drop.set()
        self._drop = anyio.Event()

    async def until(self, condition: Callable[[], bool]) -> None:
        """Return once ``condition`` holds after a request or a stream has begun or ended."""
        async with self.changed:
            while not condition():
                await self.changed.wait()

    @contextlib.asynccontextmanager
    async def _listening(self) -> AsyncIterator[None]:
        # With the protocol named, asyncio sends an answer's head and body without a pause between.
        with socket.socket(socket.AF_INET, socket.SOCK_STREAM, socket.IPPROTO_TCP) as listener:
            listener.bind(("127.0.0.1", 0))
            listener.listen()
            self.url = f"http://127.0.0.1:{listener.getsockname()[1]}"
            server = _Server(
                uvicorn.Config(
                    self._app,
                    interface="asgi3",
                    log_config=None,
                    access_log=False,
                    lifespan="off",
                    timeout_graceful_shutdown=1,
                )
            )
            async with anyio.create_task_group() as tasks:
                tasks.start_soon(server.serve, [listener])
                try:
                    yield
                finally:
                    self.drop_streams()
                    server.should_exit = True

    async def _app(self, scope: Message, receive: Receive, send: Send) -> None:
        body = bytearray()
        while True:
            message = await receive()
            body += message.get("body", b"")
            if not message.get("more_body", False):
                break
        headers = {k.decode().lower(): v.decode("latin-1") for k, v in scope["headers"]}
        path = scope["raw_path"].decode().strip("/")
        query = parse_qs(scope["query_string"].decode())
        given = headers.get("authorization", "").removeprefix("Bearer ")
        given = given or query.get("_token", [""])[0]
        if given != self.token:
            error = "WRONGPASS invalid or missing auth token"
            await _answer(send, 401, {"error": error})
        elif scope["method"] not in ("GET", "POST", "HEAD", "PUT"):
            await _answer(send, 405, {"error": "ERR method not allowed"})
        elif len(body) > BODY_BYTES_MAX:
            await _answer(send, 413, {"error": "ERR max request size exceeded"})
        else:
            await self._serve(path, bytes(body), headers, receive, send)

    async def _serve(
        self, path: str, body: bytes, headers: Mapping[str, str], receive: Receive, send: Send
    ) -> None:
        first, _, rest = path.partition("/")
        request = f"{path} {body.decode(errors='replace')}"
        async with self.changed:
            self.commands.append(request)
            self.changed.notify_all()
        fault = None
        if self.faults and self.faults[0].concerns(request):
            fault = self.faults.popleft()
        if fault is not None and not fault.execute:
            await _break(send, fault)
            return
        if first in ("subscribe", "psubscribe"):
            await self._stream(first, unquote(rest), receive, send)
            return
        encode = _base64 if headers.get("upstash-encoding") == "base64" else _text
        try:
            status, answer = await self._answered(first, path, body, encode)
        except BadRequest as error:
            status, answer = 400, {"error": str(error)}
        if fault is not None:
            await _break(send, fault)
        else:
            await _answer(send, status, answer)

    async def _answered(
        self, first: str, path: str, body: bytes, encode: Callable[[bytes], str]
    ) -> tuple[int, Any]:
        if first in ("pipeline", "multi-exec"):
            commands = [_command(each) for each in _array(body)]
            if not commands:
                raise BadRequest("ERR empty pipeline request")
            run = self._pipeline if first == "pipeline" else self._transaction
            results = await run(commands)
            if isinstance(results, ResponseError):
                raise BadRequest(_message(results))
            return 200, [_result(each, encode) for each in results]
        if path:
            command = [unquote(part).encode() for part in path.split("/")]
            command += [body] if body else []
        else:
            command = _command(_array(body))
        (result,) = await self._pipeline([command])
        return (400 if isinstance(result, ResponseError) else 200), _result(result, encode)

    async def _pipeline(self, commands: Sequence[Command]) -> list[Any]:
        results = []
        for command in commands:
            name = command[0].upper()
            if name in _BLOCKING or (name == b"XREADGROUP" and b"BLOCK" in command):
                results.append(ResponseError(f"ERR Command is not available: {name.decode()}"))
                continue
            async with self._lock:
                results.append(await self._one(command))
        return results

    async def _transaction(self, commands: Sequence[Command]) -> Any:
        async with self._lock:
            await self._one([b"MULTI"])
            for command in commands:
                await self._one(command)
            return await self._one([b"EXEC"])

    async def _one(self, command: Command) -> Any:
        with anyio.CancelScope(shield=True):  # a reply that is not read would be the next one's
            await self._connection.send_command(*command)
            try:
                return await self._connection.read_response()
            except ResponseError as error:
                return error

    async def _stream(self, verb: str, channel: str, receive: Receive, send: Send) -> None:
        if not self.streaming:
            await _answer(send, 404, {"error": "ERR no such path"})
            return
        begin = [(b"content-type", b"text/event-stream")]
        await send({"type": "http.response.start", "status": 200, "headers": begin})
        drop = self._drop
        async with self._events.pubsub() as events, anyio.create_task_group() as tasks:

            async def leave(when: Callable[[], Awaitable[Any]]) -> None:
                await when()
                tasks.cancel_scope.cancel()

            tasks.start_soon(leave, receive)
            tasks.start_soon(leave, drop.wait)
            await (events.subscribe if verb == "subscribe" else events.psubscribe)(channel)
            await self._count_stream(1)
            try:
                async for event in events.listen():
                    parts = [event["type"], event["pattern"], event["channel"], event["data"]]
                    data = ",".join(_text_of(part) for part in parts if part is not None)
                    await send(
                        {
                            "type": "http.response.body",
                            "body": f"data: {data}\n\n".encode(),
                            "more_body": True,
                        }
                    )
            finally:
                with anyio.CancelScope(shield=True):
                    await self._count_stream(-1)

    async def _count_stream(self, difference: int) -> None:
        async with self.changed:
            self.streams += difference
            self.changed.notify_all()


class _Server(uvicorn.Server):
    @contextlib.contextmanager
    def capture_signals(self) -> Iterator[None]:
        """Signals belong to the process that hosts this."""
        yield


def _array(body: bytes) -> list[Any]:
    try:
        parsed = orjson.loads(body)
    except orjson.JSONDecodeError:
        raise BadRequest("ERR failed to parse the request body as JSON") from None
    if not isinstance(parsed, list) or not parsed:
        raise BadRequest("ERR the request body must be an array that is not empty")
    return parsed


def _command(parts: Any) -> Command:
    if not isinstance(parts, list) or not parts:
        raise BadRequest("ERR a command must be an array that is not empty")
    command = []
    for part in parts:
        if isinstance(part, str):
            command.append(part.encode())
        elif isinstance(part, int | float):
            command.append(orjson.dumps(part))
        else:
            raise BadRequest(f"ERR an argument must be a string or a number: {part!r}")
    return command


def _result(result: Any, encode: Callable[[bytes], str]) -> dict[str, Any]:
    if isinstance(result, ResponseError):
        return {"error": _message(result)}
    if result == b"OK":
        return {"result": "OK"}
    return {"result": _encoded(result, encode)}


def _encoded(result: Any, encode: Callable[[bytes], str]) -> Any:
    if isinstance(result, list):
        return [_encoded(each, encode) for each in result]
    if isinstance(result, ResponseError):
        return _message(result)
    return encode(result) if isinstance(result, bytes) else result


def _message(error: ResponseError) -> str:
    """The library takes the code ERR off."""
    text = str(error)
    return text if text.split(" ", maxsplit=1)[0].isupper() else f"ERR {text}"


def _base64(raw: bytes) -> str:
    return base64.b64encode(raw).decode()


def _text(raw: bytes) -> str:
    return raw.decode(errors="replace")


def _text_of(part: Any) -> str:
    return _text(part) if isinstance(part, bytes) else str(part)


async def _answer(send: Send, status: int, answer: Any) -> None:
    await _send_whole(send, status, orjson.dumps(answer), {"content-type": "application/json"})


async def _break(send: Send, fault: Fault) -> None:
    if fault.status is not None:
        await _send_whole(send, fault.status, fault.body, fault.headers)
        return
    # The promised body never comes: the server closes the connection.
    length = [(b"content-length", b"1000")]
    await send({"type": "http.response.start", "status": 200, "headers": length})


async def _send_whole(send: Send, status: int, body: bytes, headers: Mapping[str, str]) -> None:
    encoded = [(k.encode(), v.encode()) for k, v in headers.items()]
    await send({"type": "http.response.start", "status": status, "headers": encoded})
    await send({"type": "http.response.body", "body": body})
