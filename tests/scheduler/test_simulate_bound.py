"""What no schedule can beat, on examples worked out by hand."""

from __future__ import annotations

import pytest

from scheduler.bound import Use, belady_misses, busy_period_bound, mean_flow_bound, releases
from tests.scheduler.traffic import line, profile, workload


def test_the_shorter_one_goes_first_and_interrupts() -> None:
    work = workload(line("chat", "long", 0.0), line("chat", "short", 4.0), line("chat", "x", 20.0))
    assert mean_flow_bound(work, {"long": 10.0, "short": 2.0, "x": 1.0}) == (12 + 2 + 1) / 3


def test_what_has_less_left_is_not_interrupted() -> None:
    work = workload(line("chat", "long", 0.0), line("chat", "short", 9.0))
    assert mean_flow_bound(work, {"long": 10.0, "short": 2.0}) == (10 + 3) / 2


def test_a_chain_is_released_by_arrival_and_service_however_late_its_parent_is() -> None:
    work = workload(
        line("chat", "c", 0.0, after="b"),
        line("chat", "b", 0.0, after="a"),
        line("chat", "a", 0.0),
        line("chat", "d", 50.0, after="a"),
    )
    services = {"a": 3.0, "b": 1.0, "c": 1.0, "d": 1.0}
    assert releases(work, services) == [(0.0, "a"), (3.0, "b"), (4.0, "c"), (50.0, "d")]
    assert mean_flow_bound(work, services) == (3 + 4 + 5 + 1) / 4


def test_times_before_the_first_second_are_times_too() -> None:
    work = workload(line("chat", "a", -5.0))
    assert mean_flow_bound(work, {"a": 2.0}) == 2.0


def uses(text: str) -> list[Use]:
    return [Use((name,), 0) for name in text.split()]


@pytest.mark.parametrize(
    ("order", "misses"),
    [
        ("", 0),
        ("a a a", 1),
        ("a b c a b c", 4),  # by last use all six
        ("a b c c c a b", 4),
        ("a b c a c b a", 4),  # not what is used last of all
        ("big a b big a b", 6),  # big takes all the room
    ],
)
def test_hindsight_keeps_what_is_used_soonest(order: str, misses: int) -> None:
    sizes = {"a": 5, "b": 5, "c": 5, "big": 10}
    assert belady_misses(uses(order), sizes, 10) == misses


def test_room_to_work_counts() -> None:
    sizes = {"a": 5, "b": 5}
    assert belady_misses([Use(("a",), 1), Use(("b",), 1), Use(("a",), 1)], sizes, 10) == 3
    assert belady_misses([Use(("a",), 1), Use(("b",), 1), Use(("a",), 1)], sizes, 11) == 2


def test_the_device_is_busy_with_all_work_and_one_load_of_each_component() -> None:
    card = profile()
    work = workload(line("chat", "a", 0.0, tokens=32), line("chat", "b", 9.0, tokens=32))
    demands = {r.id: card.demand(r) for r in work.requests}
    sizes = {c.name: c.weight_bytes for c in card.components}
    assert busy_period_bound(work, demands, card.links, sizes) == 2.0 + 0.875
