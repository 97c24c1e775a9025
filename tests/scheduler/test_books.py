"""The books that hold the scheduler to its promises do not let a broken one pass."""

from __future__ import annotations

from dataclasses import replace

import pytest

from scheduler import messages as m
from scheduler.types import Budget, Fault, Lease, Outcome, Phase, Sharing
from tests.scheduler.books import Books
from tests.scheduler.shell import demand, phase

TEXT = Sharing("text", 1, 2, 0.1, mid_phase=True)
IMAGE = Sharing("image", 1, 2, 0.1, mid_phase=False)


def lease(job: str, number: int = 0) -> Lease:
    return Lease(number or ord(job), job, 0)


def start(job: str, run: int = 1, starters: int = 1) -> m.Start:
    return m.Start(lease(job), run, starters)


def books(sharing: Sharing | None = TEXT) -> Books:
    """a and b are on the device, c is on disk; w to z wait for a, and may share a run."""
    found = Books({"a": 10, "b": 10, "c": 10}, Budget(100, 100))
    found.masters = {"a": "ready", "b": "ready"}
    found.copies = {"a": "ready", "b": "ready"}
    for job in "wxyz":
        found.arrived(demand(job, phase("a", steps=5, sharing=sharing)))
    found.arrived(demand("other", phase("b")))
    return found


def refused(found: Books, *commands: m.Command) -> str:
    with pytest.raises(AssertionError) as caught:
        found.issued(commands)
    return str(caught.value).splitlines()[0]


def test_transfers_go_from_where_things_are() -> None:
    assert refused(books(), m.Stage("a")) == "a has a master already"
    assert refused(books(), m.Load("c")) == "c has no master"
    assert refused(books(), m.Load("a")) == "a is on the device already"
    assert refused(books(), m.Evict("c")) == "c is not resident"
    assert refused(books(), m.Unstage("a")) == "a is on the device"
    assert refused(books(), m.Unstage("c")) == "c has no master"


def test_only_what_is_on_its_way_is_called_off_and_once() -> None:
    assert refused(books(), m.Abort("a")) == "a is not on its way"
    assert refused(books(), m.Stage("c"), m.Abort("c"), m.Abort("c")) == "c is called off twice"


def test_while_a_run_lasts_nothing_goes_that_anyone_needs() -> None:
    books().issued([m.Evict("b")])
    assert refused(books(), start("x"), m.Evict("b")) == "b goes, ['other'] need it"
    assert refused(books(), start("x"), m.Evict("a")).startswith("a goes, ['w', 'x', 'y', 'z']")


def test_a_run_needs_its_components_and_the_right_command() -> None:
    found = books()
    del found.copies["a"]
    assert refused(found, start("x")).endswith("lacks a")
    assert "None" in refused(books(), m.Resume(lease("x"), 1))
    assert refused(books(), m.Start(Lease(1, "x", 1), 1)).endswith("next is 0")
    assert refused(books(), start("x"), start("x")) == "x runs already"
    assert refused(books(), start("q")) == "q is unknown"


def test_one_run_lives_and_its_number_is_new() -> None:
    assert refused(books(), start("x", 1), start("y", 2)) == "runs [1, 2] live"
    found = books()
    found.issued([start("x", 5)])
    found.ended(start("x", 5), m.PhaseFinished(lease("x"), 0))
    assert refused(found, start("y", 5)) == "run 5 comes again"


def test_starters_are_those_that_are_issued_together_and_one_who_joins() -> None:
    assert refused(books(), start("x", 1, 2)).endswith("of 1")
    assert refused(books(), start("x"), start("y")).endswith("of 2")
    found = books()
    found.issued([start("x")])
    assert refused(found, start("y", 1, 2)).endswith("of 1")


@pytest.mark.parametrize(
    ("other", "words"),
    [
        (phase("a"), "shares a run"),
        (phase("a", sharing=replace(TEXT, key="else")), "share a run"),
        (phase("a", sharing=replace(TEXT, units=2)), "too many units"),
    ],
)
def test_those_in_a_run_may_share_it(other: Phase, words: str) -> None:
    found = books()
    found.arrived(demand("y", other))
    assert words in refused(found, start("x", 1, 2), start("y", 1, 2))


def test_who_is_to_run_alone_does() -> None:
    for fault in (Fault.SHARED, Fault.OUT_OF_MEMORY):
        found = books()
        found.issued([start("x")])
        found.ended(start("x"), m.RunFailed(lease("x"), fault, "why"))
        again = m.Start(Lease(2, "x", 0), 2, 2)
        assert "is to run by itself" in refused(found, again, start("y", 2, 2))


def test_what_goes_in_step_begins_together_at_the_same_step() -> None:
    found = books(IMAGE)
    found.issued([start("x")])
    assert "join where none may" in refused(found, start("y"))
    found = books(IMAGE)
    found.issued([start("x")])
    found.ended(start("x"), m.Paused(lease("x"), 3, 0))
    resume = m.Resume(Lease(2, "x", 0), 2, 2)
    assert "are not in step" in refused(found, resume, start("y", 2, 2))


def test_nobody_joins_a_run_that_is_pausing() -> None:
    found = books()
    found.issued([start("x"), m.Pause(lease("x"))])
    assert " join " in refused(found, start("y"))


def test_requests_name_a_run_that_lives_and_come_once() -> None:
    assert refused(books(), m.Pause(lease("x"))).endswith("of no run")
    assert refused(books(), start("x"), m.Cancel(Lease(ord("x"), "y", 0))).endswith("another's run")
    assert refused(books(), start("x"), m.Pause(lease("x")), m.Pause(lease("x"))).endswith("twice")


def test_a_job_leaves_once_and_not_while_it_runs() -> None:
    settle = m.Settle("x", Outcome.FINISHED)
    assert refused(books(), settle, settle) == "x is settled twice"
    assert refused(books(), start("x"), settle) == "x runs"
    assert refused(books(), settle, start("x")) == "x is settled"
    assert refused(books(), m.Settle("nobody", Outcome.FAILED)) == "nobody never arrived"
