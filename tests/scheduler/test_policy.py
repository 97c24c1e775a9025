"""The default policy's order, rule by rule, on the core's own index: names carry the numbers of the
policy's docstring."""

from __future__ import annotations

import random
from dataclasses import replace
from typing import Any

import pytest

from scheduler import WAIT, Decision, Place, PolicySettings, PricedWork
from scheduler.index import Index
from scheduler.job import Job, Run
from scheduler.residency import Failure
from scheduler.types import Budget, Component, Lease, Tier
from tests.scheduler.shell import LINKS, demand, phase

# Shortest work and nothing else; each test adds the rule that it is about.
NEUTRAL = PolicySettings(
    ageing_seconds=1e12,
    wait_seconds_max=1e9,
    discount=0.0,
    hysteresis_seconds=0.0,
    turn_seconds=0.0,
    share_floor=0.0,
)
SIZES = {"a": 40, "b": 40, "c": 10}
LOAD_A = LINKS.load_seconds(40)


class Line:
    """Those who wait. a is on the device, b is staged, c is on disk."""

    def __init__(self, **changes: Any) -> None:
        settings = replace(NEUTRAL, **changes)
        self.policy = PricedWork(settings)
        parts = [Component(name, size) for name, size in SIZES.items()]
        self.index = Index(
            parts, Budget(100, 200), LINKS, self.policy.place, settings.share_seconds, ("a", "b")
        )
        self.index.move(self.index.residencies["a"], Tier.LOADING, "somebody")
        self.index.move(self.index.residencies["a"], Tier.RESIDENT)

    def enter(
        self,
        name: str,
        seconds: float,
        *,
        at: float = 0.0,
        needs: str = "a",
        weight: float = 1.0,
        work: int = 1,
        **more: Any,
    ) -> Job:
        self.index.advance(at)
        wanted = demand(name, phase(needs, seconds=seconds, work=work), arrival=at, **more)
        job = Job(wanted, self.index.sizes, weight)
        self.index.enter(job)
        return job

    def run(self, job: Job) -> Run:
        run = Run(Lease(1, job.id, 0), job, 1, self.index.now, False, 0)
        self.index.begin(run, 1)
        return run

    def choice(self, now: float = 0.0) -> str | None:
        self.index.advance(now)
        return self.policy.choose(self.index, now).job

    def order(self, now: float = 0.0) -> list[str]:
        self.index.advance(now)
        return [job.id for job in self.policy.order(self.index, now)]


def test_nothing_waits() -> None:
    line = Line()
    assert line.policy.choose(line.index, 0.0) == WAIT == Decision(None, preempt=False)
    assert line.order() == []


def test_1a_the_oldest_of_those_that_waited_too_long_goes_first() -> None:
    line = Line(wait_seconds_max=100.0)
    line.enter("older", 99.0, at=50.0)
    line.enter("old", 90.0, at=51.0)
    line.enter("short", 0.1, at=140.0)
    assert line.order(149.9) == ["short", "old", "older"]
    assert line.order(150.0) == ["older", "short", "old"]
    assert line.choice(150.0) == "older"
    assert line.order(151.0) == ["older", "old", "short"]


def test_1a_goes_before_1b() -> None:
    line = Line(wait_seconds_max=100.0, share_floor=0.5, share_seconds=10.0)
    line.enter("last", 70.0, kind="video")
    line.enter("due", 5.0, at=60.0, kind="image")
    assert line.order(99.9) == ["due", "last"]
    assert line.order(100.0) == ["last", "due"]


def test_1b_a_kind_without_its_share_goes_before_all_others() -> None:
    """Ten seconds in each hundred."""
    line = Line(share_seconds=10.0, share_floor=0.1)
    line.enter("video", 900.0, kind="video")
    line.enter("image", 1.0, at=50.0, kind="image")
    assert line.order(99.9) == ["image", "video"]
    assert line.order(100.0) == ["video", "image"]
    assert line.choice(100.0) == "video"
    # Both are due from 150 on, and stand as they would without it.
    assert line.order(150.0) == ["image", "video"]


def test_1b_a_kind_that_was_served_is_due_a_period_later() -> None:
    line = Line(share_seconds=10.0, share_floor=0.1)
    first = line.enter("first", 900.0, kind="video")
    line.enter("second", 900.0, kind="video")
    line.enter("image", 1.0, at=100.0, kind="image")
    assert line.order(100.0)[0] == "first"
    run = line.run(first)
    # Until then the run goes before the image.
    assert line.policy.wake(line.index, 100.0) == 110.0
    line.index.advance(110.0)
    line.index.end(run)
    assert line.order(110.0) == ["image", "second"]
    assert line.policy.wake(line.index, 110.0) == 200.0
    line.index.advance(200.0)
    assert line.policy.wake(line.index, 200.0) == 210.0
    assert line.order(209.9)[0] == "image"


def test_1b_switched_off_is_never_due() -> None:
    line = Line(share_seconds=10.0, share_floor=0.0)
    line.enter("video", 900.0, kind="video")
    line.enter("image", 1.0, at=9999.0, kind="image")
    assert line.choice(9999.0) == "image"
    assert line.policy.wake(line.index, 9999.0) is None


def test_2a_shortest_remaining_work() -> None:
    line = Line()
    for name, seconds in (("long", 9.0), ("short", 3.0), ("middle", 5.0)):
        line.enter(name, seconds)
    assert line.choice() == "short"
    assert line.order() == ["short", "middle", "long"]


@pytest.mark.parametrize(("margin", "first"), [(-0.01, "cold"), (0.01, "warm")])
def test_2a_set_up_counts(margin: float, first: str) -> None:
    stage = LINKS.stage_seconds(10) + LINKS.load_seconds(10)
    for needs, seconds in (("b", LOAD_A), ("c", stage)):
        line = Line()
        line.enter("cold", 3.0 + margin, needs=needs)
        line.enter("warm", 3.0 + seconds)
        assert line.choice() == line.order()[0] == first


def test_2a_set_up_does_not_count_where_that_is_switched_off() -> None:
    line = Line(price_set_ups=False)
    line.enter("cold", 3.0, needs="c")
    line.enter("warm", 3.1)
    assert line.choice() == line.order()[0] == "cold"


def test_2a_switched_off_set_up_counts_for_no_class() -> None:
    for seconds, first in ((2.4, "normal"), (2.6, "fast")):
        line = Line(price_set_ups=False)
        line.enter("fast", 5.0, weight=2.0, needs="c")
        line.enter("normal", seconds, needs="b")
        assert line.choice() == line.order()[0] == first


def test_2a_the_class_weight_divides_work_and_set_up() -> None:
    for seconds, first in ((2.4, "normal"), (2.6, "fast")):
        line = Line()
        line.enter("fast", 5.0, weight=2.0)
        line.enter("normal", seconds)
        assert line.choice() == line.order()[0] == first
    for seconds, first in ((2.6, "normal"), (2.8, "fast")):
        line = Line()
        line.enter("fast", 5.0, weight=2.0, needs="b")  # 0.41 to load, 0.205 of it counts
        line.enter("normal", seconds)
        assert line.choice() == line.order()[0] == first


def test_2b_work_counts_for_less_while_the_deadline_can_just_be_met() -> None:
    """8 seconds of work by 100: it must begin by 92, and counts for less from 82 on."""
    line = Line(discount=0.5, discount_seconds_max=12.0, margin_seconds=10.0)
    line.enter("timed", 8.0, deadline=100.0)
    line.enter("other", 5.0)
    assert line.order(81.9) == ["other", "timed"]
    assert line.order(82.0) == ["timed", "other"]
    assert line.order(91.9) == ["timed", "other"]
    assert line.order(92.0) == ["other", "timed"]
    assert line.order(100.0) == ["other", "timed"]


def test_2b_no_more_is_taken_off_than_the_limit_and_the_weight_divides_it() -> None:
    for weight, counts in ((1.0, 28.0), (2.0, 14.0)):
        for margin, first in ((-0.01, "other"), (0.01, "timed")):
            line = Line(discount=0.5, discount_seconds_max=12.0, margin_seconds=10.0)
            line.enter("timed", 40.0, deadline=45.0, weight=weight)
            line.enter("other", counts + margin)
            assert line.choice(0.0) == first


def test_2c_ageing_takes_off_a_second_for_every_so_many_of_waiting() -> None:
    for seconds, first in ((3.9, "new"), (4.1, "old")):
        line = Line(ageing_seconds=10.0)
        line.enter("old", 5.0)
        line.enter("new", seconds, at=10.0)
        assert line.choice(50.0) == line.order(50.0)[0] == first


def test_2c_lateness_weighs_by_slices_of_five_seconds() -> None:
    """A second late outweighs two of work; the other one is not late before 1000."""
    line = Line(late_ageing=2.0)
    job = line.enter("late", 30.0, deadline=100.0)
    line.enter("other", 10.5, deadline=1000.0)
    for now, first in ((99.9, "other"), (109.9, "other"), (110.0, "late")):
        assert line.choice(now) == line.order(now)[0] == first
    places = [line.policy.place(job, now) for now in (100.0, 104.9, 105.0, 110.0)]
    assert [(p.rank - job.rank, p.until) for p in places] == [
        (20.0, 105.0),
        (20.0, 105.0),
        (10.0, 110.0),
        (0.0, 115.0),
    ]


def test_2c_of_two_that_are_late_the_later_one_counts_for_less() -> None:
    for deadline, first in ((90.0, "later"), (90.1, "late")):
        line = Line(late_ageing=2.0)
        line.enter("later", 29.5, deadline=deadline)
        line.enter("late", 10.0, deadline=99.0)
        assert line.choice(100.0) == line.order(100.0)[0] == first


@pytest.mark.parametrize("deadline", [72.1054292548102, 0.1, 35.74999999999999, 1e5 + 0.3])
def test_2c_a_slice_that_is_over_is_over_however_it_is_rounded(deadline: float) -> None:
    line = Line(late_ageing=2.0)
    job = line.enter("late", 30.0, deadline=deadline)
    until, ranks = deadline, []
    for _ in range(50):
        place = line.policy.place(job, until)
        assert place.until > until
        ranks.append(place.rank)
        until = place.until
    assert ranks == pytest.approx([ranks[0] - 10.0 * n for n in range(50)])


def test_2d_who_found_jobs_of_the_same_user_and_kind_waiting_goes_later() -> None:
    line = Line(turn_seconds=1.0)
    for number in range(3):
        line.enter(f"mine{number}", 5.0, user="me", kind="image")
    line.enter("text", 5.1, user="me", kind="text")
    line.enter("yours", 5.2, user="you", kind="image")
    assert line.order() == ["mine0", "text", "yours", "mine1", "mine2"]


def test_2d_a_user_falls_back_by_so_many_turns_at_most() -> None:
    line = Line(turn_seconds=1.0)
    jobs = [line.enter(f"mine{n:02}", 5.0) for n in range(12)]
    assert [job.rank - jobs[0].rank for job in jobs] == [*range(9), 8, 8, 8]


def test_2d_a_turn_is_counted_when_the_job_arrives() -> None:
    line = Line(turn_seconds=1.0)
    first, second = line.enter("first", 5.0), line.enter("second", 5.0)
    line.index.remove(first)
    assert second.turn == 1
    assert line.enter("third", 5.0).turn == 1
    line.index.remove(second)
    line.index.remove(line.index.jobs["third"])
    assert line.enter("fourth", 5.0).turn == 0


def test_3_ties_go_to_the_earlier_then_to_the_lower_id() -> None:
    line = Line()
    line.enter("b", 5.0)
    line.enter("a", 5.0, at=1.0)
    line.enter("d", 5.0, at=1.0, needs="a")
    line.enter("c", 5.0, at=1.0, needs="a")
    assert line.order(1.0) == ["b", "a", "c", "d"]
    assert line.choice(1.0) == "b"


def test_who_is_not_admitted_is_passed_over() -> None:
    line = Line()
    begun = line.enter("begun", 9.0, work=30)
    run = line.run(begun)
    line.index.end(run)
    line.index.carry(begun, 30)
    begun.move(begun.standing.WAITING)
    line.index.park(begun)
    line.enter("big", 1.0, work=40)
    assert line.order() == ["big", "begun"]
    assert line.choice() == "begun"


def test_who_needs_what_has_failed_is_passed_over_and_comes_last() -> None:
    line = Line(wait_seconds_max=100.0)
    line.enter("hurt", 1.0, needs="c")
    line.enter("well", 9.0, at=150.0)
    line.index.residencies["c"].failure = Failure("why", False, 1e9)
    assert line.order(150.0) == ["well", "hurt"]
    assert line.choice(150.0) == "well"
    line.index.remove(line.index.jobs["well"])
    assert line.choice(150.0) is None


def random_demand(rng: random.Random, number: int) -> Any:
    names = [rng.choice("abc") for _ in range(rng.randint(1, 3))]
    phases = [phase(name, seconds=rng.choice([0.0, 1.0, 2.0, 30.0])) for name in names]
    arrival = float(rng.randint(0, 100))
    deadline = rng.choice([None, arrival + rng.choice([5.0, 20.0, 50.0])])
    more = {"user": rng.choice("uv"), "kind": rng.choice("kl")}
    return demand(f"j{number:02}", *phases, arrival=arrival, deadline=deadline, **more)


@pytest.mark.parametrize("seed", range(20))
def test_the_choice_is_the_first_in_order_and_places_hold_until_they_say(seed: int) -> None:
    """Looking at the heads of groups finds what sorting everything finds, and what was placed early
    stands where it would if it were placed now."""
    rng = random.Random(seed)
    settings = PolicySettings(
        ageing_seconds=20.0,
        late_ageing=rng.choice([0.0, 1.0]),
        wait_seconds_max=60.0,
        share_seconds=1.0,
        share_floor=rng.choice([0.0, 0.03]),
    )
    policy = PricedWork(settings)
    parts = [Component(name, rng.randint(1, 40)) for name in "abc"]
    index = Index(parts, Budget(10_000, 10_000), LINKS, policy.place, settings.share_seconds)
    index.advance(0.0)
    parked: list[Job] = []
    for number in range(60):
        wanted = random_demand(rng, number)
        parked.append(Job(wanted, index.sizes, rng.choice([1.0, 2.0])))
        index.enter(parked[-1])
    now = 0.0
    while parked:
        now += rng.uniform(0.0, 5.0)
        index.advance(now)
        ranked = policy.order(index, now)
        assert policy.choose(index, now).job == ranked[0].id
        assert len(ranked) == len(parked)
        for job in parked:
            place = policy.place(job, now)
            assert (job.rank, job.lane) == (place.rank, place.lane)
            assert place.until > now
        index.remove(parked.pop(rng.randrange(len(parked))))
    assert list(index.groups()) == []
    assert [index.queue.needed(name) for name in "abc"] == [0, 0, 0]
    assert index.kinds == {}.keys()


def test_a_place_says_until_when_it_holds() -> None:
    line = Line(wait_seconds_max=100.0, margin_seconds=3.0, discount=0.5)
    job = line.enter("x", 8.0, deadline=30.0)
    untils = [(now, line.policy.place(job, now).until) for now in (0, 18.9, 19, 22, 30, 100)]
    assert untils == [
        (0, 19.0),
        (18.9, 19.0),
        (19, 22.0),
        (22, 30.0),
        (30, 100.0),
        (100, float("inf")),
    ]
    assert Place(1.0).until == float("inf")
