"""A run in virtual time: its boundaries, who comes and goes at them, and what calling a transfer
off costs."""

from __future__ import annotations

import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from scheduler import messages as m
from scheduler.bound import Use
from scheduler.errors import ProtocolError
from scheduler.machine import Machine
from scheduler.machine_run import Member, SharedRun
from scheduler.types import Component, Lease, Links, Phase, Sharing
from tests.scheduler.shell import demand, phase

TEXT = Sharing("t", 1, 8, 1.0, mid_phase=True)


def member(
    job: str, seconds: float = 10.0, steps: int = 10, step: int = 0, sharing: Sharing = TEXT
) -> Member:
    part = Phase("p", ("a",), 1, seconds, steps, sharing=sharing)
    return Member(Lease(int(job), job, 0), part, step)


def run(*members: Member, now: float = 100.0, rate: float = 1.0) -> SharedRun:
    shared = SharedRun(7, now, rate)
    for each in members:
        shared.begin(each)
    return shared


def names(members: list[Member]) -> list[str]:
    return [each.lease.job for each in members]


def test_one_goes_from_boundary_to_boundary_and_leaves_at_the_last() -> None:
    shared = run(member("1"))
    assert shared.change == 10
    assert [shared.time_of(n) for n in (0, 1, 10)] == [100.0, 101.0, 110.0]
    assert [shared.reached(now) for now in (100.0, 100.9, 101.0, 108.9, 109.0, 110.0)] == [
        *(0, 0, 1, 8, 9, 9)
    ]
    assert names(shared.turn_over(110.0)) == ["1"]
    assert shared.members == []


def test_one_that_goes_on_has_fewer_boundaries_left() -> None:
    shared = run(member("1", step=7))
    assert shared.change == 3
    assert shared.time_of(3) == 103.0


def test_a_phase_without_steps_ends_after_its_seconds() -> None:
    for steps in (0, 1):
        shared = run(member("1", seconds=4.0, steps=steps))
        assert (shared.change, shared.time_of(1), shared.reached(103.9)) == (1, 104.0, 0)
    shared = run(member("1", seconds=0.0, steps=3))
    assert (shared.time_of(3), shared.reached(100.0)) == (100.0, 2)


def test_the_boundary_of_the_change_is_not_counted_as_reached() -> None:
    shared = run(member("1", seconds=4.0, steps=1))
    assert (shared.change, shared.reached(104.0), shared.reached(200.0)) == (1, 0, 0)


@given(st.floats(0.01, 100.0), st.floats(0.5, 1.0), st.floats(0.0, 1e6), st.floats(0.0, 30.0))
def test_a_boundary_is_reached_at_its_time_and_not_a_moment_before(
    seconds: float, rate: float, now: float, later: float
) -> None:
    """However divisions are rounded."""
    shared = run(member("1", seconds=seconds, steps=40), now=now, rate=rate)
    shared.go_on_at(1.0, min(now + later, shared.time_of(1)))
    for boundary in range(2, 40):
        time = shared.time_of(boundary)
        assert shared.reached(time) == boundary
        before = math.nextafter(time, -math.inf)
        assert shared.time_of(shared.reached(before)) <= before


def test_it_goes_on_at_another_rate() -> None:
    shared = run(member("1"), rate=0.5)
    assert shared.time_of(1) == 102.0
    shared.go_on_at(1.0, 103.0)
    assert (shared.time_of(2), shared.time_of(10)) == (103.5, 111.5)
    shared.go_on_at(0.5, 103.5)
    assert shared.reached(103.5) == 2
    assert shared.time_of(3) == 105.5


def test_several_take_the_slowest_ones_steps_times_the_factor() -> None:
    """Each unit adds as much again: two take twice as long, three thrice."""
    shared = run(member("1"), member("2", seconds=4.0, steps=2))
    assert shared.time_of(1) == 104.0
    assert shared.change == 2
    # The second leaves; the first takes its own time from there.
    assert names(shared.turn_over(108.0)) == ["2"]
    assert [(each.lease.job, each.step) for each in shared.members] == [("1", 2)]
    assert (shared.change, shared.time_of(8)) == (8, 116.0)


def test_whoever_joins_comes_in_at_the_next_boundary() -> None:
    shared = run(member("1"))
    shared.join(member("2", steps=20, seconds=20.0), 102.5)
    assert (shared.change, shared.time_of(3)) == (3, 103.0)
    shared.join(member("3", steps=20, seconds=20.0), 102.9)
    assert shared.turn_over(103.0) == []
    assert [(each.lease.job, each.step) for each in shared.members] == [
        ("1", 3),
        ("2", 0),
        ("3", 0),
    ]
    assert (shared.change, shared.time_of(7)) == (7, 103.0 + 7 * 3)


def test_whoever_joins_at_a_boundary_comes_in_at_the_one_after_it() -> None:
    shared = run(member("1"))
    shared.join(member("2"), 102.0)
    assert shared.change == 3


def test_whoever_joins_in_the_last_step_goes_on_alone() -> None:
    shared = run(member("1"))
    shared.join(member("2", steps=4, seconds=8.0), 109.5)
    assert names(shared.turn_over(110.0)) == ["1"]
    assert names(shared.members) == ["2"]
    assert (shared.change, shared.time_of(4)) == (4, 118.0)


def test_somebody_may_leave_before_the_one_who_joins_comes_in() -> None:
    shared = run(member("1", steps=5, seconds=5.0), member("2", steps=2, seconds=2.0))
    shared.join(member("3"), 103.5)  # after the first boundary, at 102, and before 104
    assert shared.change == 2
    assert names(shared.turn_over(104.0)) == ["2"]
    assert names(shared.members) == ["1", "3"]


def test_a_pause_takes_effect_at_the_next_boundary() -> None:
    shared = run(member("1"), member("2"))
    shared.pause(Lease(1, "1", 0), 105.0)
    assert shared.change == 3
    left = shared.turn_over(106.0)
    assert [(each.lease.job, each.step) for each in left] == [("1", 3)]
    assert [(each.lease.job, each.step) for each in shared.members] == [("2", 3)]
    shared.pause(Lease(2, "2", 0), 106.5)
    assert shared.change == 1
    assert names(shared.turn_over(107.0)) == ["2"]


def test_one_of_several_may_be_paused() -> None:
    first, second = member("1"), member("2")
    shared = run(first, second)
    shared.pause(first.lease, 104.5)
    assert (first.stop, second.stop) == (3, None)
    assert names(shared.turn_over(106.0)) == ["1"]
    assert names(shared.members) == ["2"]


def test_a_pause_in_the_last_step_does_not_come_before_the_end() -> None:
    shared = run(member("1"))
    shared.pause(Lease(1, "1", 0), 109.5)
    (left,) = shared.turn_over(110.0)
    assert left.step == 10


def test_one_that_has_not_come_in_yet_is_paused_before_it_begins() -> None:
    shared = run(member("1"))
    late = member("2", step=4)
    shared.join(late, 101.5)
    shared.pause(Lease(2, "2", 0), 101.7)
    shared.pause(Lease(1, "1", 0), 101.7)
    left = shared.turn_over(102.0)
    assert [(each.lease.job, each.step) for each in left] == [("1", 2), ("2", 4)]
    assert shared.members == []


def test_one_of_several_that_have_not_come_in_yet_may_be_paused() -> None:
    shared = run(member("1"))
    second, third = member("2", step=4), member("3", step=5)
    for late in (second, third):
        shared.join(late, 101.5)
    shared.pause(third.lease, 101.7)
    assert names(shared.turn_over(102.0)) == ["3"]
    assert names(shared.members) == ["1", "2"]


def test_what_was_told_of_its_boundaries_is_forgotten_with_each_change() -> None:
    shared = run(member("1", steps=4, seconds=4.0), member("2"))
    shared.seen = 3
    shared.turn_over(108.0)
    assert shared.seen == 0
    assert shared.reached(108.0) == 0


PARTS = [Component("a", 40), Component("b", 20)]
LINKS = Links(disk_to_host=10.0, host_to_device=20.0, fixed_seconds=0.0)


def machine() -> Machine:
    return Machine(PARTS, LINKS, 2.0, 1)


def test_calling_off_what_is_on_its_way_frees_the_link_at_once() -> None:
    device = machine()
    device.carry_out(m.Load("a"), 10.0)
    device.carry_out(m.Load("b"), 10.0)
    assert device.next_end() == 12.0
    device.carry_out(m.Abort("a"), 11.5)
    assert device.end(11.5) == [m.Aborted("a")]
    assert device.next_end() == 12.5
    assert device.end(12.5) == [m.LoadSucceeded("b")]
    assert (device.counts.loads, device.counts.load_seconds) == (1, 2.5)


def test_calling_off_what_has_not_begun_leaves_the_rest_in_line() -> None:
    device = machine()
    device.carry_out(m.Stage("a"), 0.0)
    device.carry_out(m.Stage("b"), 0.0)
    device.carry_out(m.Abort("b"), 1.0)
    assert device.end(1.0) == [m.Aborted("b")]
    assert device.end(4.0) == [m.StageSucceeded("a")]
    assert device.next_end() == float("inf")
    assert device.counts.loads == 0


def test_calling_a_stage_off_is_no_load_less() -> None:
    device = machine()
    device.carry_out(m.Load("a"), 0.0)
    device.end(2.0)
    device.carry_out(m.Stage("b"), 2.0)
    device.carry_out(m.Abort("b"), 3.0)
    assert device.end(3.0) == [m.Aborted("b")]
    assert (device.counts.loads, device.counts.load_seconds) == (1, 2.0)


def test_who_was_paused_goes_on_there_and_is_forgotten_when_it_leaves() -> None:
    device = machine()
    for job in "xy":
        device.know(demand(job, phase("a", seconds=4.0, steps=4)))
    device.carry_out(m.Start(Lease(1, "x", 0), 1), 0.0)
    device.carry_out(m.Pause(Lease(1, "x", 0)), 0.5)
    assert device.end(1.0) == [m.Paused(Lease(1, "x", 0), 1, 1)]
    device.carry_out(m.Pause(Lease(1, "x", 0)), 1.0)
    device.carry_out(m.Resume(Lease(2, "x", 0), 2), 1.0)
    assert device.next_end() == 4.0
    assert device.end(4.0) == [m.PhaseFinished(Lease(2, "x", 0), 1)]
    device.carry_out(m.Start(Lease(3, "y", 0), 3), 4.0)
    device.carry_out(m.Pause(Lease(3, "y", 0)), 4.0)
    device.end(5.0)
    for job in "xy":
        device.forget(job)
    assert (device._demands, device._steps) == ({}, {})
    assert device.counts.uses == [Use(("a",), 1)] * 3, "what Belady's rule is asked about"


def test_calling_off_what_has_come_changes_nothing() -> None:
    device = machine()
    device.carry_out(m.Load("a"), 0.0)
    assert device.end(2.0) == [m.LoadSucceeded("a")]
    device.carry_out(m.Abort("a"), 2.0)
    assert device.next_end() == float("inf")
    assert (device.counts.loads, device.counts.load_seconds) == (1, 2.0)


def test_a_run_beside_a_transfer_is_slower_until_that_has_ended() -> None:
    device = machine()
    device.know(demand("x", phase("b", seconds=4.0)))
    device.carry_out(m.Load("a"), 0.0)
    device.carry_out(m.Start(Lease(1, "x", 0), 1), 0.0)
    assert device.next_end() == 2.0
    device.carry_out(m.Abort("a"), 1.0)
    # Half a second of work is done.
    assert device.end(1.0) == [m.Aborted("a")]
    assert device.next_end() == 4.5


def test_every_boundary_is_told_once_or_only_the_first_is_awaited() -> None:
    device = machine()
    device.know(demand("x", phase("a", seconds=4.0, steps=4)))
    device.carry_out(m.Start(Lease(1, "x", 0), 1), 10.0)
    assert device.boundary(every=False) == device.boundary(every=True) == 11.0
    assert device.newly_reached(10.9) is None
    assert device.newly_reached(11.2) == ([m.StepReached(Lease(1, "x", 0), 1)], 11.0)
    assert device.newly_reached(11.9) is None
    assert (device.boundary(every=False), device.boundary(every=True)) == (float("inf"), 12.0)
    assert device.newly_reached(12.0) == ([m.StepReached(Lease(1, "x", 0), 2)], 12.0)
    assert device.boundary(every=True) == 13.0
    assert device.newly_reached(13.5) == ([m.StepReached(Lease(1, "x", 0), 3)], 13.0)
    assert device.boundary(every=True) == float("inf"), "the next one is the end"
    assert device.newly_reached(14.0) is None


def test_one_run_at_a_time() -> None:
    device = machine()
    text = phase("a", seconds=4.0, steps=4, sharing=TEXT)
    for job in ("x", "y"):
        device.know(demand(job, text))
    device.carry_out(m.Start(Lease(1, "x", 0), 1), 0.0)
    with pytest.raises(ProtocolError, match="run 1 goes on"):
        device.carry_out(m.Start(Lease(2, "y", 0), 2), 0.0)
    device.carry_out(m.Start(Lease(2, "y", 0), 1), 0.0)
    assert device.next_end() == 1.0
    assert device.end(1.0) == [m.StepReached(Lease(1, "x", 0), 1)]
    assert device.end(7.0) == [
        m.StepReached(Lease(2, "y", 0), 3),
        m.PhaseFinished(Lease(1, "x", 0), 1),
    ]
    assert device.end(8.0) == [m.PhaseFinished(Lease(2, "y", 0), 1)]
    assert device.counts.run_seconds == 8.0


def test_nothing_is_told_of_boundaries_once_somebody_leaves() -> None:
    device = machine()
    device.know(demand("x", phase("a", seconds=4.0, steps=4)))
    device.carry_out(m.Start(Lease(1, "x", 0), 1), 10.0)
    assert device.newly_reached(14.0) is None
    assert device.end(14.0) == [m.PhaseFinished(Lease(1, "x", 0), 1)]


def test_the_next_phase_begins_at_its_first_step_though_the_last_was_paused() -> None:
    device = machine()
    device.know(demand("x", *[phase("a", seconds=4.0, steps=4)] * 2))
    device.carry_out(m.Start(Lease(1, "x", 0), 1), 0.0)
    device.carry_out(m.Pause(Lease(1, "x", 0)), 0.5)
    device.end(1.0)
    device.carry_out(m.Resume(Lease(2, "x", 0), 2), 1.0)
    device.end(4.0)
    device.carry_out(m.Start(Lease(3, "x", 1), 3), 4.0)
    assert device.next_end() == 8.0


def test_those_that_start_together_take_the_first_step_together() -> None:
    device = machine()
    image = Sharing("i", 1, 8, 1.0, mid_phase=False)
    for job, starters in (("x", 2), ("y", 2)):
        device.know(demand(job, phase("a", seconds=4.0, steps=4, sharing=image)))
        number = {"x": 1, "y": 2}[job]
        device.carry_out(m.Start(Lease(number, job, 0), 7, starters), 0.0)
    assert device.next_end() == 8.0
    assert device.end(8.0) == [
        m.PhaseFinished(Lease(1, "x", 0), 1),
        m.PhaseFinished(Lease(2, "y", 0), 1),
    ]
    assert device.next_end() == float("inf")


def test_nothing_is_cancelled_here() -> None:
    with pytest.raises(ProtocolError, match="nothing here is cancelled"):
        machine().carry_out(m.Cancel(Lease(1, "x", 0)), 0.0)
