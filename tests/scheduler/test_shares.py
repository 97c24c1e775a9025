"""Since when each kind has gone without its share of the device."""

import pytest

from scheduler.shares import Shares


def waiting(*kinds: str, at: float = 0.0) -> Shares:
    shares = Shares(quantum=10.0)
    shares.advance(at, ())
    for kind in kinds:
        shares.enter(kind)
    return shares


def test_a_kind_goes_without_since_its_first_job_waits() -> None:
    shares = waiting("video", at=5.0)
    shares.advance(9.0, ())
    shares.enter("video")
    assert shares.since("video") == 5.0
    assert shares.since("image") is None
    assert list(shares.kinds) == ["video"]


def test_a_kind_is_served_once_its_jobs_have_run_for_the_quantum() -> None:
    shares = waiting("video", "image")
    shares.advance(4.0, ["video"])
    shares.advance(7.0, ["image"])
    shares.advance(12.0, ["video"])
    assert shares.since("video") == 0.0
    shares.advance(13.5, ["video"])
    assert (shares.since("video"), shares.since("image")) == (13.0, 0.0)


def test_it_was_served_when_the_quantum_was_full_whenever_that_is_looked_at() -> None:
    shares = waiting("video")
    shares.advance(34.0, ["video"])
    assert shares.since("video") == 30.0
    shares.advance(39.0, ["video"])
    assert shares.since("video") == 30.0
    shares.advance(42.0, ["image"])
    shares.advance(44.0, ["video"])
    # The quantum is full at 43, after nine seconds before and one since 42.
    assert shares.since("video") == 43.0


def test_several_jobs_of_a_kind_in_a_run_count_once() -> None:
    shares = waiting("text")
    shares.advance(6.0, ["text", "text"])
    assert shares.since("text") == 0.0


def test_a_kind_of_which_no_job_waits_has_no_claim_and_comes_back_fresh() -> None:
    shares = waiting("video")
    shares.advance(9.0, ["video"])
    shares.leave("video")
    assert shares.since("video") is None
    assert list(shares.kinds) == []
    shares.advance(20.0, ["video"])
    shares.enter("video")
    assert shares.since("video") == 20.0
    shares.advance(29.0, ["video"])
    assert shares.since("video") == 20.0
    shares.leave("nobody")


def test_when_a_kind_will_be_served() -> None:
    shares = waiting("video", "image")
    assert shares.next_served(["text"]) == float("inf")
    assert shares.next_served(["video", "video"]) == 10.0
    shares.advance(4.0, ["video"])
    assert shares.next_served(["image"]) == 14.0
    shares.advance(5.0, ["image"])
    assert shares.next_served(["video", "image"]) == 11.0
    assert shares.next_served(["image"]) == 14.0


def test_sums_do_not_depend_on_how_often_they_are_looked_at() -> None:
    seldom, often = waiting("video"), waiting("video")
    seldom.advance(0.7, ["video"])
    for tenth in range(1, 8):
        often.advance(tenth / 10, ["video"])
    for shares in (seldom, often):
        shares.advance(1.0, [])
    assert seldom.next_served(["video"]) == often.next_served(["video"])
    seldom.advance(10.3, ["video"])
    for tenth in range(11, 104):
        often.advance(tenth / 10, ["video"])
    assert seldom.since("video") == often.since("video") == 1.0 + 10.0 - 0.7


def test_what_a_kind_had_before_it_was_interrupted_counts() -> None:
    shares = waiting("video", at=5.3)
    shares.advance(9.0, ["video"])
    shares.advance(20.0, ["image"])
    assert shares.next_served(["video"]) == pytest.approx(20.0 + 10.0 - 3.7)
    shares.advance(26.2, ["video"])
    assert shares.since("video") == 5.3
    shares.advance(26.4, ["video"])
    assert shares.since("video") == pytest.approx(26.3)


def test_what_it_had_before_counts_once() -> None:
    shares = waiting("video")
    shares.advance(4.0, ["video"])
    shares.advance(6.0, ["image"])
    shares.advance(20.0, ["video"])
    assert shares.since("video") == 12.0
    assert shares.next_served(["video"]) == 22.0


def test_many_slices_at_once_are_one_look() -> None:
    shares = Shares(0.1)
    shares.advance(0.0, [])
    shares.enter("text")
    shares.advance(1.0, ["text"])
    shares.advance(1e9 + 0.05, ["text"])
    since = shares.since("text")
    assert since is not None
    assert 0.0 <= 1e9 + 0.05 - since < 0.1 + 1e-6
