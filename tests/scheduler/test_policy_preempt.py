"""When the default policy pauses a run for another job (its rule 3), through the scheduler."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest

from scheduler import messages as m
from scheduler.types import Sharing
from tests.scheduler.shell import DEFAULTS, LINKS, Shell, phase
from tests.scheduler.test_policy import NEUTRAL

PREEMPTIVE = replace(NEUTRAL, hysteresis_seconds=0.25, prefetch=False)


def shell(device: int = 100, **changes: Any) -> Shell:
    """Components a and b, both of 40 bytes; a is on the device."""
    settings = replace(DEFAULTS, policy=replace(PREEMPTIVE, **changes))
    s = Shell({"a": 40, "b": 40}, device=device, settings=settings)
    s.warm("a")
    return s


def arrive(
    s: Shell, job: str, seconds: float, *, needs: str = "a", steps: int = 10, **more: Any
) -> list[str]:
    return s.arrive(job, phase(needs, seconds=seconds, steps=steps, state_max=0), **more)


def paused(said: list[str]) -> bool:
    return any(text.startswith("Pause") for text in said)


def test_3_a_run_gives_way_to_what_takes_less_and_comes_back() -> None:
    s = shell()
    assert arrive(s, "long", 100.0) == ["Start long:0"]
    assert arrive(s, "short", 10.0, at=1.0) == ["Pause long:0"]
    assert s.pause(1) == ["Start short:0"]
    assert s.finish() == ["Settle short finished", "Resume long:0"]
    assert s.finish() == ["Settle long finished"]


def test_3_no_run_gives_way_where_that_is_switched_off() -> None:
    s = shell(preempt=False, wait_seconds_max=50.0)
    arrive(s, "long", 100.0)
    assert arrive(s, "short", 1.0, at=1.0) == []
    assert s.feed(m.TimeReached(), 60.0) == []


def test_3a_not_where_the_phase_ends_anyway() -> None:
    for step, gives_way in ((8, True), (9, False)):
        s = shell()
        arrive(s, "long", 100.0)
        assert s.step(step) == []
        assert paused(arrive(s, "short", 0.5, at=1.0)) == gives_way
    for steps, gives_way in ((0, False), (1, False), (2, True)):
        s = shell()
        arrive(s, "long", 100.0, steps=steps)
        assert paused(arrive(s, "short", 0.5, at=1.0)) == gives_way


def test_3a_nor_for_who_has_waited_too_long() -> None:
    for step, gives_way in ((8, True), (9, False)):
        s = shell(wait_seconds_max=50.0)
        arrive(s, "run", 100.0)
        arrive(s, "old", 500.0, at=1.0)
        s.feed(m.StepReached(s.lease, step), 50.5)
        assert paused(s.wake()) == gives_way


def test_3b_who_has_waited_too_long_has_the_run_paused_whatever_it_takes() -> None:
    s = shell(wait_seconds_max=50.0)
    arrive(s, "first", 10.0)
    arrive(s, "old", 500.0, at=1.0)
    s.feed(m.StepReached(s.lease, 1), 40.0)
    arrive(s, "young", 30.0, at=41.0)
    s.now = 49.0
    assert s.finish() == ["Settle first finished", "Start young:0"]
    assert s.scheduler.deadline() == 51.0
    assert s.wake() == ["Pause young:0"]


def test_3b_a_run_of_a_lower_tier_does_not_give_way() -> None:
    s = shell(wait_seconds_max=50.0)
    arrive(s, "run", 100.0)
    arrive(s, "old", 500.0, at=20.0)
    assert s.wake() == ["Pause run:0"]
    assert s.pause(1) == ["Start old:0"]
    assert arrive(s, "short", 1.0, at=80.0) == []
    assert s.finish() == ["Settle old finished", "Resume run:0"]


def test_3b_a_run_keeps_the_tier_in_which_it_was_chosen() -> None:
    """However long it takes from then on: a decision to wait must stand while nothing happens."""
    s = shell(wait_seconds_max=50.0)
    arrive(s, "run", 100.0)
    assert arrive(s, "old", 500.0, at=20.0) == []
    s.feed(m.StepReached(s.lease, 1), 60.0)
    assert s.scheduler.deadline() == 70.0
    assert s.wake() == ["Pause run:0"]


@pytest.mark.parametrize(("seconds", "gives_way"), [(89.8, False), (89.7, True)])
def test_3c_what_counts_of_a_run_is_what_is_left_at_the_boundary_and_a_little_less(
    seconds: float, gives_way: bool
) -> None:
    s = shell()
    arrive(s, "long", 100.0)
    assert paused(arrive(s, "next", seconds, at=1.0)) == gives_way


def test_3c_a_score_that_is_lower_by_just_the_hysteresis_is_not_enough() -> None:
    for seconds, gives_way in ((89.75, False), (89.74, True)):
        s = shell()
        arrive(s, "long", 100.0)
        assert paused(arrive(s, "next", seconds)) == gives_way


def test_3c_the_runs_own_weight_divides_what_is_left_of_it() -> None:
    """Of a hundred seconds of a fast job 45 count once a tenth is done."""
    for seconds, gives_way in ((44.8, False), (44.7, True)):
        s = shell()
        arrive(s, "long", 100.0, job_class="fast")
        assert paused(arrive(s, "next", seconds, at=1.0)) == gives_way


def test_3c_loading_what_is_missing_counts() -> None:
    load = LINKS.stage_seconds(40) + LINKS.load_seconds(40)
    for seconds, gives_way in ((89.8, False), (89.7, True)):
        s = shell()
        arrive(s, "long", 100.0)
        assert paused(arrive(s, "next", seconds - load, at=1.0, needs="b")) == gives_way


def test_3c_the_way_back_counts_where_the_run_cannot_stay() -> None:
    load, back = LINKS.stage_seconds(40) + LINKS.load_seconds(40), LINKS.load_seconds(40)
    for device, price in ((81, 0.0), (80, back)):
        for spare, gives_way in ((-0.01, True), (0.01, False)):
            s = shell(device)
            arrive(s, "long", 100.0)
            seconds = 90.0 - 0.25 - load - price + spare
            assert paused(arrive(s, "next", seconds, at=1.0, needs="b")) == gives_way


def test_3c_what_the_other_needs_as_well_stays_without_counting_twice() -> None:
    for seconds, gives_way in ((89.75, False), (89.74, True)):
        s = shell(device=79)
        arrive(s, "long", 100.0)
        assert paused(arrive(s, "next", seconds)) == gives_way


def test_3c_a_job_turns_urgent_while_another_runs() -> None:
    s = shell(discount=0.5, discount_seconds_max=12.0, margin_seconds=8.0)
    arrive(s, "run", 20.0)
    late = 1.0 + 3.0 + 8.0 + 18.5
    assert arrive(s, "late", 18.5, at=1.0, deadline=late) == []
    assert s.scheduler.deadline() == pytest.approx(4.0)
    assert s.step(1) == []
    # 16 seconds are left of the run at the next boundary, 9.25 count of the job's 18.5.
    assert s.wake() == ["Pause run:0"]


def test_3c_an_urgent_run_keeps_its_turn() -> None:
    s = shell(discount=0.5, discount_seconds_max=12.0, margin_seconds=8.0)
    arrive(s, "run", 20.0, deadline=24.0)
    # Ten of its seconds count, and two of them are done at the boundary.
    assert arrive(s, "short", 7.8, at=1.0) == []
    assert arrive(s, "shorter", 7.7, at=1.0) == ["Pause run:0"]


def test_3_wakes_when_a_kind_will_be_due_its_share() -> None:
    s = shell(share_seconds=10.0, share_floor=0.1)
    arrive(s, "run", 500.0, kind="image", at=5.0)
    assert arrive(s, "video", 900.0, kind="video", at=20.0) == []
    assert s.scheduler.deadline() == 120.0
    assert s.wake() == ["Pause run:0"]


def test_3_images_that_could_have_begun_together_may_preempt_each_other() -> None:
    """Texts join instead, see the tests of rule 4."""
    s = shell()
    image = Sharing("image", 1, 4, 0.5, mid_phase=False)
    s.arrive("long", phase("a", seconds=100.0, steps=10, state_max=0, sharing=image))
    short = phase("a", seconds=10.0, steps=10, state_max=0, sharing=image)
    assert s.arrive("short", short, at=1.0) == ["Pause long:0"]
