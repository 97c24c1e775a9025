"""The pace of a run that several share is told from one change of company to the next."""

from __future__ import annotations

import pytest

from ourvidz.service.paces import Pace, Paces
from scheduler.types import Lease

A, B, C = Lease(1, "a", 0), Lease(2, "b", 0), Lease(3, "c", 0)


class Books:
    """Paces of jobs whose steps are set by hand."""

    def __init__(self) -> None:
        self.steps: dict[Lease, int] = {}
        self.paces = Paces(lambda lease: self.steps.get(lease, 0))

    def begin(self, lease: Lease, now: float, units: int = 1) -> Pace | None:
        return self.paces.run_began(lease, units, now)

    def end(self, lease: Lease, now: float) -> Pace | None:
        return self.paces.run_ended(lease, now)

    def step(self, **steps: int) -> None:
        for lease in (A, B, C):
            self.steps[lease] = self.steps.get(lease, 0) + steps.get(lease.job, 0)


def test_every_stretch_has_its_units() -> None:
    books = Books()
    books.steps[B] = 40
    assert books.begin(A, 100.0) is None
    books.step(a=50)
    assert books.begin(B, 105.0, units=2) is None, "alone it shares nothing"
    books.step(a=10, b=10)
    assert books.begin(C, 107.0) == Pace((A, B), 3, 0.2)
    books.step(a=20, b=20, c=20)
    assert books.end(A, 112.0) == Pace((A, B, C), 4, 0.25)
    books.step(b=8, c=8)
    assert books.end(B, 114.0) == Pace((B, C), 3, 0.25)
    books.step(c=30)
    assert books.end(C, 115.0) is None


@pytest.mark.parametrize(
    ("a", "b", "told"),
    [(7, 7, False), (8, 8, True), (8, 7, True), (7, 8, True), (9, 7, False), (20, 0, False)],
)
def test_few_steps_and_steps_that_were_not_the_same_tell_nothing(
    a: int, b: int, told: bool
) -> None:
    books = Books()
    books.begin(A, 0.0)
    books.begin(B, 0.0)
    books.step(a=a, b=b)
    pace = books.end(A, 4.0)
    assert (pace is not None) == told
    assert not told or pace == Pace((A, B), 2, 4.0 / max(a, b))


def test_what_moves_beside_the_run_spoils_the_stretches_that_it_touches() -> None:
    books = Books()
    books.begin(A, 0.0)
    books.begin(B, 0.0)
    books.step(a=10, b=10)
    books.paces.move_began()
    books.step(a=10, b=10)
    assert books.begin(C, 4.0) is None
    books.step(a=10, b=10, c=10)
    books.paces.move_ended()
    assert books.end(C, 8.0) is None
    books.step(a=10, b=10)
    assert books.end(B, 10.0) == Pace((A, B), 2, 0.2)


def test_who_left_without_a_step_is_no_member_any_more() -> None:
    books = Books()
    books.begin(A, 0.0)
    books.begin(B, 0.0)
    assert books.end(C, 0.0) is None
    assert books.end(B, 1.0) is None
    books.step(a=10, b=10)
    assert books.end(A, 2.0) is None
