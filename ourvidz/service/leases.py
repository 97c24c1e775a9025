"""Leases are renewed while a job is ours, and expired ones are put back, each on its own clock."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass

import anyio
import structlog

from ourvidz.config.settings import Intake
from ourvidz.ports import JobSource
from ourvidz.service.active import ActiveJob, Roster
from ourvidz.service.claims import Claims
from ourvidz.service.delivery import Delivery
from ourvidz.service.health import LEASE_LOST, Alarms, queue_answered, queue_failed

log = structlog.get_logger()


@dataclass(frozen=True, slots=True)
class Leases:
    """Both loops outlive a queue that does not answer: what they do not do now, they do next time,
    and a lease is several renewals long. ``lose`` stops an active job that is not ours any more."""

    source: JobSource
    claims: Claims
    roster: Roster
    delivery: Delivery
    settings: Intake
    alarms: Alarms
    lose: Callable[[ActiveJob], Awaitable[None]]

    async def renew(self) -> None:
        """Renew every lease that is held, for ever: those of active jobs, and those of jobs whose
        answer is not acknowledged yet."""
        told: frozenset[str] = frozenset()
        while True:
            await anyio.sleep(self.settings.renew_seconds)
            held = self.held()
            self.alarms.silence(LEASE_LOST)
            if not held:
                queue_answered(self.alarms, "renew")
                continue
            try:
                lost = await self.source.renew(list(held), self.settings.lease_seconds)
            except Exception as error:  # noqa: BLE001 - the border to whichever queue is configured
                queue_failed(self.alarms, "renew", error)
                continue
            queue_answered(self.alarms, "renew")
            for claim_id in (lost & self.held().keys()) - told:
                log.error("lease_lost", job=held[claim_id])
                self.alarms.ring(LEASE_LOST)
                await self._let_go(claim_id)
            told = lost

    async def _let_go(self, claim_id: str) -> None:
        """Its element is back in the queue, or another worker's: nothing more is begun for it here.
        What it has come to stays, for the case that it comes here again."""
        self.delivery.lose(claim_id)
        for job in self.roster:
            if job.claimed.claim_id == claim_id:
                await self.lose(job)

    async def reap(self) -> None:
        """Put back what a dead worker held, for ever; a quiet queue is looked at too."""
        while True:
            await anyio.sleep(self.settings.lease_seconds / 2)
            try:
                count = await self.source.reap()
            except Exception as error:  # noqa: BLE001 - as above
                queue_failed(self.alarms, "reap", error)
                continue
            queue_answered(self.alarms, "reap")
            if count:
                log.warning("leases_reaped", count=count)

    def held(self) -> Mapping[str, str]:
        """Jobs by claim id, without what is being let go."""
        active = {job.claimed.claim_id: str(job.id) for job in self.roster}
        held = {**self.delivery.held, **active}
        return {claim_id: job for claim_id, job in held.items() if not self.claims.left(claim_id)}
