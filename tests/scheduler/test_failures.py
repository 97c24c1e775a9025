"""The ladders: a stage, a load or a run that fails, and what the core does about it."""

from dataclasses import replace

import pytest

from scheduler import messages as m
from scheduler.types import Fault, Outcome
from tests.scheduler.shell import DEFAULTS, Shell, phase

SIZES = {"a": 40, "b": 40, "c": 20}


def shell(**kwargs) -> Shell:
    return Shell(SIZES, **{"device": 100, "host": 1000, **kwargs})


def fail_stage(s: Shell, name: str, *, permanent: bool = False, detail: str = "why") -> list[str]:
    return s.end(s.flight(f"Stage {name}"), m.StageFailed(name, detail, permanent))


def fail_load(s: Shell, name: str, fault: Fault = Fault.LOAD) -> list[str]:
    return s.end(s.flight(f"Load {name}"), m.LoadFailed(name, "torn", fault))


def tier(s: Shell, name: str) -> str:
    return s.scheduler.snapshot()["components"][name]["tier"]


def test_a_stage_is_tried_again_at_once_and_then_fails_its_job() -> None:
    s = shell()
    s.arrive("x", phase("a"))
    assert fail_stage(s, "a") == ["Stage a"]
    assert fail_stage(s, "a") == ["Stage a"]
    assert fail_stage(s, "a", detail="read error") == ["Settle x failed"]
    assert s.books.settled["x"].fault is Fault.LOAD
    assert s.books.settled["x"].detail == "a: read error"
    assert tier(s, "a") == "failed"
    assert s.scheduler.snapshot()["components"]["a"]["error"] == "read error"
    s.assert_settled()


def test_success_forgets_the_failures_before_it() -> None:
    s = shell()
    s.arrive("x", phase("a"))
    fail_stage(s, "a")
    fail_stage(s, "a")
    assert s.ok("Stage a") == ["Load a"]
    assert fail_load(s, "a") == ["Load a"]
    assert fail_load(s, "a") == ["Load a"]
    assert s.ok("Load a") == ["Start x:0"]
    s.finish()
    s.arrive("y", phase("b", "c", work=40))
    s.set_up()
    s.finish()
    s.arrive("z", phase("a", work=60))
    s.ok("Evict b", "Evict c")
    assert fail_load(s, "a") == ["Load a"]
    assert fail_load(s, "a") == ["Load a"]
    assert fail_load(s, "a") == ["Settle z failed"]
    s.assert_settled()


def test_after_a_failure_the_component_rests_and_its_other_jobs_wait() -> None:
    s = shell()
    s.feed(m.TimeReached(), 100.0)
    s.arrive("x", phase("a"))
    s.arrive("y", phase("a"))
    s.arrive("z", phase("c"))
    fail_stage(s, "a")
    fail_stage(s, "a")
    assert s.scheduler.deadline() is None
    assert fail_stage(s, "a") == ["Settle x failed", "Stage c"]
    assert s.scheduler.deadline() == 105.0
    s.set_up()
    assert s.finish() == ["Settle z finished"]
    assert s.feed(m.TimeReached(), 104.9) == []
    assert s.wake() == ["Stage a"]
    assert s.scheduler.deadline() is None
    assert fail_stage(s, "a") == ["Stage a"]
    assert s.set_up() == ["Load a", "Start y:0"]


def test_a_permanent_failure_fails_every_job_that_will_need_it() -> None:
    s = shell()
    s.arrive("x", phase("a"))
    s.arrive("later", phase("c"), phase("a"))
    s.arrive("other", phase("c"))
    said = fail_stage(s, "a", permanent=True, detail="no such file")
    assert said == ["Settle x failed", "Settle later failed", "Stage c"]
    assert s.books.settled["later"].detail == "a: no such file"
    assert s.arrive("new", phase("b"), phase("a")) == ["Settle new failed"]
    assert s.books.settled["new"].fault is Fault.LOAD
    s.play_out()
    assert s.arrive("again", phase("a")) == ["Stage a"]


def test_a_job_that_misses_two_components_for_good_fails_once() -> None:
    s = shell()
    s.arrive("x", phase("a"))
    fail_stage(s, "a", permanent=True)
    s.arrive("y", phase("b"))
    fail_stage(s, "b", permanent=True)
    assert s.arrive("both", phase("a"), phase("b")) == ["Settle both failed"]
    s.assert_settled()


def test_of_two_that_rest_the_one_that_failed_first_is_tried_again_first() -> None:
    s = shell()
    for job, name, now in (("x", "a", 0.0), ("y", "b", 2.0)):
        s.now = now
        s.arrive(job, phase(name))
        for _ in range(3):
            fail_stage(s, name)
    assert s.scheduler.deadline() == 5.0
    s.wake()
    assert s.scheduler.deadline() == 7.0


def test_after_its_rest_a_component_is_tried_as_often_as_at_first() -> None:
    s = shell()
    s.arrive("x", phase("a"))
    for _ in range(3):
        fail_stage(s, "a")
    s.arrive("y", phase("a"))
    assert s.wake() == ["Stage a"]
    assert fail_stage(s, "a") == ["Stage a"]
    assert fail_stage(s, "a") == ["Stage a"]
    assert fail_stage(s, "a") == ["Settle y failed"]


def test_a_running_job_meets_a_permanent_failure_at_its_phase_end() -> None:
    """Nothing is loaded while a job runs today, so the failure comes from a cancelled target."""
    s = shell()
    s.warm("c")
    s.arrive("gone", phase("a"))
    s.arrive("x", phase("c"), phase("a"))
    s.cancel("gone")
    assert s.running() == "x"
    assert fail_stage(s, "a", permanent=True) == []
    assert s.finish(state=1) == ["Settle x failed"]
    s.assert_settled()


def test_nobodys_failure_fails_nobody() -> None:
    s = shell(settings=replace(DEFAULTS, load_attempts_max=1))
    s.warm("c")
    s.arrive("gone", phase("a"))
    s.cancel("gone")
    s.arrive("x", phase("b"), phase("a"))
    assert fail_stage(s, "a") == []
    assert s.set_up() == ["Load b", "Start x:0"]
    assert s.finish() == []
    assert s.wake() == ["Evict b", "Stage a"]
    s.play_out()
    assert s.outcomes()["x"] is Outcome.FINISHED


def test_a_failed_load_keeps_its_master() -> None:
    s = shell(settings=replace(DEFAULTS, load_attempts_max=2))
    s.arrive("x", phase("a"))
    s.ok("Stage a")
    assert fail_load(s, "a") == ["Load a"]
    assert fail_load(s, "a") == ["Settle x failed"]
    assert s.books.settled["x"].fault is Fault.LOAD
    assert s.books.host_bytes() == 40
    s.arrive("y", phase("a"))
    assert s.wake() == ["Load a"]


def test_the_master_of_a_failed_load_is_unstaged_for_room_and_stays_failed() -> None:
    s = shell(host=40, settings=replace(DEFAULTS, load_attempts_max=1))
    s.arrive("x", phase("a"))
    s.ok("Stage a")
    fail_load(s, "a")
    assert s.arrive("y", phase("b")) == ["Unstage a"]
    assert s.ok("Unstage a") == ["Stage b"]
    assert tier(s, "a") == "failed"
    s.arrive("z", phase("a"))
    assert s.set_up() == ["Load b", "Start y:0"]
    assert s.finish() == ["Settle y finished"]
    assert s.wake() == ["Evict b"]
    s.play_out()
    assert s.outcomes()["z"] is Outcome.FINISHED


def test_a_failure_whose_time_is_over_while_its_master_goes() -> None:
    s = shell(host=40, settings=replace(DEFAULTS, load_attempts_max=1))
    s.arrive("x", phase("a"))
    s.ok("Stage a")
    fail_load(s, "a")
    s.arrive("y", phase("b"))
    assert s.wake() == []
    assert s.ok("Unstage a") == ["Stage b"]
    assert tier(s, "a") == "absent"


def test_a_load_out_of_memory_drives_out_all_else_first() -> None:
    s = shell()
    s.warm("b", "c")
    s.arrive("x", phase("a", work=0))
    assert fail_load_after_stage(s) == ["Evict b", "Evict c"]
    assert s.ok("Evict b") == []
    assert s.ok("Evict c") == ["Load a"]
    assert s.ok("Load a") == ["Start x:0"]


def fail_load_after_stage(s: Shell) -> list[str]:
    s.ok("Stage a")
    return fail_load(s, "a", Fault.OUT_OF_MEMORY)


def test_a_load_out_of_memory_fails_its_job_after_the_last_attempt() -> None:
    s = shell()
    s.arrive("x", phase("a"))
    s.arrive("y", phase("c"))
    assert fail_load_after_stage(s) == ["Load a"]
    assert fail_load(s, "a", Fault.OUT_OF_MEMORY) == ["Load a"]
    assert fail_load(s, "a", Fault.OUT_OF_MEMORY) == ["Settle x failed", "Stage c"]
    assert s.books.settled["x"].fault is Fault.OUT_OF_MEMORY
    assert s.books.settled["x"].detail.startswith(
        "the device has no room for the 40 bytes of a beside what cannot go, the budget is 100 ("
    )
    s.play_out()


def test_a_run_out_of_memory_is_tried_once_more_with_the_device_to_itself() -> None:
    s = shell()
    s.warm("b", "c")
    s.arrive("x", phase("c", work=10, steps=9), phase("c", work=10))
    s.step(4)
    assert s.fail(Fault.OUT_OF_MEMORY) == ["Evict b"]
    assert s.ok("Evict b") == ["Start x:0"]
    ledger = s.scheduler.snapshot()["ledger"]["device"]
    assert ledger["by"] == {"run": 80, "state": 0, "weights": 20}
    assert s.scheduler.snapshot()["running"][0]["step"] == 0
    assert s.finish(state=1) == ["Start x:1"]
    ledger = s.scheduler.snapshot()["ledger"]["device"]
    assert ledger["by"] == {"run": 10, "state": 1, "weights": 20}
    assert s.fail(Fault.OUT_OF_MEMORY) == ["Start x:1"]
    assert s.fail(Fault.OUT_OF_MEMORY, "no luck") == ["Settle x failed"]
    assert (s.books.settled["x"].fault, s.books.settled["x"].detail) == (
        Fault.OUT_OF_MEMORY,
        "phase denoise ran out of memory with the device to itself: 20 bytes of weights, "
        "10 to work in, the budget is 100 (no luck)",
    )
    s.assert_settled()


def test_alone_means_that_a_late_load_is_evicted_too() -> None:
    s = shell()
    s.warm("c")
    s.arrive("gone", phase("a"))
    s.ok("Stage a")
    s.arrive("x", phase("c", work=1))
    s.cancel("gone")
    assert s.fail(Fault.OUT_OF_MEMORY) == []
    assert s.ok("Load a") == ["Evict a"]
    assert s.ok("Evict a") == ["Start x:0"]


def test_a_run_that_fails_otherwise_fails_its_job() -> None:
    s = shell()
    s.arrive("x", phase("a"), phase("b"))
    s.set_up()
    assert s.fail(Fault.RUN, "index out of range") == ["Settle x failed"]
    assert (s.books.settled["x"].fault, s.books.settled["x"].detail) == (
        Fault.RUN,
        "index out of range",
    )
    s.assert_settled()


def test_another_job_may_go_before_the_second_try() -> None:
    s = shell()
    s.warm("a", "c")
    s.arrive("x", phase("a", seconds=9.0))
    s.arrive("y", phase("c", seconds=1.0))
    assert s.fail(Fault.OUT_OF_MEMORY) == ["Start y:0"]
    assert s.finish() == ["Settle y finished", "Evict c"]
    assert s.ok("Evict c") == ["Start x:0"]


def test_more_state_than_was_expected_is_owed_until_there_is_room() -> None:
    s = shell(honest=False)
    s.warm("a", "b")
    s.arrive("x", phase("a", work=5), phase("a", work=5))
    assert s.finish(state=30) == ["Evict b"]
    snapshot = s.scheduler.snapshot()
    assert snapshot["ledger"]["device"]["by"] == {"state": 20, "weights": 80}
    assert snapshot["waiting"][0]["carried_bytes"] == 30
    assert s.ok("Evict b") == ["Start x:1"]
    assert s.scheduler.snapshot()["ledger"]["device"]["by"] == {
        "run": 5,
        "state": 30,
        "weights": 40,
    }
    s.finish()
    s.assert_settled()


@pytest.mark.parametrize(("state", "fits"), [(60, True), (61, False)])
def test_state_that_leaves_no_room_for_the_next_phase_fails_the_job(state: int, fits: bool) -> None:
    s = shell(honest=False)
    s.arrive("x", phase("a", work=1), phase("b", work=0))
    s.set_up()
    said = s.finish(state=state)
    if fits:
        assert "Stage b" in said
        s.play_out()
        assert s.outcomes()["x"] is Outcome.FINISHED
    else:
        assert said == ["Settle x failed"]
        assert s.books.settled["x"].fault is Fault.OUT_OF_MEMORY
        assert s.books.settled["x"].detail == (
            "phase denoise needs 40 bytes on the device beside 61 of its own state and 0 of other "
            "jobs', the budget is 100"
        )
    s.assert_settled()


@pytest.mark.parametrize("state", [30, 31, 61])
def test_if_no_begun_job_fits_any_more_the_one_that_needs_most_goes(state: int) -> None:
    """x carries 30 bytes into a phase of 50 at 110; y said it would carry 2 and comes with more."""
    s = Shell({"a": 10, "b": 40}, device=110, honest=False)
    s.warm("a", "b")
    s.arrive("x", phase("a", work=30, state_max=30), phase("b", work=10, seconds=20.0))
    s.arrive("y", phase("a", work=30, state_max=2), phase("b", work=10, seconds=9.0))
    s.finish(state=30)
    assert s.running() == "y"
    s.finish(state=state)
    if state == 30:
        s.play_out()
        assert set(s.outcomes().values()) == {Outcome.FINISHED}
    else:
        assert s.books.settled["y"].fault is Fault.OUT_OF_MEMORY
        assert "and 30 of other jobs'" in s.books.settled["y"].detail
        s.play_out()
        assert s.outcomes()["x"] is Outcome.FINISHED


def test_most_is_what_it_carries_and_what_its_phase_needs() -> None:
    """x would need 45 + 50 bytes and y 10 + 90, of 100; y carries less beside its larger phase."""
    s = Shell({"a": 10, "b": 50, "c": 90}, device=100, honest=False)
    s.warm("a")
    s.arrive("y", phase("a", work=5, state_max=0), phase("c", work=0, seconds=20.0))
    s.arrive("x", phase("a", work=5, state_max=0, seconds=2.0), phase("b", work=0, seconds=9.0))
    s.finish(state=10)
    assert s.running() == "x"
    assert s.finish(state=45)[0] == "Settle y failed"
    assert s.books.settled["y"].detail.startswith("phase denoise needs 90 bytes on the device")


def test_who_is_to_have_the_device_to_itself_is_prepared_while_another_runs() -> None:
    """Clear it must be only when the run has ended."""
    policy = replace(DEFAULTS.policy, preempt=True, wait_seconds_max=50.0)
    settings = replace(DEFAULTS, policy=policy)
    s = Shell({"a": 20, "b": 40, "d": 100}, device=110, settings=settings)
    s.warm("b")
    s.arrive("x", phase("b", seconds=30.0))
    s.arrive("y", phase("a", seconds=20.0, steps=9, state_max=0))
    s.arrive("z", phase("d", seconds=1.0))
    s.fail(Fault.OUT_OF_MEMORY)
    s.set_up()
    assert s.running() == "z"
    s.finish()
    s.set_up()
    assert s.running() == "y"
    assert s.wake() == ["Pause y:0", "Load b"]
    assert s.ok("Load b") == []
    assert s.pause(1) == ["Evict a"]
    assert s.ok("Evict a") == ["Start x:0"]


def test_a_job_that_no_longer_fits_waits_for_those_that_do() -> None:
    """x has waited too long and would go first, but not beside the 31 bytes that y has come to."""
    s = Shell({"a": 10, "b": 70}, device=100, honest=False)
    s.warm("a")
    s.arrive("x", phase("a", work=20, state_max=1), phase("b", work=0, seconds=9.0))
    s.arrive("y", phase("a", work=20, state_max=1), phase("a", work=1, seconds=2.0))
    s.finish(state=1)
    assert s.running() == "y"
    s.now = 700.0
    assert s.finish(state=31) == ["Start y:1"]
    assert s.finish() == ["Settle y finished", "Stage b"]
    s.play_out()
    assert s.outcomes()["x"] is Outcome.FINISHED


def test_what_a_phase_was_entered_with_bounds_what_comes_out_of_it() -> None:
    """x carries 20 bytes into a phase that may add 20; in the phase after it that makes 40 + 41."""
    for device, both in ((101, True), (100, False)):
        s = Shell({"a": 10, "b": 40}, device=device)
        s.warm("a", "b")
        small, large = phase("a", work=20), phase("b", work=1, seconds=99.0)
        s.arrive("x", small, phase("a", work=20, seconds=99.0), large)
        s.arrive("y", small, phase("a", seconds=1.0))
        s.finish(state=20)
        s.set_up()
        assert s.running() == ("y" if both else "x")


def begin_three(state: int, state_max: int | None) -> Shell:
    """Each newcomer is shorter than what went before it has left, so each would go first."""
    s = Shell({"a": 10, "b": 40}, device=110)
    s.warm("a", "b")
    for name, seconds in (("x", 99.0), ("y", 50.0), ("z", 20.0)):
        first = phase("a", work=30, state_max=state_max)
        s.arrive(name, first, phase("b", work=10, seconds=seconds))
        if s.running() != name:
            s.finish(state=state)
            s.set_up()
    return s


def test_a_job_is_begun_only_if_all_begun_ones_can_still_end() -> None:
    """Each may carry 30 bytes into a phase that takes 50 more: at 110 two can still pass one by
    one, with a third none could."""
    s = begin_three(state=30, state_max=None)
    assert s.running() == "y"
    assert s.lease.phase == 1
    assert s.finish() == ["Settle y finished", "Load a"]
    assert s.ok("Load a") == ["Start z:0"]
    assert s.play_out() == ["z", "z", "x"]
    s.assert_settled()


def test_tighter_bounds_let_more_jobs_be_begun() -> None:
    s = begin_three(state=2, state_max=2)
    assert s.running() == "z"
    assert s.lease.phase == 0
    assert s.play_out() == ["z", "z", "y", "x"]
