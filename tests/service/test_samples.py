"""The last values of what is measured: bounded in every direction, and what changed is known."""

from __future__ import annotations

import pytest

from ourvidz.ports import Series
from ourvidz.service import samples as module
from ourvidz.service.samples import VALUES_MAX, Samples, quantile


@pytest.mark.parametrize(
    ("values", "p50", "p90"),
    [
        ([3.0], 3.0, 3.0),
        ([2.0, 1.0], 1.0, 2.0),
        ([9, 1, 8, 2, 7, 3, 6, 4, 5, 10], 5, 9),
        ([1.0] * 9 + [100.0], 1.0, 1.0),
        ([1.0] * 8 + [100.0] * 2, 1.0, 100.0),
    ],
)
def test_a_quantile_is_a_value_that_was_measured(
    values: list[float], p50: float, p90: float
) -> None:
    assert (quantile(values, 0.5), quantile(values, 0.9)) == (p50, p90)


def test_the_oldest_value_gives_way() -> None:
    samples = Samples()
    assert samples.values("a") == ()
    for number in range(VALUES_MAX + 3):
        samples.add("a", number)
    assert samples.values("a") == tuple(range(3, VALUES_MAX + 3))


def test_a_largest_value_is_never_lost() -> None:
    samples = Samples()
    for value in (5.0, 9.0, 7.0):
        samples.raise_to("a", value)
    assert samples.values("a") == (9.0,)


def test_what_was_not_measured_for_longest_is_forgotten(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "SERIES_MAX", 2)
    samples = Samples()
    for name in ("a", "b", "a", "c"):
        samples.add(name, 1.0)
    assert [bool(samples.values(name)) for name in "abc"] == [True, False, True]
    assert [series.name for series in samples.changed()] == ["a", "c"]
    samples.raise_to("d", 1.0)
    samples.restore([Series("e", [1.0])])
    assert [bool(samples.values(name)) for name in "acde"] == [False, False, True, True]


def test_what_changed_is_named_once_in_the_order_of_the_last_change() -> None:
    samples = Samples()
    for name in ("a", "b", "a"):
        samples.add(name, 1.0)
    assert samples.changed() == [Series("b", (1.0,)), Series("a", (1.0, 1.0))]
    assert samples.changed() == []


def test_what_could_not_be_saved_is_named_again_before_what_is_newer() -> None:
    samples = Samples()
    for name in ("a", "b"):
        samples.add(name, 1.0)
    unsaved = samples.changed()
    samples.add("a", 2.0)
    samples.change_again(unsaved)
    assert samples.changed() == [Series("b", (1.0,)), Series("a", (1.0, 2.0))]


def test_what_is_restored_has_not_changed_and_is_learned_on() -> None:
    samples = Samples()
    samples.restore([Series("a", range(VALUES_MAX + 1)), Series("b", [7.0])])
    assert samples.changed() == []
    assert samples.values("a") == tuple(range(1, VALUES_MAX + 1))
    samples.add("b", 8.0)
    assert samples.values("b") == (7.0, 8.0)


def test_what_was_forgotten_meanwhile_is_not_named_again(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "SERIES_MAX", 1)
    samples = Samples()
    samples.add("a", 1.0)
    unsaved = samples.changed()
    samples.add("b", 1.0)
    samples.change_again(unsaved)
    assert [series.name for series in samples.changed()] == ["b"]
