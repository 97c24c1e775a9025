"""What becomes of claims: counted and let go, however long their queue does not answer."""

from __future__ import annotations

import hashlib
import logging
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field
from typing import TypeVar

import stamina
import structlog

from ourvidz.jobs import InvalidJob, JobSpec
from ourvidz.ports import Claimed, JobSource, QueueError, Standing
from ourvidz.service.health import Alarms, queue_answered, queue_failed
from ourvidz.wire import is_uuid, job_key

log = structlog.get_logger()

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

    async def first(self, claimed: Claimed, parsed: JobSpec | InvalidJob) -> bool:
        """Whether no other worker has to do with this job. Else the element, which a producer
        pushed once more, is let go of: the job's own is that worker's, or comes back to its
        queue."""
        if parsed.id is None:
            return True
        standing = await self._mark(claimed.claim_id, str(parsed.id), parsed.digest)
        if standing is Standing.FREE:
            return True
        other = standing is Standing.OTHER_BODY
        log.log(
            logging.ERROR if other else logging.INFO,
            "job_elsewhere",
            job=str(parsed.id),
            queue=claimed.queue,
            standing=standing.value,
        )
        if other:
            await self.dead_letter(claimed.claim_id, "same id, another body, at another worker")
        elif isinstance(parsed, InvalidJob):
            await self.dead_letter(claimed.claim_id, "answered by another worker")
        else:
            await self.acknowledge(claimed.claim_id)
        return False

    async def withdraw(self, spec: JobSpec) -> bool:
        """Whether no other worker has, or had, a job that is in no worker's hands as far as this
        one knows. If so none will run it from here on."""
        return await self._mark(None, str(spec.id), spec.digest) is Standing.FREE

    async def _mark(self, claim_id: str | None, job_id: str, digest: str) -> Standing:
        return await self._done("mark", lambda: self.source.mark(claim_id, _name(job_id), digest))

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

        try:
            async for attempt in stamina.retry_context(
                on=failed,
                attempts=None,
                timeout=None,
                wait_initial=_RETRY_SECONDS,
                wait_max=_RETRY_SECONDS_MAX,
            ):
                with attempt:
                    result = await call()
        finally:
            queue_answered(self.alarms, what)
        return result


def _name(job_id: str) -> str:
    """``job_key``, but short for what is no UUID."""
    key = job_key(job_id)
    return key if is_uuid(key) else hashlib.sha256(job_id.encode(errors="replace")).hexdigest()
