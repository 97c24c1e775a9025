"""A device that is free waits a moment for the job that follows the one that has finished."""

from __future__ import annotations

from dataclasses import replace

from scheduler import messages as m
from scheduler.types import Demand, Sharing
from tests.scheduler.shell import DEFAULTS, Shell, demand, phase


def shell(seconds: float = 0.5) -> Shell:
    s = Shell({"a": 40}, device=100, settings=replace(DEFAULTS, follow_seconds=seconds))
    s.warm("a")
    return s


def arrive(s: Shell, job: str, seconds: float = 1.0, **more: object) -> list[str]:
    wanted: Demand = replace(
        demand(job, phase("a", seconds=seconds, steps=9), arrival=s.now), **more
    )
    s.books.arrived(wanted)
    return s.feed(m.JobArrived(wanted))


def test_nothing_starts_until_the_follower_comes() -> None:
    s = shell()
    arrive(s, "text", followed=True)
    arrive(s, "other", seconds=9.0)
    assert s.finish() == ["Settle text finished"]
    assert s.scheduler.deadline() == 0.5
    assert s.feed(m.TimeReached(), 0.4) == []
    assert arrive(s, "image", seconds=5.0, follows="text") == ["Start image:0"]
    assert s.scheduler.deadline() != 0.5


def test_but_not_for_longer_than_a_moment() -> None:
    s = shell()
    arrive(s, "text", followed=True)
    arrive(s, "other")
    s.finish()
    assert s.wake() == ["Start other:0"]
    assert s.now == 0.5
    assert arrive(s, "image", seconds=0.1, follows="text") == []


def test_another_jobs_follower_is_not_the_one() -> None:
    s = shell()
    arrive(s, "text", followed=True)
    s.finish()
    assert arrive(s, "image", follows="somebody") == []
    assert arrive(s, "new") == []
    assert len(s.wake()) == 1


def test_only_a_job_that_has_finished_is_followed() -> None:
    s = shell()
    arrive(s, "text", followed=True)
    arrive(s, "other")
    s.cancel("text")
    said = s.end(s.flight("Start text:0"), m.RunCancelled(s.lease))
    assert said == ["Settle text cancelled", "Start other:0"]


def test_switched_off_nobody_waits() -> None:
    s = shell(seconds=0.0)
    arrive(s, "text", followed=True)
    arrive(s, "other")
    assert s.finish() == ["Settle text finished", "Start other:0"]


def test_of_two_the_later_one_is_waited_for() -> None:
    s = shell()
    arrive(s, "one", followed=True)
    arrive(s, "two", followed=True)
    arrive(s, "three", seconds=9.0)
    s.finish()
    assert s.scheduler.deadline() == 0.5
    arrive(s, "image", seconds=0.1, follows="one")
    s.now = 0.2
    s.finish()
    assert s.running() == "two"
    s.finish()
    assert s.scheduler.deadline() == 0.7
    assert s.wake() == ["Start three:0"]


def test_whoever_runs_meanwhile_goes_on() -> None:
    s = shell()
    arrive(s, "text", followed=True)
    s.arrive("also", phase("a"))
    s.finish()
    assert s.running() == "-"
    s.wake()
    assert s.running() == "also"


def test_whoever_shares_the_run_goes_on_and_is_joined_meanwhile() -> None:
    s = shell()
    sharing = Sharing("text", 1, 3, 0.1, mid_phase=True)
    shared = (phase("a", steps=9, sharing=sharing),)
    arrive(s, "one", phases=shared, followed=True)
    arrive(s, "two", phases=shared)
    assert s.finish("one") == ["Settle one finished"]
    assert arrive(s, "three", phases=shared) == ["Start three:0"]


def test_who_is_on_its_way_already_is_started() -> None:
    """It was to preempt the job that is followed, which ended before it could be paused."""
    settings = replace(DEFAULTS, follow_seconds=0.5, policy=replace(DEFAULTS.policy, preempt=True))
    s = Shell({"a": 40}, device=100, settings=settings)
    s.warm("a")
    arrive(s, "text", seconds=9.0, followed=True)
    assert arrive(s, "short", seconds=1.0) == ["Pause text:0"]
    assert s.finish() == ["Settle text finished", "Start short:0"]


def test_a_follower_that_is_refused_has_come() -> None:
    s = shell()
    arrive(s, "text", followed=True)
    arrive(s, "other")
    s.finish()
    said = arrive(s, "image", follows="text", phases=())
    assert said == ["Settle image refused", "Start other:0"]


def test_of_two_that_are_awaited_at_a_time_both_are() -> None:
    s = shell()
    sharing = Sharing("text", 1, 2, 0.1, mid_phase=True)
    for job in ("one", "two"):
        arrive(s, job, phases=(phase("a", steps=9, sharing=sharing),), followed=True)
    assert s.running() == "one,two"
    arrive(s, "three", seconds=9.0)
    s.finish("one")
    s.now = 0.2
    s.finish("two")
    assert s.scheduler.deadline() == 0.7
    assert s.feed(m.TimeReached(), 0.6) == []
    assert s.wake() == ["Start three:0"]
