"""What is told of a part's end never moves to later while nothing has happened to it."""

from __future__ import annotations

from dataclasses import dataclass, field

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ourvidz.service.engine import Place
from ourvidz.service.etas import Etas, Step

PARTS = "abcdef"
QUIET: dict[str, Step] = dict.fromkeys(PARTS, (1, 3))
# Seconds are told to the millisecond.
ROUNDING = 0.002


def plan(order: str, running: int = 1, **seconds: float) -> dict[str, Place]:
    """Parts in the order of their positions, of which the first ``running`` run; ``seconds`` are
    the times of some, the others' grow with their position."""
    found = {}
    for index, part in enumerate(order):
        position = max(0, index + 1 - running)
        at = seconds.get(part, 10.0 * (index + 1))
        found[part] = Place(position, at, 2 * at)
    return found


def told(places: dict[str, Place], part: str) -> tuple[float | None, float | None]:
    return places[part].eta_seconds, places[part].eta_p90_seconds


def test_what_is_first_told_is_the_plan() -> None:
    assert Etas().tell(plan("abc"), QUIET, 100.0) == plan("abc")


def test_a_plan_that_slips_is_not_told_and_one_that_gains_is() -> None:
    etas = Etas()
    etas.tell(plan("ab", b=20), QUIET, 100.0)
    assert told(dict(etas.tell(plan("ab", b=20), QUIET, 105.0)), "b") == (15.0, 35.0)
    assert told(dict(etas.tell(plan("ab", b=12), QUIET, 105.0)), "b") == (12.0, 24.0)
    assert told(dict(etas.tell(plan("ab", b=30), QUIET, 107.0)), "b") == (10.0, 22.0)
    assert told(dict(etas.tell(plan("ab", b=30), QUIET, 120.0)), "b") == (0.0, 9.0)


@dataclass(frozen=True)
class Change:
    """What is the plan from one moment to the next, for part ``c``."""

    order: str = "abc"
    running: int = 1
    steps: dict[str, Step] = field(default_factory=lambda: QUIET)


@pytest.mark.parametrize(
    ("change", "may_rise"),
    [
        (Change(), False),
        (Change(order="abcd"), False),
        (Change(order="bac", running=1), True),
        (Change(order="bac", running=2), True),
        (Change(order="adbc"), True),
        (Change(order="ac"), True),
        (Change(steps={**QUIET, "c": (1, 4)}), True),
        (Change(steps={**QUIET, "c": (2, 3)}), True),
        (Change(steps={**QUIET, "a": (1, 4)}), True),
        (Change(steps={**QUIET, "b": (1, 4)}), False),
        (Change(steps={**QUIET, "d": (1, 4)}), False),
    ],
)
def test_it_may_rise_only_where_something_happened(change: Change, *, may_rise: bool) -> None:
    etas = Etas()
    etas.tell(plan("abc", c=20), QUIET, 100.0)
    places = etas.tell(plan(change.order, change.running, c=50), change.steps, 100.0)
    assert told(dict(places), "c") == ((50.0, 100.0) if may_rise else (20.0, 40.0))


def test_the_order_of_those_ahead_says_nothing_by_itself() -> None:
    etas = Etas()
    etas.tell(plan("abcd", d=20), QUIET, 100.0)
    assert told(dict(etas.tell(plan("acbd", d=50), QUIET, 100.0)), "d")[0] == 20.0


def test_a_part_that_left_and_comes_again_is_new() -> None:
    etas = Etas()
    etas.tell(plan("ab", b=20), QUIET, 100.0)
    etas.tell(plan("a"), QUIET, 100.0)
    assert told(dict(etas.tell(plan("ab", b=50), QUIET, 100.0)), "b")[0] == 50.0


def test_a_part_of_unknown_progress_is_told_its_plan() -> None:
    assert Etas().tell(plan("ab"), {}, 0.0) == plan("ab")


MOMENTS = st.lists(
    st.tuples(
        st.permutations(PARTS).flatmap(lambda p: st.integers(0, 6).map(lambda n: "".join(p[:n]))),
        st.integers(0, 2),
        st.dictionaries(st.sampled_from(PARTS), st.tuples(st.integers(0, 1), st.integers(0, 2))),
        st.lists(st.floats(0, 1e4), min_size=6, max_size=6),
        st.floats(0, 100),
    ),
    max_size=12,
)


@given(MOMENTS)
def test_never_later_than_the_plan_nor_than_told_before_unless_something_happened(
    moments: list[tuple[str, int, dict[str, Step], list[float], float]],
) -> None:
    etas, now = Etas(), 0.0
    last: dict[str, tuple[object, float, float]] = {}
    for order, running, steps, times, passed in moments:
        now += passed
        seconds = dict(zip(PARTS, times, strict=True))
        wanted = plan(order, running, **seconds)
        places = etas.tell(wanted, steps, now)
        assert places.keys() == set(order)
        ends: dict[str, tuple[object, float, float]] = {}
        for part in order:
            end, end_p90 = told(dict(places), part)
            assert end is not None
            assert end_p90 is not None
            assert 0 <= end <= seconds[part] + ROUNDING
            assert end <= end_p90 <= 2 * seconds[part] + ROUNDING
            situation = _situation(wanted, part, steps)
            if part in last and last[part][0] == situation:
                assert now + end <= max(now, last[part][1]) + ROUNDING
                assert now + end_p90 <= max(now, last[part][2]) + ROUNDING
            else:
                assert end == pytest.approx(seconds[part], abs=ROUNDING)
            ends[part] = (situation, now + end, now + end_p90)
        last = ends


def _situation(places: dict[str, Place], part: str, steps: dict[str, Step]) -> object:
    """The rule as it is written, with plain sets."""
    positions = {other: place.queue_position or 0 for other, place in places.items()}
    ahead = {other for other, position in positions.items() if position < positions[part]}
    running = {(other, steps.get(other)) for other, position in positions.items() if not position}
    return steps.get(part), running, ahead
