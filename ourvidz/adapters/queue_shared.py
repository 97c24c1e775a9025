"""Durable queues with leases on a Redis server that several workers share."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final, Protocol, TypeVar
from uuid import uuid4

import stamina
import structlog
from pydantic import TypeAdapter

from ourvidz.adapters import queue_replies as replies
from ourvidz.adapters import queue_scripts as scripts
from ourvidz.ports import (
    Claimed,
    DeadLetter,
    PopSide,
    QueueFull,
    QueueUnavailable,
    Standing,
)

log = structlog.get_logger()

Argument = str | bytes | int
T = TypeVar("T")

# A call that the server did not answer is repeated, as each may be, within a lease's renewal.
_ATTEMPTS: Final = 4
_RETRY_SECONDS: Final = 0.1
_RETRY_SECONDS_MAX: Final = 2.0
# How long a push is remembered: longer than its repeats can take.
_PUSH_SECONDS: Final = 600
# How long it is remembered which job somebody has or had: producers repeat within minutes.
_JOB_SECONDS: Final = 86_400
# Neither a queue's server nor whoever stands before it carries more in one reply; a payload that is
# a tenth of it is refused, unless it is configured otherwise.
_ELEMENT_BYTES_MAX: Final = 8_000_000
_TOO_LARGE: Final = f"the element has more than {_ELEMENT_BYTES_MAX} bytes"
# Expired leases that are put back in one go; what is left is looked for again at once.
_EXPIRED_MAX: Final = 500


@dataclass(frozen=True, slots=True)
class Bounds:
    """Elements of a queue: some days of work. Dead letters, and their bytes: they are for a person
    to read, and older ones go."""

    elements: int = 100_000
    dead_letters: int = 10_000
    dead_letters_bytes: int = 256 * 1024 * 1024


class ScriptServer(Protocol):
    """A Redis server. What it raises are ``QueueError``s."""

    async def run(
        self,
        script: str,
        keys: Sequence[str],
        arguments: Sequence[Argument],
        *,
        element: bool = False,
    ) -> Any:
        """Run one script: integers, bytes and lists of them. ``element`` where the reply begins
        with ``scripts.ELEMENT_MARK`` and carries an element, which may hold any bytes."""

    async def wait(self, queue: str, seconds: float) -> bool:
        """As ``ports.JobSource.wait``."""

    def claiming(self, queue: str) -> None:
        """A claim is about to be made; what was announced before is taken into account."""

    def claimed(self, queue: str) -> None:
        """A claim has found something."""

    def snapshot(self) -> Mapping[str, Any]:
        """As ``ports.JobSource.snapshot``."""


class SharedQueues:
    """``ports.JobSource`` over a Redis server. ``owner`` is this worker's alone, for good."""

    def __init__(
        self,
        server: ScriptServer,
        owner: str,
        pop_sides: Mapping[str, PopSide],
        bounds: Bounds = Bounds(),
    ) -> None:
        self._server = server
        self._owner = owner
        self._pop_sides = dict(pop_sides)
        self._bounds = bounds
        # Of the claims that are held here.
        self._queues: dict[str, str] = {}
        self._jobs: dict[str, str] = {}

    async def recover(self) -> int:
        """At start: only what this very worker held; another's leases are its own affair."""
        found = await self._run(replies.FOUND, scripts.OWNED, [scripts.CLAIMS], [self._owner])
        return await self._put_back(found, "owned")

    async def push(self, queue: str, raw: bytes) -> None:
        self._pop_sides[queue]
        keys = [queue, scripts.CLAIMS, scripts.pushed_key(uuid4().hex)]
        limit = self._bounds.elements
        arguments: list[Argument] = [*_as_text(raw), limit, _PUSH_SECONDS]
        if not await self._run(replies.COUNT, scripts.PUSH, keys, arguments):
            raise QueueFull(f"{queue} holds {limit} elements, as many as it may")

    async def claim(self, queue: str, claim_id: str, lease_seconds: float) -> Claimed | None:
        """Not repeated here: who claims repeats it with the same ``claim_id``."""
        side = self._pop_sides[queue]
        self._server.claiming(queue)
        keys = [queue, scripts.attempts_key(queue), *_BOOKS, scripts.COUNTERS, scripts.DEAD]
        claim: list[Argument] = [claim_id, self._owner, _milliseconds(lease_seconds), side]
        arguments = [*claim, _ELEMENT_BYTES_MAX, _TOO_LARGE, *self._letters()]
        while True:
            reply = await self._run(
                replies.CLAIMED, scripts.CLAIM, keys, arguments, element=True, attempts=1
            )
            if not reply:
                return None
            _, found_in, attempts, raw = reply
            if attempts >= 0:
                break
            log.error("element_too_large", queue=queue, size_bytes=int(raw))
        self._queues[claim_id] = found_in.decode()
        self._server.claimed(queue)
        return Claimed(found_in.decode(), claim_id, raw, attempts)

    def _letters(self) -> tuple[int, int]:
        return self._bounds.dead_letters, self._bounds.dead_letters_bytes

    async def mark(self, claim_id: str | None, job: str, digest: str) -> Standing:
        keys = [scripts.job_key(job), scripts.CLAIMS]
        arguments: list[Argument] = [claim_id or "", self._owner, digest, _JOB_SECONDS]
        reply = await self._run(replies.STANDING, scripts.MARK, keys, arguments)
        standing = Standing(reply.decode())
        if claim_id is not None and standing is Standing.FREE:
            self._jobs[claim_id] = job
        return standing

    async def wait(self, queue: str, seconds: float) -> bool:
        self._pop_sides[queue]
        return await self._server.wait(queue, seconds)

    async def renew(self, claim_ids: Sequence[str], lease_seconds: float) -> frozenset[str]:
        arguments: list[Argument] = [_milliseconds(lease_seconds), *claim_ids]
        places = await self._run(replies.PLACES, scripts.RENEW, [scripts.LEASES], arguments)
        lost = frozenset(claim_ids[place - 1] for place in places if place <= len(claim_ids))
        for claim_id in lost:
            self._forget(claim_id)
        return lost

    async def acknowledge(self, claim_id: str) -> None:
        keys = [*_BOOKS, self._job_key(claim_id)]
        await self._run(replies.COUNT, scripts.ACKNOWLEDGE, keys, [claim_id, _JOB_SECONDS])
        self._forget(claim_id)

    async def hand_back(self, claim_id: str) -> None:
        queue = self._queues.get(claim_id)
        if queue is None:
            found = await self._run(replies.TEXTS, scripts.QUEUE_OF, [scripts.CLAIMS], [claim_id])
            if not found:
                return
            queue = found[0].decode()
        await self._put_back([claim_id.encode(), b"0", queue.encode()], "back")
        self._forget(claim_id)

    async def count_attempt(self, claim_id: str) -> int:
        arguments = [claim_id, uuid4().hex]
        return await self._run(replies.COUNT, scripts.COUNT, [scripts.CLAIMS], arguments)

    async def dead_letter(self, claim_id: str, reason: str) -> None:
        # A reason may quote what is no text; the server's messages are UTF-8.
        shown = reason.encode("utf-8", "replace").decode()
        keys = [*_BOOKS, scripts.DEAD, scripts.COUNTERS, self._job_key(claim_id)]
        arguments: list[Argument] = [claim_id, shown, *self._letters(), _JOB_SECONDS]
        await self._run(replies.COUNT, scripts.DEAD_LETTER, keys, arguments)
        self._forget(claim_id)

    async def dead_letters(self, limit: int) -> Sequence[DeadLetter]:
        arguments = [limit, replies.LETTER_BYTES]
        found = await self._run(
            replies.LETTERS, scripts.DEAD_LETTERS, [scripts.DEAD], arguments, element=True
        )
        return replies.dead_letters(found)

    async def reap(self) -> int:
        count = 0
        while True:
            keys = [scripts.CLAIMS, scripts.LEASES]
            found = await self._run(replies.FOUND, scripts.EXPIRED, keys, [_EXPIRED_MAX])
            count += await self._put_back(found, "expired")
            if len(found) < 3 * _EXPIRED_MAX:
                return count

    def snapshot(self) -> Mapping[str, Any]:
        return self._server.snapshot()

    def _job_key(self, claim_id: str) -> str:
        """The marker of the claim's job; of nothing where it was not said which one that is."""
        return scripts.job_key(self._jobs.get(claim_id, ""))

    def _forget(self, claim_id: str) -> None:
        self._queues.pop(claim_id, None)
        self._jobs.pop(claim_id, None)

    async def _put_back(self, found: Sequence[bytes], why: str) -> int:
        """Claims with their numbers and queues, as the scripts list them, each to the head of its
        queue: the last claimed first, so that they are taken in their old order."""
        claims: defaultdict[str, list[tuple[int, str]]] = defaultdict(list)
        for claim, number, name in zip(found[::3], found[1::3], found[2::3], strict=True):
            claims[name.decode()].append((int(number), claim.decode()))
        count = 0
        for queue, numbered in claims.items():
            side = self._pop_sides.get(queue, "left")
            in_order = [claim for _, claim in sorted(numbered, reverse=True)]
            keys = [queue, scripts.attempts_key(queue), *_BOOKS]
            arguments = [side, why, self._owner, *in_order]
            count += await self._run(replies.COUNT, scripts.PUT_BACK, keys, arguments)
        return count

    async def _run(
        self,
        form: TypeAdapter[T],
        script: str,
        keys: Sequence[str],
        arguments: Sequence[Argument],
        *,
        element: bool = False,
        attempts: int = _ATTEMPTS,
    ) -> T:
        """One script's reply, after as many attempts as it takes and may."""
        async for attempt in stamina.retry_context(
            on=QueueUnavailable,
            attempts=attempts,
            wait_initial=_RETRY_SECONDS,
            wait_max=_RETRY_SECONDS_MAX,
        ):
            with attempt:
                reply = await self._server.run(script, keys, arguments, element=element)
                return replies.read(form, reply)
        raise AssertionError("the last attempt returns or raises")


_BOOKS: Final = [scripts.HELD, scripts.CLAIMS, scripts.LEASES]


def _milliseconds(seconds: float) -> int:
    return round(seconds * 1000)


def _as_text(raw: bytes) -> tuple[str, str]:
    """An element as an argument that any server takes, some of which speak nothing but JSON, and
    how it is spelled."""
    try:
        return raw.decode(), "plain"
    except UnicodeDecodeError:
        return raw.hex(), "hex"
