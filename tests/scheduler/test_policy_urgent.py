"""The preemptive policy, rule by rule, through the scheduler."""

from __future__ import annotations

import dataclasses

import pytest

from scheduler import messages as m
from scheduler.policy_urgent import Urgency, UrgentWork
from tests.scheduler.shell import LINKS, Shell, demand, phase

URGENCY = Urgency(
    ageing_seconds=1e9,
    wait_seconds_max=1000.0,
    margin_seconds=8.0,
    discount=0.5,
    discount_seconds_max=12.0,
    hysteresis_seconds=0.25,
)


def shell(device: int = 100, **changes: float) -> Shell:
    """Components a and b, both of 40 bytes; a is on the device."""
    policy = UrgentWork(dataclasses.replace(URGENCY, **changes))
    s = Shell({"a": 40, "b": 40}, device=device, policy=policy)
    s.warm("a")
    return s


def arrive(
    s: Shell,
    job: str,
    seconds: float,
    *,
    at: float = 0.0,
    deadline: float | None = None,
    component: str = "a",
    steps: int = 10,
) -> list[str]:
    parts = phase(component, seconds=seconds, steps=steps, state_max=0)
    wanted = dataclasses.replace(demand(job, parts, arrival=at), deadline=deadline)
    s.books.arrived(wanted)
    return s.feed(m.JobArrived(wanted), at)


def test_a_run_gives_way_to_what_takes_less_and_comes_back() -> None:
    s = shell()
    assert arrive(s, "long", 100.0) == ["Start long:0"]
    assert arrive(s, "short", 10.0, at=1.0) == ["Pause long:0"]
    assert s.pause(1) == ["Start short:0"]
    assert s.finish() == ["Settle short finished", "Resume long:0"]
    assert s.finish() == ["Settle long finished"]


@pytest.mark.parametrize(("seconds", "said"), [(89.8, []), (89.7, ["Pause long:0"])])
def test_what_counts_of_a_run_is_what_is_left_at_the_boundary_and_a_little_less(
    seconds: float, said: list[str]
) -> None:
    s = shell()
    arrive(s, "long", 100.0)
    assert arrive(s, "next", seconds, at=1.0) == said


def test_a_run_is_not_paused_where_its_phase_ends_anyway() -> None:
    s = shell()
    arrive(s, "long", 100.0)
    assert s.step(9) == []
    assert arrive(s, "short", 0.5, at=1.0) == []
    s = shell()
    arrive(s, "long", 100.0)
    s.step(8)
    assert arrive(s, "short", 0.5, at=1.0) == ["Pause long:0"]


def test_loading_what_is_missing_counts() -> None:
    load = LINKS.stage_seconds(40) + LINKS.load_seconds(40)
    for seconds, said in ((89.8, []), (89.7, ["Pause long:0"])):
        s = shell()
        arrive(s, "long", 100.0)
        found = arrive(s, "next", seconds - load, at=1.0, component="b")
        assert [text for text in found if text.startswith("Pause")] == said


def test_the_way_back_counts_where_the_run_cannot_stay() -> None:
    load, back = LINKS.stage_seconds(40) + LINKS.load_seconds(40), LINKS.load_seconds(40)
    for device, price in ((82, 0.0), (80, back)):
        for spare, said in ((-0.01, ["Pause long:0"]), (0.01, [])):
            s = shell(device)
            arrive(s, "long", 100.0)
            seconds = 90.0 - 0.25 - load - price + spare
            found = arrive(s, "next", seconds, at=1.0, component="b")
            assert [text for text in found if text.startswith("Pause")] == said


def test_a_job_turns_urgent_while_another_runs() -> None:
    s = shell()
    arrive(s, "run", 20.0)
    assert arrive(s, "late", 18.5, at=1.0, deadline=1.0 + 3.0 + 8.0 + 18.5) == []
    assert s.scheduler.deadline() == pytest.approx(4.0)
    assert s.step(1) == []
    # 16 seconds are left of the run at the next boundary, 9.25 count of the job's 18.5.
    assert s.wake() == ["Pause run:0"]


def test_no_more_is_left_out_than_the_limit() -> None:
    for seconds, said in ((101.0, ["Pause run:0"]), (102.0, [])):
        s = shell()
        arrive(s, "run", 100.0)
        assert arrive(s, "late", seconds, at=1.0, deadline=1.0 + seconds) == said


def test_what_is_sure_to_be_late_is_not_urgent() -> None:
    s = shell()
    arrive(s, "run", 20.0)
    assert arrive(s, "lost", 18.5, at=1.0, deadline=1.0 + 18.0) == []
    assert s.scheduler.deadline() == 1.0 + 1000.0


def test_an_urgent_run_keeps_its_turn() -> None:
    s = shell()
    arrive(s, "run", 20.0, deadline=24.0)
    # 18 seconds are left at the boundary, of which 9 count.
    assert arrive(s, "short", 9.0, at=1.0) == []
    assert arrive(s, "shorter", 8.7, at=1.0) == ["Pause run:0"]


def test_who_has_waited_too_long_goes_first_and_is_not_paused() -> None:
    s = shell(wait_seconds_max=50.0)
    arrive(s, "run", 100.0)
    assert arrive(s, "old", 500.0, at=20.0) == []
    assert s.scheduler.deadline() == 70.0
    # The run is overdue itself by then; only when it is not may it be paused.
    assert s.wake() == []
    assert s.finish() == ["Settle run finished", "Start old:0"]
    assert arrive(s, "short", 1.0, at=80.0) == []
    s = shell(wait_seconds_max=50.0)
    arrive(s, "first", 10.0)
    arrive(s, "old", 500.0, at=1.0)
    s.feed(m.StepReached(s.lease, 1), 40.0)
    arrive(s, "young", 30.0, at=41.0)
    s.now = 49.0
    assert s.finish() == ["Settle first finished", "Start young:0"]
    assert s.wake() == ["Pause young:0"]
    assert s.now == 51.0


def test_age_weighs() -> None:
    for ageing, first in ((10.0, "old"), (1000.0, "young")):
        s = shell(ageing_seconds=ageing)
        arrive(s, "run", 1.0, steps=1)
        arrive(s, "old", 12.0, at=10.0)
        arrive(s, "young", 10.0, at=50.0)
        assert s.finish()[-1] == f"Start {first}:0"


def test_the_order_of_those_who_wait() -> None:
    s = shell()
    arrive(s, "run", 1.0, steps=1)
    arrive(s, "long", 30.0, at=1.0)
    arrive(s, "short", 3.0, at=2.0)
    assert [e.job for e in s.scheduler.plan(2.0)] == ["run", "short", "long"]
    s.feed(m.TimeReached(), 1001.0)
    assert [e.job for e in s.scheduler.plan(1001.0)] == ["run", "long", "short"]


@pytest.mark.parametrize(
    ("field", "value", "allowed"),
    [
        ("ageing_seconds", 0.0, "a finite number from 0.001"),
        ("wait_seconds_max", float("inf"), "a finite number from 0.001"),
        ("margin_seconds", -1.0, "a finite number from 0"),
        ("discount", 1.5, "a finite number from 0 to 1"),
        ("hysteresis_seconds", float("nan"), "a finite number from 0"),
    ],
)
def test_settings_that_cannot_be(field: str, value: float, allowed: str) -> None:
    with pytest.raises(ValueError, match=rf"urgency\.{field} is .*, allowed: {allowed}$"):
        dataclasses.replace(URGENCY, **{field: value})
