"""When jobs are expected to start and to end."""

import pytest

from scheduler import Estimate
from tests.scheduler.shell import LINKS, PLAIN, Shell, Steadfast, phase

SIZES = {"unet": 50, "vae": 10, "llm": 70}


def test_the_plan_walks_the_order_and_counts_set_ups_once() -> None:
    s = Shell(SIZES, device=200)
    s.warm("unet")
    s.arrive("x", phase("unet", seconds=8.0, steps=8))
    s.arrive("y", phase("vae", seconds=2.0))
    s.arrive("z", phase("vae", seconds=1.0))
    vae = LINKS.stage_seconds(10) + LINKS.load_seconds(10)
    approx = [
        Estimate("x", 0, 0.0, 8.0),
        Estimate("z", 1, pytest.approx(8.0 + vae), pytest.approx(9.0 + vae)),
        Estimate("y", 2, pytest.approx(9.0 + vae), pytest.approx(11.0 + vae)),
    ]
    assert s.scheduler.plan(0.0) == approx
    assert s.scheduler.plan(3.0)[0].finish_seconds == 5.0
    assert s.scheduler.plan(99.0)[0].finish_seconds == 0.0


def test_while_no_step_comes_an_estimate_only_falls_and_not_beyond_the_phase() -> None:
    s = Shell(SIZES, device=200)
    s.arrive("x", phase(seconds=8.0, steps=8), phase(seconds=2.0))
    s.arrive("y", phase(seconds=9.0))
    finishes = [[e.finish_seconds for e in s.scheduler.plan(now)] for now in (0, 1, 7.5, 8, 9, 50)]
    assert finishes == [[10, 19], [9, 18], [2.5, 11.5], [2, 11], [2, 11], [2, 11]]
    s.now = 4.0
    s.step(2)
    assert s.scheduler.plan(4.0)[0].finish_seconds == 8.0
    s.now = 4.5
    s.step(2)
    assert s.scheduler.plan(4.5)[0].finish_seconds == 7.5


def test_the_target_is_first_in_the_plan() -> None:
    s = Shell(SIZES, device=200, policy=Steadfast(PLAIN))
    s.warm("unet")
    s.arrive("cold", phase("llm", seconds=50.0))
    s.arrive("quick", phase("unet", seconds=0.1))
    assert [(e.job, e.position) for e in s.scheduler.plan(0.0)] == [("cold", 1), ("quick", 2)]
    assert s.scheduler.snapshot()["target"] == "cold"
