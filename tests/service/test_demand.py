"""What the scheduler is told of a job: its phases, with the seconds that such phases have taken."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from uuid import UUID

import pytest

from ourvidz.jobs import ImageWork, JobSpec, JobType, TextWork, VideoWork, Work
from ourvidz.ports import Part
from ourvidz.service import demand as module
from ourvidz.service.demand import Demands
from scheduler.types import Phase

IMAGES = ImageWork("a", "", 64, 64, 2, 10, 5.0, 1)
VIDEO = VideoWork("a", "", 64, 32, 5, 16, 10, 5.0, 5.0, 1)
TEXT = TextWork("chat", "base", (), 100, 0.0, 1.0, 1)
PHASE = Phase("denoise", ("c",), 100, 5.0, 10)


class Noon:
    def monotonic(self) -> float:
        return 12.0

    def wall(self) -> float:
        return 0.0


def part_of(work: Work, deadline: float | None = None) -> Part:
    spec = JobSpec(
        id=UUID(int=1),
        type=JobType.CHAT,
        requested_type="chat",
        user_id=UUID(int=2),
        job_class="fast",
        works=(work,),
        digest="d",
        original_prompt="a secret",
        deadline_seconds=deadline,
    )
    return Part("part", spec, work, {}, Path("x"))


def seconds(demands: Demands, work: Work, phase: Phase = PHASE) -> float:
    return demands.demand(part_of(work), (phase,)).phases[0].seconds


def test_a_demand_says_what_counts_and_no_prompt() -> None:
    demand = Demands(Noon()).demand(part_of(IMAGES, deadline=30), (PHASE,))
    assert (demand.job, demand.job_class, demand.user) == ("part", "fast", str(UUID(int=2)))
    assert (demand.arrival, demand.deadline, demand.phases) == (12.0, 42.0, (PHASE,))
    assert "secret" not in repr(demand)
    assert Demands(Noon()).demand(part_of(IMAGES), (PHASE,)).deadline is None


def test_the_seconds_of_a_step_are_learned_for_each_shape() -> None:
    demands = Demands(Noon())
    demands.observe(IMAGES, PHASE, 20.0)
    assert seconds(demands, IMAGES) == pytest.approx(20.0)
    assert seconds(demands, IMAGES, replace(PHASE, steps=5)) == pytest.approx(10.0)
    assert seconds(demands, replace(IMAGES, width=32, images=4)) == pytest.approx(20.0)
    for other in (replace(IMAGES, width=128), VIDEO, TEXT):
        assert seconds(demands, other) == 5.0
    assert seconds(demands, IMAGES, replace(PHASE, name="decode")) == 5.0
    demands.observe(IMAGES, PHASE, 10.0)
    assert 10.0 < seconds(demands, IMAGES) < 20.0
    for _ in range(50):
        demands.observe(IMAGES, PHASE, 10.0)
    assert seconds(demands, IMAGES) == pytest.approx(10.0, rel=0.01)
    assert list(demands.snapshot()) == ["sdxl denoise 8192"]


def test_a_phase_without_steps_is_one() -> None:
    demands = Demands(Noon())
    demands.observe(TEXT, replace(PHASE, steps=0), 3.0)
    assert seconds(demands, TEXT, replace(PHASE, steps=1)) == pytest.approx(3.0)


def test_shapes_that_were_not_seen_for_longest_are_forgotten(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(module, "_SHAPES_MAX", 3)
    demands = Demands(Noon())
    for width in (8, 16, 24, 8, 32):
        demands.observe(replace(IMAGES, width=width, height=1, images=1), PHASE, 1.0)
    assert sorted(demands.snapshot()) == ["sdxl denoise 24", "sdxl denoise 32", "sdxl denoise 8"]
