"""What becomes of claims: counted and let go, however long their queue does not answer."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field
from typing import TypeVar

import stamina

from ourvidz.ports import JobSource, QueueError
from ourvidz.service.health import Alarms, queue_answered, queue_failed

# The first pause after a queue that does not answer, and the longest: an answer to a user waits.
_RETRY_SECONDS = 0.5
_RETRY_SECONDS_MAX = 5.0
# Claims that were let go are remembered while somebody may still ask: for seconds.
_LEFT_MAX = 10_000

T = TypeVar("T")


@dataclass(slots=True)
class Claims:
    """The calls of ``source`` that a job's life cannot do without: each is repeated until the queue
    has taken it, with an alarm. Only who asks ends that, by being cancelled."""

    source: JobSource
    alarms: Alarms
    _left: dict[str, None] = field(default_factory=dict)

    async def acknowledge(self, claim_id: str) -> None:
        self._leave(claim_id)
        await self._done("acknowledge", lambda: self.source.acknowledge(claim_id))

    async def hand_back(self, claim_id: str) -> None:
        self._leave(claim_id)
        await self._done("hand back", lambda: self.source.hand_back(claim_id))

    async def dead_letter(self, claim_id: str, reason: str) -> None:
        self._leave(claim_id)
        await self._done("dead letter", lambda: self.source.dead_letter(claim_id, reason))

    async def count_attempt(self, claim_id: str) -> int:
        return await self._done("count", lambda: self.source.count_attempt(claim_id))

    def left(self, claim_id: str) -> bool:
        """Whether it is being, or was, let go: its lease need not be renewed and cannot be lost."""
        return claim_id in self._left

    def _leave(self, claim_id: str) -> None:
        self._left[claim_id] = None
        if len(self._left) > _LEFT_MAX:
            del self._left[next(iter(self._left))]

    async def _done(self, what: str, call: Callable[[], Awaitable[T]]) -> T:
        def failed(error: Exception) -> bool:
            if isinstance(error, QueueError):
                queue_failed(self.alarms, what, error)
            return isinstance(error, QueueError)

        async for attempt in stamina.retry_context(
            on=failed,
            attempts=None,
            timeout=None,
            wait_initial=_RETRY_SECONDS,
            wait_max=_RETRY_SECONDS_MAX,
        ):
            with attempt:
                result = await call()
        queue_answered(self.alarms)
        return result
