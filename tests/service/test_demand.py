"""What the scheduler is told of a job."""

from __future__ import annotations

from pathlib import Path
from uuid import UUID

import pytest
from support.learning import HARDWARE, IMAGES, PHASE, Memory

from ourvidz.jobs import JobSpec, JobType
from ourvidz.ports import Part
from ourvidz.service.demand import Demands
from ourvidz.service.estimates import Estimates


class Noon:
    def monotonic(self) -> float:
        return 12.0

    def wall(self) -> float:
        return 0.0


def part(deadline: float | None = None) -> Part:
    spec = JobSpec(
        id=UUID(int=1),
        type=JobType.SDXL_GENERATE,
        requested_type="sdxl_generate",
        user_id=UUID(int=2),
        job_class="fast",
        works=(IMAGES,),
        digest="d",
        original_prompt="a secret",
        deadline_seconds=deadline,
    )
    return Part("part", spec, IMAGES, {}, Path("x"))


def test_a_demand_says_what_counts_and_no_prompt() -> None:
    demands = Demands(Noon(), Estimates(Memory(), HARDWARE))
    demand = demands.demand(part(deadline=30), (PHASE,))
    assert (demand.job, demand.job_class, demand.user) == ("part", "fast", str(UUID(int=2)))
    assert (demand.arrival, demand.deadline, demand.phases) == (12.0, 42.0, (PHASE,))
    assert "secret" not in repr(demand)
    assert demands.demand(part(), (PHASE,)).deadline is None


def test_a_demand_has_what_was_learned() -> None:
    estimates = Estimates(Memory(), HARDWARE)
    estimates.ran(IMAGES, PHASE, 10, 20.0)
    estimates.ran(IMAGES, PHASE, 10, 30.0)
    (phase,) = Demands(Noon(), estimates).demand(part(), (PHASE,)).phases
    assert phase.seconds == pytest.approx(20.0)
    assert phase.seconds_p90 == pytest.approx(30.0)
