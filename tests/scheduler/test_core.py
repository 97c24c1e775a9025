"""A job's way through the core, and who goes when."""

from dataclasses import replace

import pytest

from scheduler import WAIT, BadDecision, Decision, PricedWork, ProtocolError, Scheduler
from scheduler import messages as m
from scheduler.types import Budget, Component, Fault, Lease, Outcome
from tests.scheduler.shell import DEFAULTS, LINKS, PLAIN, Shell, Steadfast, brief, demand, phase

SIZES = {"text": 20, "unet": 50, "vae": 10, "llm": 70}
IMAGE = (
    phase("text", work=2, seconds=1.0, name="encode"),
    phase("unet", work=10, seconds=8.0, steps=8, name="denoise"),
    phase("vae", work=30, seconds=1.0, name="decode"),
)
CHAT = (phase("llm", work=10, seconds=3.0, steps=30, name="generate"),)


def shell(**kwargs) -> Shell:
    return Shell(SIZES, **{"device": 100, "host": 150, **kwargs})


def test_one_job_from_arrival_to_settle() -> None:
    s = shell()
    assert s.arrive("x", *IMAGE) == ["Stage text"]
    assert s.ok("Stage text") == ["Load text"]
    assert s.ok("Load text") == ["Start x:0"]
    assert s.lease == Lease(1, "x", 0)
    assert s.finish(state=3) == ["Stage unet"]
    assert s.ok("Stage unet") == ["Load unet"]
    assert s.ok("Load unet") == ["Start x:1"]
    assert s.step(5) == []
    # 20 + 50 of weights, 4 of state: 26 free, the decode takes 10 + 30.
    assert s.finish(state=4) == ["Evict unet", "Stage vae"]
    assert s.ok("Stage vae") == ["Load vae"]
    assert s.ok("Load vae") == []
    assert s.ok("Evict unet") == ["Start x:2"]
    assert s.finish() == ["Settle x finished"]
    s.assert_settled()
    assert s.books.host_bytes() == 80
    assert s.books.device_bytes() == 30


def test_what_is_resident_is_not_loaded_again() -> None:
    s = shell()
    s.warm("unet")
    assert s.arrive("x", phase("unet"), phase("unet")) == ["Start x:0"]
    assert s.finish(state=1) == ["Start x:1"]
    assert s.finish() == ["Settle x finished"]


def test_several_components_are_loaded_side_by_side() -> None:
    s = shell()
    assert s.arrive("x", phase("text", "vae", "unet")) == ["Stage text", "Stage vae", "Stage unet"]
    assert s.ok("Stage unet") == ["Load unet"]
    assert s.ok("Stage text", "Load text", "Stage vae") == ["Load vae"]
    assert s.ok("Load unet", "Load vae") == ["Start x:0"]


def test_a_phase_without_components_or_bytes() -> None:
    s = shell()
    assert s.arrive("x", phase(work=0, seconds=0.0, steps=0)) == ["Start x:0"]
    assert s.finish() == ["Settle x finished"]


def test_a_new_master_drives_out_what_nobody_waits_for() -> None:
    s = shell(host=100)
    s.warm("text", "vae")
    assert s.arrive("x", *CHAT) == ["Evict text", "Stage llm"]
    assert s.set_up() == ["Load llm", "Start x:0"]
    s.finish()
    assert s.arrive("y", phase("unet", work=1)) == ["Evict llm", "Unstage text"]
    assert s.ok("Unstage text") == []
    assert s.ok("Evict llm") == ["Unstage llm"]
    assert s.ok("Unstage llm") == ["Stage unet"]


def test_the_decision_is_made_again_at_every_phase_end() -> None:
    s = shell()
    s.warm("text", "unet", "vae")
    s.arrive("long", *IMAGE)
    s.arrive("short", *IMAGE[:1])
    assert s.running() == "long"
    assert s.finish(state=1) == ["Start short:0"]
    assert s.finish() == ["Settle short finished", "Start long:1"]


def test_a_run_is_not_disturbed_by_arrivals() -> None:
    s = shell()
    s.warm("text", "vae")
    s.arrive("x", phase("text", seconds=900.0))
    assert s.arrive("y", phase("vae", seconds=0.1)) == []
    assert s.finish() == ["Settle x finished", "Start y:0"]


def test_the_target_keeps_its_turn_while_it_is_loaded() -> None:
    s = shell(policy=Steadfast(PLAIN))
    s.warm("vae")
    assert s.arrive("slow", *CHAT) == ["Stage llm"]
    assert s.arrive("quick", phase("vae", work=1, seconds=0.1)) == []
    assert s.set_up() == ["Load llm", "Start slow:0"]
    assert s.finish() == ["Settle slow finished", "Start quick:0"]


def test_another_job_that_leaves_takes_no_turn() -> None:
    s = shell(policy=Steadfast(PLAIN))
    s.warm("vae")
    assert s.arrive("slow", *CHAT) == ["Stage llm"]
    s.arrive("quick", phase("vae", work=1, seconds=0.1))
    s.arrive("other", phase("vae", work=1))
    assert s.cancel("other") == ["Settle other cancelled"]
    assert s.target == "slow"


def test_no_time_is_due_while_one_runs_and_nobody_waits() -> None:
    s = shell()
    s.warm("vae")
    s.arrive("only", phase("vae", work=1))
    assert s.scheduler.deadline() is None


def test_only_one_that_has_just_arrived_may_take_the_turn_of_the_target() -> None:
    s = shell()
    s.warm("vae")
    assert s.arrive("slow", *CHAT) == ["Stage llm"]
    assert s.arrive("slower", phase("vae", work=1, seconds=99.0)) == []
    assert s.arrive("quick", phase("vae", work=1, seconds=0.1)) == ["Start quick:0"]
    # What was brought in for the other goes on, and it is chosen anew by what is left to bring in.
    assert s.finish() == ["Settle quick finished"]
    assert s.set_up() == ["Load llm", "Start slow:0"]


def test_one_that_waited_before_does_not_take_the_turn_of_the_target() -> None:
    s = shell()
    s.warm("vae")
    s.arrive("slow", *CHAT)
    assert s.arrive("old", phase("vae", work=1, seconds=400.0), arrival=-500.0) == []
    # It has waited for as long as anybody may, and would be chosen now.
    assert s.feed(m.TimeReached(), 150.0) == []
    assert s.arrive("late", phase("unet", work=1, seconds=900.0)) == []
    assert [e.job for e in s.scheduler.plan(150.0)] == ["slow", "old", "late"]
    assert s.set_up() == ["Load llm", "Start slow:0"]
    assert s.finish()[:2] == ["Settle slow finished", "Start old:0"]


def test_two_jobs_that_do_not_fit_together_take_turns_without_end_of_evictions() -> None:
    s = shell()
    s.arrive("a", *CHAT, *CHAT, *CHAT)
    for number in range(3):
        s.arrive(f"b{number}", phase("unet", work=10, seconds=3.0))
    ran = s.play_out()
    assert sorted(ran) == ["a", "a", "a", "b0", "b1", "b2"]
    evictions = [c for _, _, said in s.log for c in said if isinstance(c, m.Evict)]
    assert len(evictions) <= 6
    s.assert_settled()


def test_refusals_settle_at_once_and_leave_nothing() -> None:
    s = shell()
    assert s.arrive("none") == ["Settle none refused"]
    assert s.arrive("odd", phase("text"), phase("nix")) == ["Settle odd refused"]
    assert s.arrive("big", phase("llm", work=31)) == ["Settle big refused"]
    assert s.arrive("host", phase("text", "unet", "vae", "llm", work=0)) == ["Settle host refused"]
    assert s.books.settled["none"].fault is None
    assert s.books.settled["odd"].fault is Fault.UNKNOWN_COMPONENT
    assert s.books.settled["big"].fault is Fault.TOO_LARGE
    assert "needs 101 bytes on the device" in s.books.settled["big"].detail
    assert s.books.settled["host"].fault is Fault.TOO_LARGE
    assert s.scheduler.credit() == 64
    s.assert_settled()


def test_a_host_too_small_for_a_phase_is_named() -> None:
    s = shell(host=60)
    assert s.arrive("x", *CHAT) == ["Settle x refused"]
    assert "needs 70 bytes of weights on the host, the budget is 60" in s.books.settled["x"].detail


def test_a_job_id_that_is_present_is_the_shells_defect() -> None:
    s = shell()
    s.arrive("x", *CHAT)
    with pytest.raises(ProtocolError, match=r"job x arrived, but it is here already\n<Scheduler"):
        s.scheduler.handle(m.JobArrived(demand("x", *CHAT)), 1.0)
    s.scheduler.check()
    s.play_out()
    assert s.scheduler.handle(m.JobArrived(demand("x", *CHAT)), 1.0) == [
        m.Start(Lease(2, "x", 0), 2)
    ]


def test_a_component_named_twice() -> None:
    parts = [Component("a", 1), Component("a", 2)]
    with pytest.raises(ValueError, match="component a is named twice"):
        Scheduler(parts, Budget(1, 1), LINKS, DEFAULTS)


def test_cancel_while_waiting() -> None:
    s = shell()
    s.arrive("x", *CHAT)
    s.arrive("y", *CHAT)
    assert s.cancel("y") == ["Settle y cancelled"]
    s.play_out()
    assert s.outcomes() == {"x": Outcome.FINISHED, "y": Outcome.CANCELLED}
    s.assert_settled()


def test_cancel_of_the_target_lets_its_load_run_to_its_end() -> None:
    s = shell()
    s.warm("vae")
    s.arrive("x", *CHAT)
    s.ok("Stage llm")
    assert s.cancel("x") == ["Settle x cancelled"]
    assert s.ok("Load llm") == []
    s.assert_settled()
    assert s.arrive("y", phase("unet")) == ["Evict llm", "Stage unet"]


def test_cancel_of_the_target_gives_the_turn_to_the_next() -> None:
    s = shell(policy=Steadfast(PLAIN))
    s.warm("vae")
    s.arrive("x", *CHAT)
    s.arrive("y", phase("vae"))
    assert s.cancel("x") == ["Settle x cancelled", "Start y:0"]
    assert s.ok("Stage llm") == []


def test_a_needed_component_on_its_way_out_comes_back() -> None:
    s = shell()
    s.warm("llm")
    s.arrive("x", phase("unet", work=1))
    assert s.flight("Evict llm")
    s.cancel("x")
    assert s.arrive("y", *CHAT) == []
    s.ok("Stage unet")
    assert s.ok("Evict llm") == ["Load llm"]
    assert s.ok("Load llm") == ["Start y:0"]


def test_cancel_between_phases_frees_the_carried_bytes() -> None:
    s = shell()
    s.warm("text")
    s.arrive("x", *IMAGE)
    s.finish(state=2)
    assert s.scheduler.snapshot()["ledger"]["device"]["by"]["state"] == 2
    assert s.cancel("x") == ["Settle x cancelled"]
    s.set_up()
    s.assert_settled()


def test_a_phase_that_needs_nothing_waits_for_room_for_more_state_than_was_claimed() -> None:
    s = Shell({"unet": 40}, device=100, honest=False)
    s.warm("unet")
    s.arrive("x", phase("unet", work=10), phase(work=0))
    assert s.finish(state=80) == ["Evict unet"]
    assert s.ok("Evict unet") == ["Start x:1"]


def test_cancel_of_a_run_waits_for_its_end() -> None:
    s = shell()
    s.warm("text")
    s.arrive("x", *IMAGE)
    assert s.cancel("x") == ["Cancel x:0"]
    assert s.cancel("x") == []
    assert s.scheduler.snapshot()["running"][0]["cancelling"] is True
    assert s.end(s.flight("Start x:0"), m.RunCancelled(s.lease)) == ["Settle x cancelled"]
    s.assert_settled()


@pytest.mark.parametrize(
    "event",
    [
        lambda lease: m.PhaseFinished(lease, 1),
        lambda lease: m.Paused(lease, 0, 1),
        lambda lease: m.RunFailed(lease, Fault.RUN, "why"),
        lambda lease: m.RunFailed(lease, Fault.OUT_OF_MEMORY, "why"),
    ],
)
def test_however_a_cancelled_run_ends_its_job_is_cancelled(event) -> None:
    s = shell()
    s.warm("text")
    s.arrive("x", *IMAGE)
    s.cancel("x")
    assert s.end(s.flight("Start x:0"), event(s.lease)) == ["Settle x cancelled"]
    s.assert_settled()


def test_a_job_whose_last_phase_finished_is_finished_whatever_was_asked() -> None:
    s = shell()
    s.warm("text")
    s.arrive("x", *IMAGE[:1])
    s.cancel("x")
    assert s.finish() == ["Settle x finished"]


def test_a_run_that_cancels_itself() -> None:
    s = shell()
    s.warm("text")
    s.arrive("x", *IMAGE)
    assert s.end(s.flight("Start x:0"), m.RunCancelled(s.lease)) == ["Settle x cancelled"]


def test_stale_and_unknown_events_change_nothing_but_a_count() -> None:
    s = shell()
    s.warm("text")
    old = Lease(1, "warm-text", 0)
    s.arrive("x", *IMAGE)
    now = s.lease
    before = s.scheduler.snapshot()
    stale = [
        m.CancelRequested("nobody"),
        m.PhaseFinished(old, 3),
        m.Paused(old, 1, 3),
        m.RunCancelled(old),
        m.RunFailed(old, Fault.RUN, "late"),
        m.StepReached(old, 3),
        m.PhaseFinished(Lease(99, "x", 0), 3),
        m.PhaseFinished(Lease(now.id, "x", 1), 3),
        m.RunFailed(Lease(now.id, "y", 0), Fault.RUN, "late"),
        m.StageSucceeded("text"),
        m.StageSucceeded("nix"),
        m.StageFailed("unet", "late", True),
        m.LoadSucceeded("text"),
        m.LoadFailed("text", "late", Fault.LOAD),
        m.Evicted("text"),
        m.Unstaged("text"),
        m.Unstaged("nix"),
    ]
    for event in stale:
        assert s.feed(event) == []
    after = s.scheduler.snapshot()
    assert after.pop("ignored_events") == before.pop("ignored_events") + len(stale)
    assert after == before
    s.play_out()


def test_time_does_not_run_backwards() -> None:
    s = shell()
    s.feed(m.TimeReached(), 50.0)
    s.arrive("x", phase(seconds=10.0, steps=10))
    assert s.feed(m.StepReached(s.lease, 1), 20.0) == []
    assert s.scheduler.plan(0.0)[0].finish_seconds == 9.0


def test_steps_are_conflated_and_never_go_back() -> None:
    s = shell()
    s.warm("unet")
    s.arrive("x", IMAGE[1])
    for step, known in ((3, 3), (1, 3), (8, 8), (99, 8)):
        s.step(step)
        assert s.scheduler.snapshot()["running"][0]["step"] == known


def test_credit() -> None:
    s = shell(settings=replace(DEFAULTS, waiting_jobs_max=3))
    assert s.scheduler.credit() == 3
    s.arrive("x", *CHAT)
    s.arrive("y", *CHAT, job_class="fast")
    assert s.scheduler.credit() == 1
    s.arrive("z", *CHAT)
    s.arrive("beyond", *CHAT)
    assert s.scheduler.credit() == 0
    s.play_out()
    assert s.scheduler.credit() == 3


def test_classes_and_unknown_classes() -> None:
    s = shell()
    s.warm("llm")
    s.arrive("first", *CHAT)
    s.arrive("normal", phase("llm", seconds=3.0))
    s.arrive("unknown", phase("llm", seconds=2.9), job_class="?")
    s.arrive("fast", phase("llm", seconds=4.0), job_class="fast")
    assert s.play_out() == ["first", "fast", "unknown", "normal"]


def test_nobody_waits_longer_than_the_bound_and_one_run() -> None:
    """A long job against an endless stream of short ones that it would never be shorter than."""
    plain = replace(PLAIN, wait_seconds_max=100.0, ageing_seconds=1e6)
    s = shell(settings=replace(DEFAULTS, policy=plain))
    s.warm("text")
    s.arrive("s0", phase("text", seconds=1.0))
    s.arrive("long", phase("unet", work=1, seconds=60.0))
    number = 0
    while "long" not in s.started_at:
        number += 1
        s.arrive(f"s{number}", phase("text", seconds=1.0))
        s.now += 1.0
        s.set_up()
        if s.books.members:
            s.finish()
        assert number < 500
    assert 100.0 <= s.started_at["long"] <= 103.0


class Chooses(PricedWork):
    """A policy that says what it is told."""

    def __init__(self, *decisions: Decision) -> None:
        super().__init__(PLAIN)
        self.decisions = list(decisions)

    def choose(self, view, now: float) -> Decision:
        return self.decisions.pop(0) if self.decisions else super().choose(view, now)


def test_a_policy_may_not_choose_a_job_that_is_not_there() -> None:
    s = shell(policy=Chooses(Decision("nix")))
    with pytest.raises(BadDecision, match="job='nix'"):
        s.arrive("x", *CHAT)


def test_while_a_run_lasts_a_job_is_taken_only_if_it_is_to_preempt() -> None:
    for preempt, said in ((False, []), (True, ["Pause x:0"])):
        s = shell(policy=Chooses(Decision("x"), Decision("y", preempt=preempt)))
        s.arrive("x", phase(steps=9))
        assert s.arrive("y", phase()) == said
        assert s.scheduler.target == ("y" if preempt else None)


def test_nothing_comes_ahead_of_a_run_that_does_not_last() -> None:
    s = shell(policy=Chooses(Decision(None, ahead=("x",)), Decision("x")))
    s.busy = False
    assert s.arrive("x", *CHAT) == []
    assert s.feed(m.TimeReached()) == ["Stage llm"]


def test_a_policy_may_not_choose_a_running_job() -> None:
    s = shell(policy=Chooses(Decision("x"), Decision("x", preempt=True)))
    s.arrive("x", phase())
    with pytest.raises(BadDecision, match="job='x'"):
        s.step(0)


def test_a_policy_may_not_choose_a_job_that_is_not_admitted() -> None:
    part = phase("text", work=40, state_max=40, seconds=1.0)
    s = shell(device=100, policy=Chooses(Decision("x"), WAIT, Decision("y")))
    s.arrive("x", part, part)
    s.set_up()
    s.arrive("y", part, part)
    with pytest.raises(BadDecision, match="job='y'"):
        s.finish(state=40)


def test_the_same_events_give_the_same_commands() -> None:
    def fresh() -> Shell:
        return shell(host=120)

    s = fresh()
    for number in range(12):
        s.arrive(f"x{number}", *(IMAGE, CHAT, IMAGE[1:])[number % 3])
        s.now += 0.5
        if number % 4 == 3:
            s.cancel(f"x{number - 1}")
        if s.flying:
            s.ok(brief(s.flying[0]))
    s.play_out()
    other = fresh().scheduler
    for event, now, commands in s.log:
        assert other.handle(event, now) == commands
    assert other.snapshot() == s.scheduler.snapshot()
