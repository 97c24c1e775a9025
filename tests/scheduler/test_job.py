"""A job's cached values, its claims, and what is refused at the door."""

from dataclasses import replace

import pytest

from scheduler.job import Claim, Job, refusal
from scheduler.types import Budget, Fault, Phase
from tests.scheduler.shell import demand, phase

SIZES = {"a": 10, "b": 20, "c": 40}


def job(*phases) -> Job:
    return Job(demand("x", *phases), SIZES, 1.0)


def test_what_is_left_shrinks_with_steps_and_phases() -> None:
    item = job(phase("a", seconds=4.0, steps=4), phase("b", "a", seconds=10.0), phase("c"))
    assert item.needs == ("a", "b", "c")
    assert item.remaining_seconds == 15.0
    item.reach(3)
    assert (item.phase_seconds, item.remaining_seconds) == (1.0, 12.0)
    item.reach(1)
    assert item.step == 3
    item.reach(99)
    assert item.remaining_seconds == 11.0
    item.next_phase()
    assert (item.step, item.needs, item.remaining_seconds) == (0, ("b", "a", "c"), 11.0)
    assert not item.last_phase
    item.next_phase()
    assert (item.needs, item.last_phase) == (("c",), True)


def test_what_is_left_may_take_longer_by_what_each_phase_may() -> None:
    late = replace(phase("a", seconds=4.0), seconds_p90=5.5)
    early = replace(phase("a", seconds=4.0), seconds_p90=3.0)
    item = job(late, phase("b", seconds=8.0), early)
    assert item.spread_seconds == 1.5 + 2.0
    item.next_phase()
    assert item.spread_seconds == 2.0


def test_a_phase_without_steps_or_components() -> None:
    item = job(phase(steps=0, seconds=2.0, work=3))
    assert (item.needs, item.remaining_seconds, item.run_bytes) == ((), 2.0, (3,))


def test_a_component_named_twice_in_a_phase_counts_once() -> None:
    item = job(phase("a", "a", work=1))
    assert (item.components, item.run_bytes) == ((("a",),), (11,))


def test_a_claim_without_bounds_adds_up_the_working_bytes() -> None:
    item = job(phase("a", work=2), phase("b", work=3), phase("c", work=5))
    # Into the second phase it may carry 2, into the third 2 + 3; after the last nothing.
    assert item.claim() == Claim(held=5, peak=5 + 40 + 5)
    # Paused within the first phase it holds up to 2 and takes them into its resumption.
    assert item.claim(pausing=True) == Claim(held=5, peak=50)


def test_a_claim_takes_the_bounds_and_what_is_really_carried() -> None:
    item = job(phase("a", work=2, state_max=1), phase("c", work=3, state_max=1), phase("b", work=5))
    assert item.claim() == Claim(held=1, peak=1 + 40 + 3)
    item.next_phase()
    item.carried = item.entry = 7
    assert item.claim() == Claim(held=7, peak=7 + 40 + 3)


def test_a_pause_in_the_last_phase_claims_its_state() -> None:
    item = job(phase("a", work=4))
    assert item.claim() == Claim(held=0, peak=14)
    assert item.claim(pausing=True) == Claim(held=4, peak=18)


def test_a_resumed_phase_is_bounded_by_what_entered_it() -> None:
    item = job(phase("a", work=4), phase("b", work=1))
    item.carried = 3
    assert item.claim() == Claim(held=4, peak=4 + 21)


@pytest.mark.parametrize(
    ("phases", "fault", "words"),
    [
        ([], None, "the demand has no phases"),
        (
            [phase("a"), phase("zz", name="odd")],
            Fault.UNKNOWN_COMPONENT,
            "phase odd needs component zz, known: a, b, c",
        ),
        (
            [phase("a"), phase("b", "c", "b", work=41)],
            Fault.TOO_LARGE,
            "needs 101 bytes on the device (60 of weights, 41 to work in), the budget is 100",
        ),
        (
            [phase("a", "b", "c", work=0)],
            Fault.TOO_LARGE,
            "needs 70 bytes of weights on the host, the budget is 65",
        ),
    ],
)
def test_what_can_never_be_met(phases, fault: Fault | None, words: str) -> None:
    refused = refusal(demand("x", *phases), SIZES, Budget(100, 65))
    assert refused is not None
    assert refused[0] is fault
    assert words in refused[1]


def test_what_just_fits() -> None:
    assert refusal(demand("x", phase("b", "c", work=40)), SIZES, Budget(100, 60)) is None


def test_a_phase_that_may_end_early_counts_the_steps_that_are_expected() -> None:
    text = Phase("generate", ("a",), 1, 10.0, 400, steps_expected=100)
    wanted = job(text)
    assert wanted.remaining_seconds == pytest.approx(10.0)
    wanted.reach(60)
    assert wanted.remaining_seconds == pytest.approx(4.0)
    wanted.reach(99)
    assert wanted.remaining_seconds == pytest.approx(0.1)
    wanted.reach(300)
    assert wanted.remaining_seconds == pytest.approx(0.1)
