"""Components that are brought in ahead of time, beside a run, and called off (rule 5 of the policy,
and what the core makes of it)."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest

from scheduler import messages as m
from scheduler.types import Fault, Outcome
from tests.scheduler.shell import DEFAULTS, Shell, phase
from tests.scheduler.test_policy import NEUTRAL

SIZES = {"a": 40, "b": 40, "c": 20, "d": 10}


def shell(device: int = 100, host: int = 1000, attempts: int = 3, **changes: Any) -> Shell:
    policy = replace(NEUTRAL, **changes)
    settings = replace(DEFAULTS, policy=policy, load_attempts_max=attempts)
    s = Shell(SIZES, device=device, host=host, settings=settings)
    s.warm("a")
    return s


def test_5_what_a_run_needs_next_comes_in_while_it_lasts() -> None:
    s = shell()
    assert s.arrive("x", phase("a"), phase("b")) == ["Start x:0", "Stage b"]
    assert s.ok("Stage b") == ["Load b"]
    assert s.ok("Load b") == []
    assert s.finish(state=1) == ["Start x:1"]


def test_5_switched_off_it_does_not() -> None:
    s = shell(prefetch=False)
    assert s.arrive("x", phase("a"), phase("b")) == ["Start x:0"]
    assert s.finish(state=1) == ["Stage b"]


def test_5_then_what_the_best_of_those_that_wait_needs() -> None:
    s = shell()
    s.arrive("x", phase("a", seconds=5.0), phase("b"))
    s.arrive("far", phase("c", seconds=99.0))
    assert s.arrive("near", phase("d", seconds=50.0)) == []
    assert s.ok("Stage b") == ["Load b"]
    assert s.ok("Load b") == ["Stage d"]
    assert s.ok("Stage d") == ["Load d"]
    # What comes after that is not looked for.
    assert s.ok("Load d") == []


def test_5_one_by_one() -> None:
    s = shell()
    assert s.arrive("x", phase("a"), phase("c", "d")) == ["Start x:0", "Stage c"]
    assert s.ok("Stage c") == ["Load c"]
    assert s.ok("Load c") == ["Stage d"]
    assert s.set_up() == ["Load d"]


def test_5_only_the_coming_phase_of_a_run() -> None:
    s = shell(device=150)
    s.arrive("x", phase("a"), phase("b"), phase("c"))
    s.set_up()
    assert s.finish(state=1) == ["Start x:1", "Stage c"]


@pytest.mark.parametrize(("device", "comes"), [(101, True), (100, False)])
def test_5_only_into_what_nobody_needs_once_the_run_has_gone_on(device: int, comes: bool) -> None:
    """40 and 10 of a run, which grows by 10 in its next phase, and 40 that come."""
    s = shell(device)
    s.arrive("x", phase("a", work=10), phase("a", work=21, state_max=0))
    said = s.arrive("y", phase("b", seconds=99.0, work=1))
    assert (said == ["Stage b"]) == comes


def test_5_the_phase_that_comes_is_the_one_that_needs_room() -> None:
    s = shell(100)
    later = phase("a", work=10, state_max=0)
    s.arrive("x", phase("a", work=10), phase("a", work=21, state_max=0), later)
    assert s.arrive("y", phase("b", seconds=99.0, work=1)) == []


@pytest.mark.parametrize(("device", "comes"), [(90, True), (89, False)])
def test_5_into_all_the_room_that_there_is(device: int, comes: bool) -> None:
    """40 and 10 of a run in its last phase, and 40 that come."""
    s = shell(device)
    s.arrive("x", phase("a", work=10))
    said = s.arrive("y", phase("b", seconds=99.0, work=1))
    assert (said == ["Stage b"]) == comes


def test_5_nothing_goes_that_need_not_go() -> None:
    s = shell(device=90)
    s.warm("d")
    s.arrive("x", phase("a"))
    assert s.arrive("y", phase("c", seconds=99.0, work=1)) == ["Stage c"]
    s.ok("Stage c", "Load c")
    s = shell(device=71)
    s.warm("d")
    s.arrive("x", phase("a"))
    assert s.arrive("y", phase("c", seconds=99.0, work=1)) == ["Stage c"]


def test_5_what_has_failed_does_not_keep_the_next_component_out() -> None:
    s = shell()
    s.arrive("x", phase("a", seconds=50.0), phase("b", "c"))
    for _ in range(2):
        assert s.end(s.flight("Stage b"), m.StageFailed("b", "why", False)) == ["Stage b"]
    assert s.end(s.flight("Stage b"), m.StageFailed("b", "why", False)) == ["Stage c"]


def test_5_a_run_that_shrinks_makes_no_room_yet() -> None:
    s = shell(90)
    s.arrive("x", phase("a", work=11), phase("a", work=1))
    assert s.arrive("y", phase("b", seconds=99.0)) == []


def test_5_what_nobody_needs_makes_way() -> None:
    s = shell(device=91)
    s.warm("b")
    s.arrive("x", phase("a"))
    assert s.arrive("y", phase("c", seconds=99.0, work=1)) == ["Evict b", "Stage c"]
    s = shell(device=91)
    s.warm("b")
    s.arrive("x", phase("a"))
    # But b does not for c while anybody waits for it.
    s.arrive("z", phase("b", seconds=99.0, work=1))
    assert s.arrive("y", phase("c", seconds=50.0, work=1)) == []
    assert s.finish() == ["Settle x finished", "Evict a", "Stage c"]


def test_5_the_master_of_what_nobody_needs_makes_way_and_no_other() -> None:
    s = shell(device=200, host=80)
    s.warm("b")
    s.arrive("x", phase("a"))
    assert s.arrive("y", phase("c", seconds=99.0)) == ["Evict b"]
    assert s.ok("Evict b") == ["Unstage b"]
    assert s.ok("Unstage b") == ["Stage c"]
    s = shell(device=200, host=80)
    s.warm("b")
    s.arrive("x", phase("a"))
    s.arrive("z", phase("b", seconds=300.0))
    assert s.arrive("y", phase("c", seconds=99.0)) == []


def test_a_transfer_is_called_off_if_the_target_needs_the_link() -> None:
    s = shell(device=150)
    s.arrive("x", phase("a", seconds=50.0, steps=9), phase("b"))
    s.ok("Stage b")
    assert s.arrive("y", phase("c", seconds=1.0)) == ["Pause x:0", "Stage c", "Abort b"]
    # It is asked for once.
    assert s.step(1) == []
    assert s.abort("b") == []
    components = s.scheduler.snapshot()["components"]
    assert (components["b"]["tier"], components["b"]["host"]) == ("staged", True)
    assert s.ok("Stage c") == ["Load c"]
    assert s.pause(2) == []
    assert s.ok("Load c") == ["Start y:0"]
    assert s.finish() == ["Settle y finished", "Resume x:0", "Load b"]


def test_a_stage_that_was_called_off_leaves_nothing() -> None:
    s = shell()
    s.arrive("x", phase("a", seconds=50.0, steps=9), phase("b"))
    assert s.arrive("y", phase("c", seconds=1.0)) == ["Pause x:0", "Stage c", "Abort b"]
    host = s.books.host_bytes()
    before = s.scheduler.snapshot()["ignored_events"]
    s.abort("b")
    assert s.scheduler.snapshot()["ignored_events"] == before
    assert s.scheduler.snapshot()["components"]["b"]["tier"] == "absent"
    assert s.books.host_bytes() == host - 40
    s.play_out()
    s.assert_settled()


def test_what_is_loaded_for_its_own_turn_is_not_called_off_for_another() -> None:
    s = shell()
    assert s.arrive("x", phase("b", seconds=50.0)) == ["Stage b"]
    assert s.arrive("y", phase("c", seconds=1.0)) == ["Stage c"]
    s.play_out()
    s.assert_settled()


def test_it_is_not_called_off_for_a_target_that_needs_no_link() -> None:
    s = shell()
    s.warm("d")
    s.arrive("x", phase("a", seconds=50.0, steps=9), phase("b"))
    assert s.arrive("y", phase("d", seconds=1.0)) == ["Pause x:0"]
    assert s.pause(2) == ["Start y:0"]
    assert s.flight("Stage b")


def test_what_the_target_needs_itself_is_not_called_off_and_is_its_own_from_then_on() -> None:
    s = shell()
    s.arrive("x", phase("a", seconds=50.0, steps=9), phase("b"))
    assert s.arrive("y", phase("b", seconds=1.0)) == ["Pause x:0"]
    # Not for a later target either.
    assert s.arrive("z", phase("c", seconds=0.5)) == []
    s.play_out()


def test_it_may_have_come_before_it_was_called_off() -> None:
    s = shell()
    s.arrive("x", phase("a", seconds=50.0, steps=9), phase("b"))
    s.ok("Stage b")
    s.arrive("y", phase("c", seconds=1.0))
    assert s.ok("Load b") == []
    assert s.scheduler.snapshot()["components"]["b"]["tier"] == "resident"
    before = s.scheduler.snapshot()["ignored_events"]
    assert s.feed(m.Aborted("b")) == []
    assert s.scheduler.snapshot()["ignored_events"] == before + 1
    s.play_out()
    s.assert_settled()


def test_what_was_called_off_and_is_needed_now_comes_again() -> None:
    s = shell()
    s.arrive("x", phase("a", seconds=50.0, steps=9), phase("b"))
    s.ok("Stage b")
    s.arrive("y", phase("c", seconds=1.0))
    s.cancel("y")
    s.arrive("z", phase("b", seconds=1.0))
    s.pause(1)
    assert s.abort("b") == ["Load b"]
    assert s.ok("Load b") == ["Start z:0"]


def test_nobody_is_told_that_a_transfer_was_called_off_which_was_not() -> None:
    s = shell()
    s.arrive("x", phase("a"), phase("b"))
    for event in (m.Aborted("b"), m.Aborted("a"), m.Aborted("nix")):
        before = s.scheduler.snapshot()["ignored_events"]
        assert s.feed(event) == []
        assert s.scheduler.snapshot()["ignored_events"] == before + 1
    assert s.scheduler.snapshot()["components"]["b"]["tier"] == "staging"
    s.play_out()


def test_what_fails_ahead_of_time_is_tried_again_and_fails_nobody() -> None:
    s = shell(attempts=2)
    s.arrive("x", phase("a"), phase("b"))
    s.ok("Stage b")
    load = s.flight("Load b")
    assert s.end(load, m.LoadFailed("b", "torn", Fault.LOAD)) == ["Load b"]
    assert s.end(s.flight("Load b"), m.LoadFailed("b", "torn", Fault.LOAD)) == []
    assert s.finish(state=1) == []
    assert s.wake() == ["Load b"]
    assert s.ok("Load b") == ["Start x:1"]
    assert s.finish() == ["Settle x finished"]


def test_what_fails_for_good_fails_those_who_wait_for_it_and_the_run_at_its_phase_end() -> None:
    s = shell()
    s.arrive("x", phase("a"), phase("b"))
    s.arrive("y", phase("c"), phase("b", seconds=99.0))
    said = s.end(s.flight("Stage b"), m.StageFailed("b", "gone", permanent=True))
    assert said == ["Settle y failed"]
    assert s.finish(state=1) == ["Settle x failed"]
    assert {s.outcomes()[job] for job in "xy"} == {Outcome.FAILED}


def test_out_of_memory_ahead_of_time_clears_nothing() -> None:
    s = shell()
    s.warm("c")
    s.arrive("x", phase("a"), phase("d"))
    s.ok("Stage d")
    assert s.end(s.flight("Load d"), m.LoadFailed("d", "full", Fault.OUT_OF_MEMORY)) == ["Load d"]
    assert s.finish(state=1) == []
    assert s.ok("Load d") == ["Start x:1"]


def test_what_comes_again_after_it_was_called_off_can_be_called_off_again() -> None:
    s = shell(device=150)
    s.arrive("x", phase("a", seconds=50.0, steps=9), phase("b"))
    assert s.arrive("y", phase("c", seconds=1.0)) == ["Pause x:0", "Stage c", "Abort b"]
    s.abort("b")
    s.set_up()
    s.pause(1)
    assert s.finish() == ["Settle y finished", "Resume x:0", "Stage b"]
    # An end that is repeated is not this one's.
    assert s.feed(m.Aborted("b")) == []
    assert s.scheduler.snapshot()["components"]["b"]["tier"] == "staging"
    assert s.arrive("z", phase("d", seconds=1.0)) == ["Pause x:0", "Stage d", "Abort b"]
    s.abort("b")
    s.play_out()
    s.assert_settled()
