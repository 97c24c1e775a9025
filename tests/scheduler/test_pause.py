"""Pausing and resuming, by a policy that asks for it when it is told to."""

from scheduler import Decision, PricedWork
from scheduler import messages as m
from scheduler.types import Fault, Lease, Outcome
from tests.scheduler.shell import PLAIN, Shell, phase

SIZES = {"a": 40, "b": 40, "c": 40}


class Orders(PricedWork):
    """Runs the jobs that it was told to, in that order; a newly ordered one preempts."""

    steadfast = True

    def __init__(self) -> None:
        super().__init__(PLAIN)
        self.wanted: list[str] = []

    def choose(self, view, now: float) -> Decision:
        if not self.wanted:
            return super().choose(view, now)
        job = next((job for job in view.waiting() if job.id == self.wanted[0]), None)
        if job is None or not view.admits(job):
            return Decision(None)
        return Decision(self.wanted.pop(0), preempt=True)


def shell(**kwargs) -> tuple[Shell, Orders]:
    policy = Orders()
    return Shell(SIZES, **{"device": 100, "policy": policy, **kwargs}), policy


def test_pause_run_another_and_resume() -> None:
    s, policy = shell()
    s.arrive("x", phase("a", work=10, seconds=9.0, steps=9), phase("a", work=1))
    s.set_up()
    s.step(3)
    policy.wanted = ["y"]
    # b is loaded into the free room while x runs on to its next step boundary.
    assert s.arrive("y", phase("b", work=10)) == ["Pause x:0", "Stage b"]
    assert s.scheduler.snapshot()["running"][0]["pausing"] is True
    assert s.step(4) == []
    assert s.ok("Stage b") == ["Load b"]
    assert s.ok("Load b") == []
    assert s.pause(step=5, state=7) == ["Start y:0"]
    waiting = s.scheduler.snapshot()["waiting"][0]
    assert (waiting["standing"], waiting["step"], waiting["carried_bytes"]) == ("paused", 5, 7)
    assert s.scheduler.snapshot()["ledger"]["device"]["by"]["state"] == 7
    assert s.finish() == ["Settle y finished", "Resume x:0"]
    assert s.lease == Lease(3, "x", 0)
    assert s.scheduler.snapshot()["running"][0]["step"] == 5
    assert s.scheduler.plan(0.0)[0].finish_seconds == 5.0
    assert s.finish(state=1) == ["Start x:1"]
    assert s.finish() == ["Settle x finished"]
    s.assert_settled()


def test_a_paused_jobs_components_are_evicted_and_brought_back() -> None:
    s, policy = shell(device=60)
    s.arrive("x", phase("a", work=10, steps=9))
    s.set_up()
    policy.wanted = ["y"]
    assert s.arrive("y", phase("b", work=10)) == ["Pause x:0", "Stage b"]
    assert s.ok("Stage b") == []
    assert s.pause(step=5, state=7) == ["Evict a"]
    assert s.ok("Evict a") == ["Load b"]
    s.set_up()
    assert s.finish() == ["Settle y finished", "Evict b"]
    assert s.ok("Evict b") == ["Load a"]
    assert s.ok("Load a") == ["Resume x:0"]
    s.finish()
    s.assert_settled()


def test_three_deep_resumed_in_any_order() -> None:
    s, policy = shell()
    for name, part in zip("xyz", "abc", strict=True):
        policy.wanted = [name]
        s.arrive(name, phase(part, work=5, steps=9, seconds=9.0))
        if name != "x":
            s.pause(step=2, state=3)
        s.set_up()
        assert s.running() == name
    policy.wanted = ["w"]
    s.arrive("w", phase("a", work=5))
    assert s.pause(step=4, state=3) == ["Evict b"]
    s.set_up()
    assert s.scheduler.snapshot()["ledger"]["device"]["by"]["state"] == 9
    policy.wanted = ["x"]
    assert s.finish() == ["Settle w finished", "Resume x:0"]
    policy.wanted = ["y"]
    s.step(4)
    s.pause(step=6, state=3)
    s.set_up()
    assert s.running() == "y"
    policy.wanted = ["z"]
    s.finish()
    s.set_up()
    assert s.running() == "z"
    s.finish()
    s.set_up()
    assert s.running() == "x"
    assert s.finish() == ["Settle x finished"]
    s.assert_settled()


def test_a_run_that_ends_before_it_could_pause() -> None:
    s, policy = shell()
    s.arrive("x", phase("a", steps=9))
    s.set_up()
    policy.wanted = ["y"]
    s.arrive("y", phase("b"))
    assert s.finish() == ["Settle x finished"]
    assert s.set_up() == ["Load b", "Start y:0"]


def test_the_preempting_job_is_cancelled_before_the_pause_comes() -> None:
    s, policy = shell()
    s.arrive("x", phase("a", steps=9))
    s.set_up()
    policy.wanted = ["y"]
    s.arrive("y", phase("b"))
    assert s.cancel("y") == ["Settle y cancelled"]
    assert s.ok("Stage b") == []
    assert s.pause(step=1, state=1) == ["Resume x:0"]


def test_a_second_preemption_does_not_ask_twice() -> None:
    s, policy = shell()
    s.arrive("x", phase("a", steps=9))
    s.set_up()
    policy.wanted = ["y"]
    s.arrive("y", phase("b"))
    s.cancel("y")
    policy.wanted = ["z"]
    assert s.arrive("z", phase("c")) == ["Stage c"]
    s.ok("Stage b", "Stage c", "Load c")
    assert s.pause(step=1, state=1) == ["Start z:0"]


def test_cancel_of_a_job_that_is_asked_to_pause() -> None:
    s, policy = shell()
    s.arrive("x", phase("a", steps=9))
    s.set_up()
    policy.wanted = ["y"]
    s.arrive("y", phase("a"))
    assert s.cancel("x") == ["Cancel x:0"]
    assert s.pause(step=1, state=1) == ["Settle x cancelled", "Start y:0"]


def test_a_job_that_is_cancelled_is_not_asked_to_pause() -> None:
    s, policy = shell()
    s.arrive("x", phase("a", steps=9))
    s.set_up()
    s.cancel("x")
    policy.wanted = ["y"]
    assert s.arrive("y", phase("a")) == []


def test_cancel_of_a_paused_job_frees_its_state() -> None:
    s, policy = shell()
    s.arrive("x", phase("a", steps=9))
    s.set_up()
    policy.wanted = ["y"]
    s.arrive("y", phase("a"))
    s.pause(step=1, state=1)
    assert s.cancel("x") == ["Settle x cancelled"]
    s.finish()
    s.assert_settled()


def test_no_preemption_where_the_paused_state_could_lock_both_out() -> None:
    """Paused, x may hold 20 bytes beside y's 40 + 25; at 85 bytes that is just possible."""
    for device, asked in ((85, True), (84, False)):
        s, policy = shell(device=device)
        s.arrive("x", phase("a", work=20, steps=9))
        s.set_up()
        policy.wanted = ["y"]
        said = s.arrive("y", phase("b", work=25))
        assert ("Pause x:0" in said) == asked
        policy.wanted = []
        if asked:
            s.set_up()
            s.pause(step=1, state=20)
            s.set_up()
            assert s.running() == "y"
        s.play_out()
        assert s.outcomes() == {"x": Outcome.FINISHED, "y": Outcome.FINISHED}


def test_the_choice_is_made_anew_if_the_pause_leaves_too_little_room() -> None:
    s, policy = shell(device=85, honest=False)
    s.arrive("x", phase("a", work=20, steps=9))
    s.set_up()
    policy.wanted = ["y"]
    s.arrive("y", phase("b", work=25))
    s.set_up()
    assert s.pause(step=1, state=21) == ["Resume x:0"]
    assert s.finish() == ["Settle x finished", "Evict a", "Load b"]
    s.play_out()
    assert s.outcomes()["y"] is Outcome.FINISHED


def test_out_of_memory_after_a_resume_resumes_once_more() -> None:
    s, policy = shell()
    s.arrive("x", phase("a", work=5, steps=9))
    s.set_up()
    policy.wanted = ["y"]
    s.arrive("y", phase("a"))
    s.pause(step=4, state=2)
    s.finish()
    s.step(6)
    assert s.fail(Fault.OUT_OF_MEMORY) == ["Resume x:0"]
    assert s.scheduler.snapshot()["running"][0]["step"] == 4
    assert s.fail(Fault.OUT_OF_MEMORY) == ["Settle x failed"]
    s.assert_settled()


def test_a_shell_that_pauses_of_its_own_accord() -> None:
    s, _ = shell()
    s.arrive("x", phase("a", steps=9))
    s.set_up()
    assert s.pause(step=4, state=1) == ["Resume x:0"]
    assert s.end(s.flight("Resume x:0"), m.RunCancelled(s.lease)) == ["Settle x cancelled"]


def test_while_a_run_lasts_room_is_made_for_weights_alone() -> None:
    """40 and 10 to work in of the run, 40 that nobody needs, and 40 that come fit exactly."""
    for device, said in (
        (130, ["Pause x:0", "Stage b"]),
        (129, ["Pause x:0", "Evict c", "Stage b"]),
    ):
        s, policy = shell(device=device)
        s.warm("c")
        s.arrive("x", phase("a", work=10, steps=9))
        s.set_up()
        policy.wanted = ["y"]
        assert s.arrive("y", phase("b", work=30)) == said
