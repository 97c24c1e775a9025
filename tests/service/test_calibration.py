"""Whether parts end when it was foretold, counted and told in short."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import pytest
from support.queues import MovedClock

from ourvidz.service import calibration as module
from ourvidz.service.calibration import Calibration
from ourvidz.service.engine import Place
from ourvidz.service.metrics import Metrics
from scheduler.messages import Settle
from scheduler.types import Outcome


class Office:
    """A calibration, its clock and its metrics."""

    def __init__(self) -> None:
        self.clock, self.metrics = MovedClock(), Metrics()
        self.calibration = Calibration(self.clock, self.metrics)

    def ended(
        self, seconds: float, place: Place, outcome: Outcome = Outcome.FINISHED
    ) -> Mapping[str, Any]:
        """A part that was told ``place`` and left after so long."""
        self.calibration.arrived("a", place)
        self.clock.now += seconds
        self.calibration.settled(Settle("a", outcome))
        assert not self.calibration.knows("a")
        return self.calibration.summary()

    def sample(self, name: str, **labels: str) -> float | None:
        return self.metrics.registry.get_sample_value(f"ourvidz_{name}", labels)


def test_before_the_first_part_nothing_is_claimed() -> None:
    summary = Office().calibration.summary()
    assert summary == {"parts": 0, "within_p90": None, "ratio_p50": None}


def test_each_end_is_held_against_what_was_foretold_first() -> None:
    office, place = Office(), Place(1, 10.0, 20.0)
    assert office.ended(5.0, place) == {"parts": 1, "within_p90": 1.0, "ratio_p50": 0.5}
    assert office.ended(20.0, place) == {"parts": 2, "within_p90": 1.0, "ratio_p50": 0.5}
    assert office.ended(21.0, place) == {"parts": 3, "within_p90": 0.667, "ratio_p50": 2.0}
    assert office.sample("etas_total") == 3
    assert office.sample("etas_within_p90_total") == 2
    assert office.sample("eta_ratio_count") == 3
    assert office.sample("eta_ratio_sum") == pytest.approx(0.5 + 2.0 + 2.1)
    assert office.sample("eta_ratio_bucket", le="2.0") == 2


@pytest.mark.parametrize("outcome", [Outcome.FAILED, Outcome.CANCELLED, Outcome.REFUSED])
def test_what_did_not_finish_says_nothing(outcome: Outcome) -> None:
    assert Office().ended(5.0, Place(1, 10.0, 20.0), outcome)["parts"] == 0


def test_what_was_never_told_or_told_to_end_at_once_says_nothing() -> None:
    office = Office()
    office.calibration.settled(Settle("b", Outcome.FINISHED))
    assert office.ended(5.0, Place(0, 0.0, 0.0))["parts"] == 0
    assert office.ended(5.0, Place())["parts"] == 0


def test_the_short_answer_is_about_the_last_parts(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "_PARTS_MAX", 3)
    office = Office()
    for seconds in (99.0, 99.0, 5.0, 5.0, 5.0):
        office.ended(seconds, Place(1, 10.0, 20.0))
    assert office.calibration.summary() == {"parts": 3, "within_p90": 1.0, "ratio_p50": 0.5}
    assert office.sample("etas_total") == 5
