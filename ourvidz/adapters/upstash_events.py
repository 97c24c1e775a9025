"""Elements announced by the server: keyspace notifications over server-sent events."""

from __future__ import annotations

import random
from collections.abc import AsyncIterator, Sequence
from typing import Final
from uuid import uuid4

import anyio
import structlog

from ourvidz.adapters.queue_errors import shown
from ourvidz.adapters.queue_watch import QueueWatch
from ourvidz.adapters.upstash_rest import UpstashRest
from ourvidz.ports import QueueError, QueueRefused, QueueUnavailable

log = structlog.get_logger()

_CHANNEL: Final = "__keyspace@0__:"
_FLAGS: Final = "notify-keyspace-events"
# What becomes of a list without anything having come to it.
_LEAVING: Final = frozenset({"lpop", "rpop", "lrem", "ltrim", "lset", "del", "expired", "evicted"})
# An announcement on a server that makes any comes at once.
_PROBE_SECONDS: Final = 5.0
_RETRY_SECONDS: Final = 0.5
_RETRY_SECONDS_MAX: Final = 30.0
_PROBE: Final = """
redis.call('RPUSH', KEYS[1], '1')
return redis.call('DEL', KEYS[1])
"""


class UpstashEvents:
    """One stream a queue, where a probe shows that the server announces anything."""

    def __init__(
        self, rest: UpstashRest, queues: Sequence[str], watch: QueueWatch, jitter: random.Random
    ) -> None:
        self._rest = rest
        self._queues = tuple(queues)
        self._watch = watch
        self._jitter = jitter
        self._streams: dict[str, anyio.CancelScope] = {}
        watch.missed = self._renew

    async def run(self) -> None:
        """Probe, then announce for ever; returns if the server announces nothing."""
        if not await self._probed():
            log.info("queue_events_unavailable", instead="polling")
            return
        async with anyio.create_task_group() as tasks:
            for queue in self._queues:
                tasks.start_soon(self._follow, queue)

    async def _probed(self) -> bool:
        """Asked again until the server answers at all."""
        pause = _RETRY_SECONDS
        while True:
            try:
                return await self._probe()
            except QueueRefused as error:
                log.info("queue_events_refused", reason=shown(error))
                return False
            except QueueUnavailable:
                pause = await self._rest_a_while(pause)

    async def _probe(self) -> bool:
        await self._switch_on()
        key = f"ourvidz:probe:{uuid4().hex}"
        with anyio.move_on_after(_PROBE_SECONDS):
            async with self._rest.subscribed(_CHANNEL + key) as events:
                await anext(aiter(events), None)
                await self._rest.command("EVAL", _PROBE, 1, key)
                async for kind, payload in events:
                    if kind == "message" and payload == "rpush":
                        return True
        return False

    async def _switch_on(self) -> None:
        """Keyspace events of lists, beside whatever is switched on already. A server that does not
        let itself be configured may still announce them."""
        try:
            reply = await self._rest.command("CONFIG", "GET", _FLAGS)
            known = isinstance(reply, list) and len(reply) > 1 and isinstance(reply[1], bytes)
            flags = reply[1].decode() if known else ""
            missing = "" if "K" in flags else "K"
            missing += "" if "l" in flags or "A" in flags else "l"
            if missing:
                await self._rest.command("CONFIG", "SET", _FLAGS, flags + missing)
        except QueueRefused as error:
            log.info("queue_events_not_configurable", reason=shown(error))

    async def _follow(self, queue: str) -> None:
        """One stream after the other; there is no replay, so each begins with a claim."""
        pause = _RETRY_SECONDS
        while True:
            with anyio.CancelScope() as scope:
                self._streams[queue] = scope
                try:
                    async with self._rest.subscribed(_CHANNEL + queue) as events:
                        if await self._announce(queue, events):
                            pause = _RETRY_SECONDS
                except QueueError as error:
                    log.warning("queue_events_broke", queue=queue, reason=shown(error))
            self._watch.set_live(queue, False)
            pause = await self._rest_a_while(pause)

    async def _announce(self, queue: str, events: AsyncIterator[tuple[str, str]]) -> bool:
        """Until the stream ends; returns whether it had begun."""
        begun = False
        async for kind, payload in events:
            if kind == "subscribe":
                begun = True
                self._watch.set_live(queue, True)
            elif kind == "message" and payload not in _LEAVING:
                self._watch.announce(queue)
        return begun

    def _renew(self, queue: str) -> None:
        """A stream that said nothing of what came is dead, whatever its connection says."""
        log.warning("queue_events_missed", queue=queue)
        self._streams[queue].cancel()

    async def _rest_a_while(self, pause: float) -> float:
        """Returns the next pause."""
        await anyio.sleep(pause * (0.5 + self._jitter.random() / 2))
        return min(2 * pause, _RETRY_SECONDS_MAX)
