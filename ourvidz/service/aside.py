"""Which jobs have begun and stand aside: another's death is not theirs.

Attempts are bounded because a job may be what kills the process. One that waits between two of its
runs, paused or between two phases, is not: the next process gives its attempt back, or a poisonous
job would take those with it that come back to the queue beside it each time.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from uuid import UUID

import anyio

from ourvidz.jobs import TextWork
from ourvidz.ports import Journal
from ourvidz.service.active import ActiveJob, Roster
from scheduler.messages import Event, Paused, PhaseFinished
from scheduler.types import Lease


@dataclass(slots=True)
class Aside:
    """The journal is told when it matters: before somebody's run starts, and in one write."""

    journal: Journal
    roster: Roster
    _jobs: set[UUID] = field(default_factory=set)
    _noted: frozenset[UUID] | None = None
    _lock: anyio.Lock = field(default_factory=anyio.Lock)

    async def entering(self, job: UUID) -> None:
        """A run of the job is about to start."""
        self._jobs.discard(job)
        async with self._lock:
            self._jobs = {each for each in self._jobs if self.roster.get(each) is not None}
            jobs = frozenset(self._jobs)
            if jobs != self._noted:
                await self.journal.set_aside(jobs)
                self._noted = jobs

    def left(self, job: ActiveJob, lease: Lease, event: Event) -> None:
        """A run of the job has ended."""
        if _nothing_to_do(job, lease, event):
            self._jobs.add(job.id)


def _nothing_to_do(job: ActiveJob, lease: Lease, event: Event) -> bool:
    """Whether no part of this process works on the job until its next run. From its last phase on
    pictures are written to files, which may be what kills the process."""
    last = lease.phase + 1 == len(job.phases[job.part])
    text = isinstance(job.spec.works[job.part], TextWork)
    match event:
        case Paused():
            return text or not last
        case PhaseFinished():
            return not last or (text and job.part + 1 < len(job.spec.works))
    return False
