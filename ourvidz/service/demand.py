"""What the scheduler is told of a job."""

from __future__ import annotations

from dataclasses import dataclass

from ourvidz.ports import Clock, Part
from ourvidz.service.estimates import Estimates
from scheduler.types import Demand, Phase


@dataclass(frozen=True, slots=True)
class Demands:
    """Builds demands; no prompt enters one."""

    clock: Clock
    estimates: Estimates

    def demand(self, part: Part, phases: tuple[Phase, ...]) -> Demand:
        """The part's demand, with what was learned of such phases in the place of the plan's."""
        now = self.clock.monotonic()
        limit = part.spec.deadline_seconds
        return Demand(
            job=part.id,
            phases=tuple(self.estimates.phase(part.work, phase) for phase in phases),
            job_class=part.spec.job_class,
            user=str(part.spec.user_id),
            arrival=now,
            deadline=None if limit is None else now + limit,
        )
