"""What the scheduler is told of a job."""

from __future__ import annotations

from pathlib import Path
from uuid import UUID

import pytest
from support.learning import HARDWARE, IMAGES, PHASE, TEXT, VIDEO, Memory

from ourvidz.config.settings import Deadlines
from ourvidz.jobs import JobSpec, JobType, Work
from ourvidz.ports import Claimed, Part
from ourvidz.service.active import ActiveJob
from ourvidz.service.demand import Demands
from ourvidz.service.estimates import Estimates
from ourvidz.service.events import EventLog
from scheduler.types import Demand

pytestmark = pytest.mark.anyio


class Ticking:
    """Noon, and a second later whenever it is asked."""

    def __init__(self) -> None:
        self.now = 11.0

    def monotonic(self) -> float:
        self.now += 1.0
        return self.now

    def wall(self) -> float:
        return 0.0


def demands(estimates: Estimates | None = None) -> Demands:
    known = estimates or Estimates(Memory(), HARDWARE)
    return Demands(Ticking(), known, Deadlines(text=15.0, image=30.0, video=600.0))


def active(*works: Work, deadline: float | None = None) -> ActiveJob:
    spec = JobSpec(
        id=UUID(int=1),
        type=JobType.SDXL_GENERATE,
        requested_type="sdxl_generate",
        user_id=UUID(int=2),
        job_class="fast",
        works=works,
        digest="d",
        original_prompt="a secret",
        deadline_seconds=deadline,
    )
    return ActiveJob(spec, Claimed("q", "c", b"", 0), EventLog())


def demand(by: Demands, job: ActiveJob, part: int = 0) -> Demand:
    job.part = part
    work = job.spec.works[part]
    return by.demand(job, Part(job.part_id, job.spec, work, {}, Path("x")), (PHASE,))


async def test_a_demand_says_what_counts_and_no_prompt() -> None:
    found = demand(demands(), active(IMAGES, deadline=40.0))
    assert (found.job, found.job_class) == (str(UUID(int=1)), "fast")
    assert (found.user, found.phases) == (str(UUID(int=2)), (PHASE,))
    assert (found.arrival, found.deadline) == (12.0, 52.0)
    assert "secret" not in repr(found)


@pytest.mark.parametrize(
    ("work", "kind", "seconds"),
    [(TEXT, "text", 15.0), (IMAGES, "image", 30.0), (VIDEO, "video", 600.0)],
)
async def test_a_kind_has_its_deadline(work: Work, kind: str, seconds: float) -> None:
    found = demand(demands(), active(work))
    assert (found.kind, found.deadline) == (kind, 12.0 + seconds)


async def test_a_chain_counts_from_its_beginning_and_is_one_row() -> None:
    by, job = demands(), active(TEXT, IMAGES)
    first, second = demand(by, job, 0), demand(by, job, 1)
    assert (first.followed, first.follows) == (True, None)
    assert (second.followed, second.follows) == (False, first.job)
    assert second.arrival == first.arrival == 12.0
    assert second.deadline == 42.0


async def test_a_demand_has_what_was_learned() -> None:
    estimates = Estimates(Memory(), HARDWARE)
    estimates.ran(IMAGES, PHASE, 10, 20.0)
    estimates.ran(IMAGES, PHASE, 10, 30.0)
    (phase,) = demand(demands(estimates), active(IMAGES)).phases
    assert phase.seconds == pytest.approx(20.0)
    assert phase.seconds_p90 == pytest.approx(30.0)
