"""The queues' server over Upstash's REST API."""

from __future__ import annotations

import random
from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import asynccontextmanager
from typing import Any, Final

import anyio
import httpx

from ourvidz.adapters.queue_scripts import DEPTHS
from ourvidz.adapters.queue_shared import Argument
from ourvidz.adapters.queue_watch import Pauses, QueueWatch
from ourvidz.adapters.upstash_events import UpstashEvents
from ourvidz.adapters.upstash_rest import UpstashRest
from ourvidz.ports import Clock, QueueUnavailable

# Each queue has a stream; beside those a claim, a renewal and the like may be under way for each.
_CONNECTIONS_MAX: Final = 256


class UpstashServer:
    """``queue_shared.ScriptServer``. All queues are looked at in one request."""

    def __init__(
        self, rest: UpstashRest, queues: Sequence[str], pauses: Pauses, jitter: random.Random
    ) -> None:
        self.rest = rest
        self.watch = QueueWatch(self._depths, queues, pauses, jitter)

    async def run(
        self,
        script: str,
        keys: Sequence[str],
        arguments: Sequence[Argument],
        *,
        element: bool = False,
    ) -> Any:
        return await self.rest.command(
            "EVAL", script, len(keys), *keys, *map(_text, arguments), element=element
        )

    async def wait(self, queue: str, seconds: float) -> bool:
        return await self.watch.wait(queue, seconds)

    def claiming(self, queue: str) -> None:
        self.watch.claiming(queue)

    def claimed(self, queue: str) -> None:  # noqa: ARG002 - any queue tells that jobs come
        self.watch.hurry()

    def snapshot(self) -> Mapping[str, Any]:
        wake = "events" if self.watch.announced else "polling"
        per_minute = self.rest.meter.per_minute()
        return {"kind": "upstash", "wake": wake, "commands_per_minute": per_minute}

    async def _depths(self, queues: Sequence[str]) -> Sequence[int]:
        reply: list[int] = await self.rest.command("EVAL", DEPTHS, len(queues), *queues)
        sound = isinstance(reply, list) and len(reply) == len(queues)
        if not sound or not all(isinstance(depth, int) for depth in reply):
            raise QueueUnavailable("Upstash gave a reply that its script does not give")
        return reply


@asynccontextmanager
async def upstash_server(
    url: str,
    token: str,
    queues: Sequence[str],
    timeout_seconds: float,
    clock: Clock,
    pauses: Pauses,
    *,
    events: bool,
) -> AsyncIterator[UpstashServer]:
    """Looks while the block lasts. ``events``: take the server's announcements if it makes any."""
    jitter = random.Random()  # noqa: S311 - keeps out of step, guards nothing
    limits = httpx.Limits(max_connections=_CONNECTIONS_MAX)
    async with (
        httpx.AsyncClient(trust_env=False, follow_redirects=False, limits=limits) as client,
        anyio.create_task_group() as tasks,
    ):
        server = UpstashServer(
            UpstashRest(url, token, timeout_seconds, client, clock), queues, pauses, jitter
        )
        tasks.start_soon(server.watch.run)
        if events:
            tasks.start_soon(UpstashEvents(server.rest, queues, server.watch, jitter).run)
        yield server
        tasks.cancel_scope.cancel()


def _text(argument: Argument) -> str:
    return argument.decode() if isinstance(argument, bytes) else str(argument)
