"""When jobs are expected to start and to end."""

from dataclasses import replace

import pytest

from scheduler import Estimate
from scheduler import messages as m
from scheduler.types import Sharing
from tests.scheduler.shell import DEFAULTS, LINKS, PLAIN, Shell, Steadfast, phase

SIZES = {"unet": 50, "vae": 10, "llm": 70}


def test_the_plan_walks_the_order_and_counts_set_ups_once() -> None:
    s = Shell(SIZES, device=200)
    s.warm("unet")
    s.arrive("x", phase("unet", seconds=8.0, steps=8))
    s.arrive("y", phase("vae", seconds=2.0))
    s.arrive("z", phase("vae", seconds=1.0))
    vae = LINKS.stage_seconds(10) + LINKS.load_seconds(10)
    # Where it is not known, a quarter more is taken for the 90th percentile.
    late = [2.0, (2.0**2 + 0.25**2) ** 0.5, (2.0**2 + 0.25**2 + 0.5**2) ** 0.5]
    assert s.scheduler.plan(0.0) == [
        Estimate("x", 0, 0.0, 8.0, 8.0 + late[0]),
        Estimate("z", 1, *map(pytest.approx, (8.0 + vae, 9.0 + vae, 9.0 + vae + late[1]))),
        Estimate("y", 2, *map(pytest.approx, (9.0 + vae, 11.0 + vae, 11.0 + vae + late[2]))),
    ]
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
    load = LINKS.load_seconds(70)
    found = [(e.job, e.position, e.start_seconds) for e in s.scheduler.plan(0.0)]
    assert found == [("cold", 1, load), ("quick", 2, load + 50.0)]
    assert s.scheduler.snapshot()["target"] == "cold"


def test_what_jobs_may_take_longer_adds_up_as_independent_errors_do() -> None:
    s = Shell(SIZES, device=200)
    known = replace(phase(seconds=8.0), seconds_p90=11.0)
    s.arrive("x", known, replace(phase(seconds=2.0), seconds_p90=2.5))
    s.arrive("y", replace(phase(seconds=20.0), seconds_p90=24.0))
    s.arrive("z", replace(phase(seconds=30.0), seconds_p90=30.0))
    late = [e.finish_p90_seconds - e.finish_seconds for e in s.scheduler.plan(0.0)]
    assert late == pytest.approx([3.5, (3.5**2 + 16) ** 0.5, (3.5**2 + 16) ** 0.5])
    s.finish()
    late = [e.finish_p90_seconds - e.finish_seconds for e in s.scheduler.plan(0.0)]
    assert late[0] == pytest.approx(0.5)


def text(seconds: float = 10.0) -> dict[str, object]:
    """Each beside another slows both by half of what it would take alone."""
    sharing = Sharing("t", 1, 3, 0.5849625007211562, mid_phase=True)
    return {"seconds": seconds, "steps": 10, "work": 0, "sharing": sharing}


def test_texts_that_can_be_decoded_together_are() -> None:
    s = Shell({"llm": 0}, device=200)
    s.warm("llm")
    s.arrive("busy", phase("llm", seconds=4.0))
    for name in "abcd":
        s.arrive(name, phase("llm", **text()))
    found = [(e.job, e.start_seconds, e.finish_seconds) for e in s.scheduler.plan(0.0)]
    three = pytest.approx(4.0 + 10.0 * 3**0.5849625007211562)
    assert found == [
        ("busy", 0.0, 4.0),
        ("a", 4.0, three),
        ("b", 4.0, three),
        ("c", 4.0, three),
        ("d", three, pytest.approx(14.0 + 10.0 * 3**0.5849625007211562)),
    ]


def test_a_text_that_runs_on_is_faster_when_others_have_ended() -> None:
    s = Shell({"llm": 0}, device=200)
    s.warm("llm")
    s.arrive("a", phase("llm", **text()))
    s.arrive("b", phase("llm", **text(4.0)))
    s.step(5, "a")
    found = {e.job: (e.position, e.finish_seconds) for e in s.scheduler.plan(0.0)}
    assert found == {"a": (0, pytest.approx(7.0)), "b": (0, pytest.approx(6.0))}


def test_a_text_that_waits_joins_the_run_of_texts() -> None:
    s = Shell({"llm": 0}, device=20, settings=replace(DEFAULTS, policy=PLAIN))
    s.warm("llm")
    s.arrive("a", phase("llm", **(text() | {"work": 15})))
    s.arrive("b", phase("llm", **(text(8.0) | {"work": 15})))
    found = [(e.job, e.position, e.start_seconds, e.finish_seconds) for e in s.scheduler.plan(0.0)]
    assert found == [("a", 0, 0.0, pytest.approx(14.0)), ("b", 1, 0.0, pytest.approx(12.0))]


def test_others_that_could_share_a_run_are_planned_one_after_the_other() -> None:
    """Images, and texts that have a phase to come: only what ends together is a group."""
    image = Sharing("image", 1, 4, 0.5, mid_phase=False)
    for phases in (
        [phase("llm", seconds=10.0, steps=10, sharing=image)],
        [phase("llm", **text()), phase(seconds=0.0)],
    ):
        s = Shell({"llm": 0}, device=200)
        s.warm("llm")
        s.arrive("busy", phase("llm", seconds=4.0))
        for name in "ab":
            s.arrive(name, *phases)
        found = [(e.job, e.start_seconds, e.finish_seconds) for e in s.scheduler.plan(0.0)]
        assert found == [("busy", 0.0, 4.0), ("a", 4.0, 14.0), ("b", 14.0, 24.0)]


def test_images_that_run_together_take_as_long_as_all_their_units() -> None:
    image = Sharing("image", 2, 8, 0.5, mid_phase=False)
    phases = [phase("llm", seconds=10.0, steps=10, sharing=image), phase(seconds=1.0)]
    s = Shell({"llm": 0}, device=200)
    s.warm("llm")
    s.arrive("busy", phase("llm", seconds=4.0))
    for name in "abcd":
        s.arrive(name, *phases)
    s.finish()
    assert s.running() == "a,b,c"
    finishes = {e.job: e.finish_seconds for e in s.scheduler.plan(0.0) if not e.position}
    together = 10.0 * 3**0.5 + 1.0
    assert finishes == {name: pytest.approx(together) for name in "abc"}
    for name in "ab":
        s.finish(name, state=1)
    assert s.scheduler.plan(0.0)[0].finish_seconds == pytest.approx(11.0)


def preempted(s: Shell, short: str = "unet") -> dict[str, tuple[int, float, float]]:
    """A short job has come at half a second, and everyone who runs is being paused for it."""
    assert s.feed(m.TimeReached(), 0.5) == []
    said = s.arrive("short", phase(short, seconds=2.0))
    assert any(text.startswith("Pause") for text in said)
    found = s.scheduler.plan(0.75)
    assert [e.job for e in found if e.position == 1] == ["short"]
    return {e.job: (e.position, e.start_seconds, e.finish_seconds) for e in found}


def preemptive(device: int = 200) -> Shell:
    policy = replace(PLAIN, preempt=True)
    s = Shell(SIZES, device=device, settings=replace(DEFAULTS, policy=policy))
    s.warm("unet", "vae")
    return s


def test_a_run_that_is_being_paused_goes_on_after_the_job_that_it_is_paused_for() -> None:
    s = preemptive()
    s.arrive("long", phase("unet", seconds=100.0, steps=100), phase(seconds=7.0))
    s.arrive("last", phase("vae", seconds=500.0))
    assert preempted(s) == {
        "short": (1, 0.25, 2.25),
        "long": (0, 0.0, pytest.approx(2.25 + 106.0)),
        "last": (2, pytest.approx(2.25 + 106.0), pytest.approx(2.25 + 106.0 + 500.0)),
    }
    assert s.scheduler.plan(50.0)[0].start_seconds == 0.0, "the step is late"
    s.pause(1)
    found = {e.job: e.finish_seconds for e in s.scheduler.plan(0.75)}
    assert found["long"] == pytest.approx(2.0 + 106.0, abs=1.0)


def test_what_a_paused_run_has_to_load_again_counts() -> None:
    s = preemptive(device=101)
    s.arrive("long", phase("unet", seconds=100.0, steps=100))
    set_up = LINKS.stage_seconds(70) + LINKS.load_seconds(70)
    back = LINKS.load_seconds(50)
    found = preempted(s, "llm")
    assert found["long"][2] == pytest.approx(found["short"][2] + back + 99.0)
    assert found["short"][1] <= 0.25 + set_up


def test_texts_that_are_being_paused_go_on_together() -> None:
    s = preemptive()
    for name in "ab":
        s.arrive(name, phase("unet", **(text(100.0) | {"steps": 100})))
    assert preempted(s, "vae") == {
        "short": (1, pytest.approx(0.25), pytest.approx(2.25)),
        "a": (0, 0.0, pytest.approx(2.25 + 150.0)),
        "b": (0, 0.0, pytest.approx(2.25 + 150.0)),
    }
