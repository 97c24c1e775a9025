"""Jobs that share a run: who starts together, who joins, and how each ends (rule 4 of the policy,
and what the core makes of it)."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest

from scheduler import messages as m
from scheduler.types import Fault, Outcome, Phase, Sharing
from tests.scheduler.shell import DEFAULTS, LINKS, Shell, phase
from tests.scheduler.test_policy import NEUTRAL

TEXT = Sharing("llm", 1, 4, 0.1, mid_phase=True)
SIZES = {"llm": 40, "unet": 40, "enc": 5}


def shell(device: int = 100, **changes: Any) -> Shell:
    """Everything is on the device that fits."""
    policy = replace(NEUTRAL, prefetch=False, **changes)
    s = Shell(SIZES, device=device, settings=replace(DEFAULTS, policy=policy))
    s.warm("llm", *(("unet", "enc") if device >= 100 else ()))
    return s


def text(
    seconds: float = 10.0, steps: int = 10, sharing: Sharing | None = TEXT, work: int = 1
) -> Phase:
    return phase("llm", seconds=seconds, steps=steps, sharing=sharing, work=work, state_max=1)


def image(
    units: int = 1, exponent: float = 0.5, seconds: float = 10.0, units_max: int = 4
) -> Phase:
    sharing = Sharing("unet", units, units_max, exponent, mid_phase=False)
    return phase("unet", seconds=seconds, steps=10, sharing=sharing, state_max=1)


def encode(seconds: float = 1.0) -> Phase:
    return phase("enc", seconds=seconds, state_max=1)


def starts(s: Shell) -> list[tuple[str, int, int]]:
    """Job, run and starters of all that was started, but for the warming up."""
    commands = [c for _, _, said in s.log for c in said if isinstance(c, m.Start | m.Resume)]
    return [
        (c.lease.job, c.run, c.starters) for c in commands if not c.lease.job.startswith("warm")
    ]


def test_4a_a_text_joins_a_run_of_texts() -> None:
    s = shell()
    assert s.arrive("x", text()) == ["Start x:0"]
    s.step(3)
    assert s.arrive("y", text()) == ["Start y:0"]
    assert starts(s) == [("x", 4, 1), ("y", 4, 1)]
    assert s.running() == "x,y"
    assert s.step(1, "y") == []
    assert [run["step"] for run in s.scheduler.snapshot()["running"]] == [3, 1]
    assert s.finish("x") == ["Settle x finished"]
    # The run goes on without the one that began it, and is joined on.
    assert s.arrive("z", text()) == ["Start z:0"]
    assert starts(s)[-1] == ("z", 4, 1)
    s.finish("y")
    s.finish("z")
    assert s.arrive("w", text()) == ["Start w:0"]
    assert starts(s)[-1] == ("w", 7, 1)
    s.play_out()
    s.assert_settled()


def test_4a_texts_that_wait_start_together() -> None:
    s = shell()
    s.arrive("busy", encode())
    for name in "xyz":
        assert s.arrive(name, text(steps=1)) == []
    assert s.finish() == ["Settle busy finished", "Start x:0", "Start y:0", "Start z:0"]
    assert starts(s)[1:] == [("x", 5, 3), ("y", 5, 3), ("z", 5, 3)]


def test_4a_no_more_than_there_is_room_for() -> None:
    s = shell()
    for name, units in (("a", 2), ("b", 1), ("c", 2), ("d", 1), ("e", 1)):
        s.arrive(name, text(sharing=replace(TEXT, units=units)))
    assert s.running() == "a,b,d"
    assert s.finish("a") == ["Settle a finished", "Start c:0"]
    assert s.finish("b") == ["Settle b finished", "Start e:0"]


def test_4a_the_device_must_have_room_for_each_ones_work() -> None:
    s = shell(device=50)
    s.arrive("a", text(work=4))
    s.arrive("b", text(work=3))
    s.arrive("c", text(work=4))
    s.arrive("d", text(work=3))
    assert s.running() == "a,b,d"
    assert s.finish("d") == ["Settle d finished"]
    assert s.finish("a") == ["Settle a finished", "Start c:0"]


def test_4a_and_so_must_the_states_of_all_if_they_are_paused() -> None:
    """Two can rest with 5 bytes of state each beside the third's 40 + 1."""
    for device, running in ((51, "a,b,c"), (50, "a,b")):
        s = shell(device=device)
        for name in "abc":
            s.arrive(name, phase("llm", work=1, steps=9, state_max=5, sharing=TEXT))
        assert s.running() == running


def test_4a_only_those_of_the_same_key() -> None:
    s = shell()
    s.arrive("x", text())
    assert s.arrive("y", text(sharing=replace(TEXT, key="other"))) == []
    assert s.arrive("z", text(sharing=None)) == []
    assert s.finish()[-1] == "Start y:0"


def test_4a_one_of_another_key_may_have_the_run_paused() -> None:
    s = shell()
    s.arrive("x", text(100.0))
    other = replace(TEXT, key="other")
    assert s.arrive("y", text(1.0, sharing=other)) == ["Pause x:0"]


def test_4a_switched_off_texts_run_one_by_one() -> None:
    s = shell(share_texts=False)
    s.arrive("x", text(seconds=20.0))
    # And the second may have the first paused.
    assert s.arrive("y", text(seconds=5.0)) == ["Pause x:0"]
    assert s.pause(1) == ["Start y:0"]
    assert s.finish() == ["Settle y finished", "Resume x:0"]


def test_4a_who_joins_does_not_preempt_though_there_is_no_room_yet() -> None:
    s = shell()
    for name in "abcd":
        s.arrive(name, text(seconds=20.0))
    assert s.arrive("e", text(seconds=1.0)) == []
    assert s.finish("b") == ["Settle b finished", "Start e:0"]


def test_4a_nobody_joins_who_is_being_paused() -> None:
    s = shell()
    s.arrive("x", text(seconds=50.0))
    s.arrive("y", text(seconds=50.0))
    assert s.arrive("short", encode()) == ["Pause x:0", "Pause y:0"]
    assert s.arrive("z", text(seconds=50.0)) == []
    assert s.pause(1, job="x") == []
    assert s.pause(1, job="y") == ["Start short:0"]
    # Two that go on and one that begins.
    assert s.finish() == ["Settle short finished", "Resume x:0", "Resume y:0", "Start z:0"]
    assert starts(s)[-3:] == [("x", 7, 3), ("y", 7, 3), ("z", 7, 3)]


def test_3_a_shared_run_gives_way_only_if_everyone_in_it_does() -> None:
    s = shell()
    s.arrive("x", text(seconds=50.0))
    s.arrive("y", text(seconds=8.0))
    # 7.2 seconds are left of y at the boundary, and x is delayed as well.
    assert s.arrive("next", encode(3.7)) == []
    assert s.arrive("short", encode(3.5)) == ["Pause x:0", "Pause y:0"]
    s = shell()
    s.arrive("x", text(seconds=50.0))
    s.arrive("y", text(seconds=50.0))
    s.step(9, "x")
    assert s.arrive("short", encode(1.0)) == []


@pytest.mark.parametrize(("job_class", "margin"), [("normal", 2.0), ("fast", 1.0)])
def test_3_a_shared_run_is_delayed_by_the_work_and_the_set_up_of_who_comes(
    job_class: str, margin: float
) -> None:
    """Twice what the newcomer takes counts, by its weight, against the 18 seconds that are left of
    each of the two: hysteresis is off, and the way back is free."""
    load = LINKS.stage_seconds(10) + LINKS.load_seconds(10)
    policy = replace(NEUTRAL, prefetch=False)
    for spare, gives_way in ((-0.01, True), (0.01, False)):
        s = Shell({**SIZES, "cold": 10}, device=200, settings=replace(DEFAULTS, policy=policy))
        s.warm("llm")
        s.arrive("x", text(seconds=20.0))
        s.arrive("y", text(seconds=20.0))
        seconds = 18.0 / margin - load + spare
        said = s.arrive("next", phase("cold", seconds=seconds), job_class=job_class)
        assert ("Pause x:0" in said) == gives_way


def test_4a_nobody_joins_where_one_is_paused_and_another_cancelled() -> None:
    s = shell()
    s.arrive("x", text(seconds=50.0))
    s.arrive("y", text(seconds=50.0))
    assert s.cancel("x") == ["Cancel x:0"]
    assert s.arrive("short", encode(0.1)) == ["Pause y:0"]
    s.cancel("short")
    assert s.arrive("z", text(seconds=50.0)) == []
    assert s.end(s.flight("Start x:0"), m.RunCancelled(s._run("x").lease)) == ["Settle x cancelled"]
    assert sorted(s.pause(1, job="y")) == ["Resume y:0", "Start z:0"]


def test_4a_while_a_run_is_being_paused_a_text_may_take_the_turn() -> None:
    """It could join no more: the run is over at the next step."""
    s = shell()
    s.arrive("x", text(seconds=50.0))
    assert s.arrive("short", encode(5.0)) == ["Pause x:0"]
    assert s.target == "short"
    s.arrive("shorter", text(seconds=1.0))
    assert s.target == "shorter"


def test_each_of_a_run_ends_on_its_own() -> None:
    s = shell()
    for name in "abcd":
        s.arrive(name, text(), encode())
    assert s.cancel("b") == ["Cancel b:0"]
    assert s.end(s.flight("Start b:0"), m.RunCancelled(s._run("b").lease)) == ["Settle b cancelled"]
    assert s.fail(Fault.RUN, "why", "c") == ["Settle c failed"]
    assert s.finish("a", state=1) == ["Pause d:0"]
    assert s.pause(5, 1, "d") == ["Start a:1"]
    s.play_out()
    assert s.outcomes() | dict.fromkeys(["warm-llm", "warm-unet", "warm-enc"]) == {
        **dict.fromkeys(["warm-llm", "warm-unet", "warm-enc"]),
        "a": Outcome.FINISHED,
        "b": Outcome.CANCELLED,
        "c": Outcome.FAILED,
        "d": Outcome.FINISHED,
    }


def test_after_a_fault_that_nobody_owns_each_runs_by_itself() -> None:
    s = shell()
    s.arrive("x", text())
    s.arrive("y", text())
    s.step(4, "x")
    assert s.fail(Fault.SHARED, job="x") == []
    assert s.fail(Fault.SHARED, job="y") == ["Start x:0"]
    assert s.scheduler.snapshot()["running"][0]["step"] == 0
    # A third one neither joins nor waits to: it may preempt.
    assert s.arrive("z", text(seconds=5.0)) == ["Pause x:0"]
    assert s.pause(1) == ["Start z:0"]
    assert s.finish() == ["Settle z finished", "Resume x:0"]
    assert s.fail(Fault.SHARED) == ["Settle x failed", "Start y:0"]
    assert s.books.settled["x"].fault is Fault.SHARED
    assert s.finish() == ["Settle y finished"]


def test_in_its_later_phases_it_is_still_by_itself() -> None:
    s = shell()
    s.arrive("x", text(), text(seconds=30.0))
    s.arrive("y", text(seconds=40.0))
    s.fail(Fault.SHARED, job="x")
    s.finish("y")
    s.finish("x", state=1)
    assert s.running() == "x"
    assert s.arrive("z", text(seconds=40.0)) == []


def test_who_was_out_of_memory_runs_alone_with_the_device_to_itself() -> None:
    s = shell()
    s.arrive("x", text(steps=1, seconds=5.0))
    s.arrive("y", text(steps=1, seconds=20.0))
    s.fail(Fault.OUT_OF_MEMORY, job="x")
    assert s.finish("y") == ["Settle y finished", "Evict unet", "Evict enc"]
    s.arrive("z", text(seconds=9.0))
    assert s.ok("Evict unet", "Evict enc") == ["Start x:0"]
    assert s.running() == "x"
    assert s.scheduler.snapshot()["ledger"]["device"]["by"]["run"] == 60


def several(s: Shell, *names: str, units: int = 1, exponent: float = 0.5) -> None:
    """Images that arrive while something else runs."""
    s.arrive("busy", encode())
    for name in names:
        s.arrive(name, image(units, exponent))


@pytest.mark.parametrize(
    ("exponent", "together"),
    [(0.0, 4), (0.5, 3), (0.8, 2), (0.9, 1), (1.0, 1)],
)
def test_4b_images_start_together_where_it_pays(exponent: float, together: int) -> None:
    """Four images of 10 seconds; joining the first, the second saves 20 - 10 * 2**e for itself and
    the two behind it, and delays the first by 10 * 2**e - 10."""
    s = shell()
    several(s, "a", "b", "c", "d", exponent=exponent)
    assert s.finish()[0] == "Settle busy finished"
    assert len(s.books.running()) == together


def test_4b_alone_an_image_waits_for_nobody() -> None:
    s = shell()
    several(s, "a", "b", exponent=0.9)
    s.finish()
    assert s.running() == "a"
    s = shell()
    several(s, "a", "b", exponent=0.2)
    s.finish()
    assert s.running() == "a,b"


def test_4b_no_more_than_there_is_room_for_and_nobody_joins_later() -> None:
    s = shell()
    several(s, "a", "b", "c", units=2, exponent=0.0)
    s.finish()
    assert s.running() == "a,b"
    assert s.finish("a") == ["Settle a finished"]
    assert s.arrive("d", image(2, 0.0)) == []
    assert s.finish("b") == ["Settle b finished", "Start c:0", "Start d:0"]


def test_4b_switched_off_images_run_one_by_one() -> None:
    s = shell(share_images=False)
    several(s, "a", "b", exponent=0.0)
    s.finish()
    assert s.running() == "a"


def test_4b_those_that_were_paused_go_on_together_if_they_are_in_step() -> None:
    s = shell()
    several(s, "a", "b", "c", exponent=0.0)
    s.finish()
    assert s.running() == "a,b,c"
    assert s.arrive("short", encode()) == ["Pause a:0", "Pause b:0", "Pause c:0"]
    for name, step in (("a", 4), ("b", 4), ("c", 5)):
        s.pause(step, 1, name)
    assert s.running() == "short"
    assert s.finish() == ["Settle short finished", "Resume c:0"]
    assert s.finish() == ["Settle c finished", "Resume a:0", "Resume b:0"]
    assert starts(s)[-1][2] == 2


def test_4c_one_that_is_a_phase_behind_goes_first_where_it_pays() -> None:
    for exponent, first in ((0.0, "Start behind:0"), (1.0, "Start a:1")):
        s = shell()
        s.arrive("a", encode(), image(exponent=exponent))
        s.arrive("behind", encode(2.0), image(exponent=exponent))
        assert s.finish("a", state=1) == [first]
        if exponent == 0.0:
            assert s.finish(state=1) == ["Start a:1", "Start behind:1"]


def test_4c_but_not_one_that_cannot_go() -> None:
    s = shell()
    s.arrive("a", encode(), image(exponent=0.0))
    s.arrive("behind", phase("enc", "llm", seconds=2.0, state_max=60), image(exponent=0.0))
    # Its state would lock the first one out.
    assert s.finish("a", state=1) == ["Start a:1"]
