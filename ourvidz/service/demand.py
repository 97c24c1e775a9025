"""What the scheduler is told of a job."""

from __future__ import annotations

from dataclasses import dataclass, replace

from ourvidz.config.settings import Deadlines
from ourvidz.jobs import ImageWork, VideoWork, Work
from ourvidz.ports import Clock, Part
from ourvidz.service.active import ActiveJob, part_id
from ourvidz.service.estimates import Estimates
from scheduler.types import Demand, Phase


@dataclass(frozen=True, slots=True)
class Demands:
    """Builds demands; no prompt enters one."""

    clock: Clock
    estimates: Estimates
    deadlines: Deadlines

    def demand(self, job: ActiveJob, part: Part, phases: tuple[Phase, ...]) -> Demand:
        """The demand of the part at hand, with what was learned of such phases in the place of the
        plan's. The second part of a chain counts from when the first one came."""
        spec = job.spec
        if job.arrived is None:
            job.arrived = self.clock.monotonic()
        kind = _kind(part.work)
        limit = spec.deadline_seconds
        if limit is None:
            limit = getattr(self.deadlines, kind)
        expected = tuple(self.estimates.phase(part.work, phase) for phase in phases)
        if job.claimed.attempts:
            # It may be what took a process down: if so, it is to take nobody with it again.
            expected = tuple(replace(phase, sharing=None) for phase in expected)
        return Demand(
            job=part.id,
            phases=expected,
            job_class=spec.job_class,
            user=str(spec.user_id),
            arrival=job.arrived,
            deadline=job.arrived + limit,
            kind=kind,
            follows=part_id(spec, job.part - 1) if job.part else None,
            followed=job.part + 1 < len(spec.works),
        )


def _kind(work: Work) -> str:
    if isinstance(work, ImageWork):
        return "image"
    return "video" if isinstance(work, VideoWork) else "text"
