"""A drain starts nothing more and ends when nothing is in flight; what waits is the shell's."""

from scheduler import messages as m
from scheduler.types import Fault
from tests.scheduler.shell import Shell, phase

SIZES = {"a": 40, "b": 40}


def shell() -> Shell:
    return Shell(SIZES, device=100)


def test_an_idle_scheduler_is_drained_at_once() -> None:
    s = shell()
    assert not s.scheduler.drained
    assert s.drain(pause=False) == []
    assert s.scheduler.drained
    assert s.scheduler.credit() == s.scheduler.credit("normal") == 0
    assert s.scheduler.snapshot()["draining"] is True


def test_a_phase_runs_to_its_end_and_no_next_one_starts() -> None:
    s = shell()
    s.warm("a")
    s.arrive("x", phase("a"), phase("a"))
    s.arrive("y", phase("a"))
    assert s.drain(pause=False) == []
    assert not s.scheduler.drained
    assert s.finish(state=1) == []
    assert s.scheduler.drained
    assert [w["job"] for w in s.scheduler.snapshot()["waiting"]] == ["x", "y"]
    assert s.cancel("x") == ["Settle x cancelled"]


def test_a_last_phase_finishes_its_job() -> None:
    s = shell()
    s.warm("a")
    s.arrive("x", phase("a"))
    s.drain(pause=False)
    assert s.finish() == ["Settle x finished"]
    s.assert_settled()


def test_with_pause_a_run_is_asked_to_pause_and_not_resumed() -> None:
    s = shell()
    s.warm("a")
    s.arrive("x", phase("a", steps=9))
    assert s.drain(pause=False) == []
    assert s.drain(pause=True) == ["Pause x:0"]
    assert s.drain(pause=True) == []
    assert s.step(3) == []
    assert s.pause(step=4, state=1) == []
    assert s.scheduler.drained
    assert s.scheduler.snapshot()["waiting"][0]["step"] == 4


def test_a_drain_keeps_a_job_however_much_it_carries() -> None:
    s = Shell(SIZES, device=50, honest=False)
    s.arrive("x", phase("a", work=10, steps=9))
    s.set_up()
    s.drain(pause=True)
    assert s.pause(step=4, state=30) == []
    assert s.scheduler.snapshot()["waiting"][0]["carried_bytes"] == 30


def test_loads_run_to_their_end_and_their_job_waits() -> None:
    s = shell()
    s.arrive("x", phase("a"))
    s.drain(pause=True)
    assert s.scheduler.snapshot()["target"] is None
    assert not s.scheduler.drained
    assert s.ok("Stage a") == []
    assert s.scheduler.drained
    assert s.scheduler.credit() == 0


def test_failures_during_a_drain_fail_no_waiting_job() -> None:
    s = shell()
    s.arrive("x", phase("a"))
    s.drain(pause=True)
    assert s.end(s.flight("Stage a"), m.StageFailed("a", "gone", True)) == []
    assert s.scheduler.deadline() is None
    assert s.feed(m.TimeReached(), 1000.0) == []
    assert s.scheduler.drained


def test_a_run_out_of_memory_is_not_tried_again() -> None:
    s = shell()
    s.warm("a")
    s.arrive("x", phase("a"))
    s.drain(pause=True)
    assert s.fail(Fault.OUT_OF_MEMORY) == []
    assert s.scheduler.drained
    assert [w["job"] for w in s.scheduler.snapshot()["waiting"]] == ["x"]


def test_an_arrival_during_a_drain_waits() -> None:
    s = shell()
    s.warm("a")
    s.drain(pause=False)
    assert s.arrive("x", phase("a")) == []
    assert s.arrive("huge", phase("a", work=1000)) == ["Settle huge refused"]
    assert s.scheduler.drained


def test_a_cancelled_run_is_not_asked_to_pause() -> None:
    s = shell()
    s.warm("a")
    s.arrive("x", phase("a"))
    s.cancel("x")
    assert s.drain(pause=True) == []
