"""The queues' server over Redis' own protocol, ``redis://`` and ``rediss://``."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable, Iterator, Mapping, Sequence
from contextlib import asynccontextmanager, contextmanager
from typing import Any, Final

import anyio
from redis import exceptions as errors
from redis.asyncio import Redis
from redis.asyncio.retry import Retry
from redis.backoff import NoBackoff

from ourvidz.adapters.command_meter import CommandMeter
from ourvidz.adapters.queue_errors import passes, shown
from ourvidz.adapters.queue_shared import Argument
from ourvidz.ports import Clock, QueueRefused, QueueUnavailable

# Each waiter has a connection of its own; more than this many queues nobody has.
_CONNECTIONS_MAX: Final = 256
_KEEPALIVE_SECONDS: Final = 15
# Redis 6.2 rounds a millisecond down to nothing, which means for ever.
_WAIT_SECONDS_MIN: Final = 0.01


class RedisServer:
    """``queue_shared.ScriptServer``. Who waits holds a blocking move of the queue's head to its own
    place: it changes nothing and returns when there is something to move."""

    def __init__(
        self, commands: Redis, blocking: Redis, timeout_seconds: float, clock: Clock
    ) -> None:
        self._commands = commands
        self._blocking = blocking
        self._timeout_seconds = timeout_seconds
        self._meter = CommandMeter(clock)

    async def run(
        self,
        script: str,
        keys: Sequence[str],
        arguments: Sequence[Argument],
        *,
        element: bool = False,  # noqa: ARG002 - this protocol carries any bytes
    ) -> Any:
        self._meter.count()
        with _translated():
            reply = self._commands.eval(script, len(keys), *keys, *map(_encoded, arguments))
            # The library bounds each read alone: a reply that drips would never end.
            with anyio.fail_after(self._timeout_seconds):
                return await reply

    async def wait(self, queue: str, seconds: float) -> bool:
        self._meter.count()
        with _translated():
            # The server ends it; a connection that died without a word is given up here.
            with anyio.fail_after(seconds + self._timeout_seconds):
                timeout = max(seconds, _WAIT_SECONDS_MIN)
                execute: Any = self._blocking.execute_command
                return await execute("BLMOVE", queue, queue, "LEFT", "LEFT", timeout) is not None

    def claiming(self, queue: str) -> None:
        """Nothing is remembered between calls."""

    def claimed(self, queue: str) -> None:
        """As ``claiming``."""

    def snapshot(self) -> Mapping[str, Any]:
        per_minute = self._meter.per_minute()
        return {"kind": "redis", "wake": "blocking", "commands_per_minute": per_minute}


@asynccontextmanager
async def redis_server(
    url: str, timeout_seconds: float, clock: Clock
) -> AsyncIterator[RedisServer]:
    """Connects when it is first used."""
    commands = _client(url, timeout_seconds, timeout_seconds)
    # The library's own limit on a read would cut a blocking command off.
    blocking = _client(url, timeout_seconds, None)
    try:
        yield RedisServer(commands, blocking, timeout_seconds, clock)
    finally:
        with anyio.CancelScope(shield=True):
            await commands.aclose()
            await blocking.aclose()


def _client(url: str, connect_seconds: float, read_seconds: float | None) -> Redis:
    from_url: Callable[..., Redis] = Redis.from_url
    return from_url(
        url,
        protocol=2,
        max_connections=_CONNECTIONS_MAX,
        socket_connect_timeout=connect_seconds,
        socket_timeout=read_seconds,
        socket_keepalive=True,
        health_check_interval=_KEEPALIVE_SECONDS,
        # Repeats are ours: only we know what may be repeated.
        retry=Retry(NoBackoff(), 0),
        client_name="ourvidz",
    )


def _encoded(argument: Argument) -> bytes:
    return argument if isinstance(argument, bytes) else str(argument).encode()


@contextmanager
def _translated() -> Iterator[None]:
    try:
        yield
    except (errors.AuthenticationError, errors.AuthorizationError) as error:
        message = f"the Redis server does not accept the password of its URL: {shown(error)}"
        raise QueueRefused(message) from error
    except errors.ResponseError as error:
        message = f"the Redis server answered: {shown(error)}"
        # Some classes of the library leave the code out of their text.
        of_class = isinstance(error, errors.ReadOnlyError | errors.OutOfMemoryError)
        if of_class or passes(str(error)):
            raise QueueUnavailable(message) from error
        raise QueueRefused(message) from error
    except (errors.RedisError, TimeoutError, OSError) as error:
        raise QueueUnavailable(f"the Redis server does not answer: {shown(error)}") from error
