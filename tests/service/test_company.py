"""Only what had the device to itself is measured: runs beside runs and moves are found out."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ourvidz.service.company import Company, Stretch
from scheduler.messages import Event, Paused, PhaseFinished, RunCancelled, RunFailed
from scheduler.types import Fault, Lease

LEASE = Lease(1, "a", 0)
NOTHING = Stretch(0, undisturbed=False, whole=None)


def whole(company: Company, lease: Lease, seconds: float = 3.0, reached: int = 4) -> Stretch:
    """A run from its beginning to the end of its phase."""
    company.run_began(lease)
    return company.run_ended(lease, PhaseFinished(lease, 0), seconds, reached)


def test_a_run_by_itself() -> None:
    assert whole(Company(), LEASE) == Stretch(4, undisturbed=True, whole=3.0)


def test_every_phase_is_counted_from_its_own_beginning() -> None:
    company = Company()
    whole(company, LEASE)
    assert whole(company, Lease(2, "a", 1), 5.0, 7) == Stretch(7, undisturbed=True, whole=5.0)


def test_a_phase_that_was_paused_counts_its_stretches() -> None:
    company = Company()
    company.run_began(LEASE)
    first = company.run_ended(LEASE, Paused(LEASE, 3, 0), 3.0, 3)
    assert first == Stretch(3, undisturbed=True, whole=None)
    assert whole(company, Lease(2, "b", 0)).whole == 3.0
    assert whole(company, Lease(3, "a", 0), 1.5, 4) == Stretch(1, undisturbed=True, whole=4.5)


def test_a_phase_is_whole_only_if_every_stretch_was_undisturbed() -> None:
    company = Company()
    company.run_began(LEASE)
    company.move_began("unet")
    company.run_ended(LEASE, Paused(LEASE, 3, 0), 3.0, 3)
    company.move_ended("unet")
    assert whole(company, Lease(2, "a", 0)) == Stretch(1, undisturbed=True, whole=None)


@pytest.mark.parametrize(
    "event",
    [
        RunFailed(LEASE, Fault.OUT_OF_MEMORY, ""),
        RunFailed(LEASE, Fault.SHARED, ""),
        RunCancelled(LEASE),
    ],
)
def test_after_a_failure_nobody_knows_where_the_run_goes_on(event: Event) -> None:
    company = Company()
    company.run_began(LEASE)
    assert company.run_ended(LEASE, event, 3.0, 0) == NOTHING
    again = Lease(2, "a", 0)
    company.run_began(again)
    paused = company.run_ended(again, Paused(again, 3, 0), 3.0, 3)
    assert paused == Stretch(0, undisturbed=True, whole=None)
    assert whole(company, Lease(3, "a", 0)) == Stretch(1, undisturbed=True, whole=None)


def test_a_part_that_left_disturbs_nobody_and_begins_anew() -> None:
    company = Company()
    company.run_began(LEASE)
    company.forget("a")
    assert whole(company, Lease(2, "b", 0)) == Stretch(4, undisturbed=True, whole=3.0)
    assert whole(company, Lease(3, "a", 0)) == Stretch(4, undisturbed=True, whole=3.0)


def test_what_never_began_was_not_alone() -> None:
    company = Company()
    ended = company.run_ended(LEASE, PhaseFinished(LEASE, 0), 3.0, 4)
    assert ended == NOTHING
    assert not company.move_ended("unet")


@given(st.lists(st.integers(0, 5), max_size=40))
def test_alone_is_what_overlaps_nothing(toggles: list[int]) -> None:
    """Numbers 0 to 2 are runs, 3 to 5 moves; each number begins what it stands for, or ends it."""
    company, since, spans, answers = Company(), {}, [], []
    for now, number in enumerate(toggles):
        if number not in since:
            since[number] = now
            _begin(company, number)
        else:
            spans.append((number, since.pop(number), now))
            answers.append(_end(company, number))
    still = [(number, begun, len(toggles)) for number, begun in since.items()]
    assert answers == [_alone(span, spans + still) for span in spans]


def _begin(company: Company, number: int) -> None:
    if number < 3:
        company.run_began(Lease(number, str(number), 0))
    else:
        company.move_began(str(number))


def _end(company: Company, number: int) -> bool:
    lease = Lease(number, str(number), 0)
    if number < 3:
        return company.run_ended(lease, Paused(lease, 1, 0), 1.0, 1).undisturbed
    return company.move_ended(str(number))


def _alone(span: tuple[int, int, int], spans: list[Any]) -> bool:
    number, begun, ended = span
    return not any(
        other != span and other[1] < ended and begun < other[2]
        for other in spans
        if number < 3 or other[0] >= 3
    )
