"""Leases are renewed while a job is ours, and expired ones are put back, each on its own clock."""

from __future__ import annotations

from dataclasses import dataclass

import anyio
import structlog

from ourvidz.config.settings import Intake
from ourvidz.ports import JobSource
from ourvidz.service.active import Roster

log = structlog.get_logger()


@dataclass(frozen=True, slots=True)
class Leases:
    source: JobSource
    roster: Roster
    settings: Intake

    async def renew(self) -> None:
        """Renew the lease of every active job, for ever."""
        while True:
            await anyio.sleep(self.settings.renew_seconds)
            held = {job.claimed.claim_id: job for job in self.roster}
            if not held:
                continue
            for claim_id in await self.source.renew(list(held), self.settings.lease_seconds):
                log.error("lease_lost", job=str(held[claim_id].id))

    async def reap(self) -> None:
        """Put back what a dead worker held, for ever; a quiet queue is looked at too."""
        while True:
            await anyio.sleep(self.settings.lease_seconds / 2)
            count = await self.source.reap()
            if count:
                log.warning("leases_reaped", count=count)
