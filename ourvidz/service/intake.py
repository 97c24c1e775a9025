"""Claiming: one consumer a queue, only while the scheduler can use what it claims."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from uuid import uuid4

import anyio
import structlog
from anyio.abc import TaskGroup

from ourvidz.config.settings import Intake as IntakeSettings
from ourvidz.config.settings import Queue
from ourvidz.ports import JobSource
from ourvidz.service.active import Roster
from ourvidz.service.delivery import Delivery
from ourvidz.service.engine import Engine
from ourvidz.service.flow import Flow
from ourvidz.service.signal import Signal

log = structlog.get_logger()


@dataclass(slots=True)
class Intake:
    """Consumes the queues concurrently. ``stop`` ends claiming; jobs already claimed go on."""

    source: JobSource
    engine: Engine
    roster: Roster
    flow: Flow
    delivery: Delivery
    queues: Mapping[str, Queue]
    settings: IntakeSettings
    undelivered_max: int
    room: Signal
    _scope: anyio.CancelScope | None = None

    async def run(self, jobs: TaskGroup) -> None:
        """Consume every queue until ``stop``; each job becomes a task of ``jobs``."""
        with anyio.CancelScope() as self._scope:
            async with anyio.create_task_group() as consumers:
                for name in self.queues:
                    consumers.start_soon(self._consume, name, jobs)

    def stop(self) -> None:
        if self._scope is not None:
            self._scope.cancel()

    async def _consume(self, queue: str, jobs: TaskGroup) -> None:
        while True:
            await self._wait_for_room(queue)
            if not await self._claim(queue, jobs):
                await self.source.wait(queue, self.settings.poll_seconds)

    async def _claim(self, queue: str, jobs: TaskGroup) -> bool:
        """Claim one job and start its life; false if the queue is empty.

        Shielded: a claim that was made must not be lost to a stop in the same moment.
        """
        with anyio.CancelScope(shield=True):
            claim_id = uuid4().hex
            claimed = await self.source.claim(queue, claim_id, self.settings.lease_seconds)
            if claimed is not None:
                await jobs.start(self.flow.run, claimed)  # returns once the roster counts it
        return claimed is not None

    async def _wait_for_room(self, queue: str) -> None:
        changed = self.room.ticket
        while not self._has_room(queue):
            await changed.wait()
            changed = self.room.ticket

    def _has_room(self, queue: str) -> bool:
        """Claims go no deeper than the scheduler, this queue and the outbox can take."""
        return (
            self.roster.held(queue) < self.queues[queue].claims_max
            and self.delivery.pending < self.undelivered_max
            and self.engine.credit() > self.roster.preparing()
        )
