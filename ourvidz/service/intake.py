"""Claiming: one consumer a queue, only while the scheduler can use what it claims."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial
from uuid import uuid4

import anyio
import anyio.lowlevel
import stamina
from anyio.abc import TaskGroup

from ourvidz.config.settings import Intake as IntakeSettings
from ourvidz.config.settings import Queue
from ourvidz.ports import Claimed, JobSource, QueueError
from ourvidz.service.active import Roster
from ourvidz.service.delivery import Delivery
from ourvidz.service.disk import Disk
from ourvidz.service.engine import Engine
from ourvidz.service.flow import Flow
from ourvidz.service.health import Alarms, queue_answered, queue_failed
from ourvidz.service.pauses import Backoff
from ourvidz.service.signal import Signal

# The first pause after a queue that does not answer; it grows up to the time of a poll.
_RETRY_SECONDS = 0.5
# What the queues are asked for once at the start, as an alarm's cause.
RECOVER = "recover"


@dataclass(slots=True)
class Intake:
    """Consumes the queues concurrently. ``stop`` ends claiming; jobs already claimed go on.
    ``recovered`` once what an earlier process held was let go: nothing is claimed before.
    ``aside`` are those of its claims whose jobs were not on the device when it died."""

    source: JobSource
    engine: Engine
    roster: Roster
    flow: Flow
    delivery: Delivery
    queues: Mapping[str, Queue]
    settings: IntakeSettings
    undelivered_max: int
    room: Signal
    disk: Disk
    alarms: Alarms
    aside: Sequence[str] = ()
    recovered: bool = False
    _scope: anyio.CancelScope = field(default_factory=anyio.CancelScope)

    async def run(self, jobs: TaskGroup) -> None:
        """Consume every queue until ``stop``; each job becomes a task of ``jobs``."""
        with self._scope:
            async for attempt in stamina.retry_context(on=self._not_recovered, **self._patience()):
                with attempt:
                    await self.recover()
            async with anyio.create_task_group() as consumers:
                for name in self.queues:
                    consumers.start_soon(self._consume, name, jobs)

    async def recover(self) -> None:
        """Let go what an earlier process held, once. Raises ``QueueError``."""
        if not self.recovered:
            # Each goes to the head of its queue, with the attempt that it had used taken back.
            for claim_id in self.aside:
                await self.source.hand_back(claim_id)
            await self.source.recover()
            queue_answered(self.alarms, RECOVER)
            self.recovered = True

    def stop(self) -> None:
        """Claim nothing more. A claim that is under way counts in the roster until it has come to
        nothing or its job has ended."""
        self._scope.cancel()

    async def _consume(self, queue: str, jobs: TaskGroup) -> None:
        while True:
            # A claim whose reply is lost is asked for again under the same id: it returns the same.
            claim_id = uuid4().hex
            failed = partial(self._unavailable, _claim_of(queue))
            async for attempt in stamina.retry_context(on=failed, **self._patience()):
                with attempt:
                    await self._wait_for_room(queue)
                    claimed = await self._claim(queue, claim_id, jobs)
                    queue_answered(self.alarms, _claim_of(queue))
                    while not claimed and not await self._came(queue):
                        queue_answered(self.alarms, _claim_of(queue))

    def _patience(self) -> Backoff:
        return {
            "attempts": None,
            "timeout": None,
            "wait_initial": _RETRY_SECONDS,
            "wait_max": self.settings.poll_seconds,
            "wait_jitter": _RETRY_SECONDS,
        }

    def _not_recovered(self, error: Exception) -> bool:
        if isinstance(error, QueueError):
            queue_failed(self.alarms, RECOVER, error)
        return isinstance(error, QueueError)

    async def _came(self, queue: str) -> bool:
        return await self.source.wait(queue, self.settings.poll_seconds)

    def _unavailable(self, what: str, error: BaseException) -> bool:
        """Claiming outlives a queue that does not answer; it does not outlive being cancelled."""
        if not isinstance(error, Exception):
            return False
        queue_failed(self.alarms, what, error)
        return True

    async def _claim(self, queue: str, claim_id: str, jobs: TaskGroup) -> bool:
        """Claim one job and start its life; false if the queue is empty.

        Shielded: a claim that was made must not be lost to a stop in the same moment. The claim is
        counted before it is made: consumers that see room at the same time must not share it.
        """
        self.roster.take(queue)
        claimed: Claimed | None = None
        try:
            with anyio.CancelScope(shield=True):
                claimed = await self.source.claim(queue, claim_id, self.settings.lease_seconds)
        finally:
            if claimed is None:
                self.roster.give_back(queue)
            else:
                jobs.start_soon(self.flow.run, claimed)  # gives back when it ends
        return claimed is not None

    async def _wait_for_room(self, queue: str) -> None:
        # Where there is room and the queue is never empty, a stop would be seen nowhere else: the
        # claim is shielded.
        await anyio.lowlevel.checkpoint()
        changed = self.room.ticket
        while not self._has_room(queue):
            await changed.wait()
            changed = self.room.ticket

    def _has_room(self, queue: str) -> bool:
        """Claims go no deeper than the scheduler, this queue, the outbox and the disk can take."""
        return (
            not self.disk.full
            and self.roster.held(queue) < self.queues[queue].claims_max
            and self.delivery.pending < self.undelivered_max
            and self.engine.credit() > self.roster.preparing()
        )


def _claim_of(queue: str) -> str:
    return f"claim of {queue}"
