"""The orders in which those who wait are looked for."""

from __future__ import annotations

import math
from typing import Any

from scheduler.job import Job
from scheduler.policy import Place
from scheduler.types import Sharing
from scheduler.view import JobView
from scheduler.waiting import Waiting
from tests.scheduler.shell import demand, phase

SIZES = {"a": 10, "b": 20}
TEXT = Sharing("text", 1, 4, 0.1, mid_phase=True)
IMAGE = Sharing("image", 2, 4, 0.8, mid_phase=False)


class Places:
    """A policy that places jobs where it is told to."""

    def __init__(self) -> None:
        self.asked: list[tuple[str, float]] = []
        self.told: dict[str, list[Place]] = {}

    def __call__(self, job: JobView, now: float) -> Place:
        self.asked.append((job.id, now))
        told = self.told.get(job.id, [])
        return told.pop(0) if told else Place(job.remaining_seconds)


def waiting() -> tuple[Waiting, Places]:
    places = Places()
    return Waiting(SIZES, places), places


def job(name: str, *phases: Any, weight: float = 1.0, **more: Any) -> Job:
    return Job(demand(name, *(phases or [phase("a")]), **more), SIZES, weight)


def groups(queue: Waiting) -> list[list[str]]:
    return [[j.id for j in group.jobs()] for group in queue.groups()]


def names(jobs: Any) -> list[str]:
    return [j.id for j in jobs]


def test_groups_are_of_equal_needs_weight_kind_and_lane() -> None:
    queue, places = waiting()
    places.told["late"] = [Place(0.0, lane=1)]
    for item in (
        job("slow", phase("a", seconds=9.0)),
        job("quick", phase("a", seconds=2.0)),
        job("other", phase("b", seconds=1.0)),
        job("heavy", weight=2.0),
        job("video", kind="video"),
        job("late"),
    ):
        queue.add(item, 0.0)
    assert groups(queue) == [["quick", "slow"], ["other"], ["heavy"], ["video"], ["late"]]
    found = [(g.needs, g.weight, g.kind, g.lane) for g in queue.groups()]
    assert found == [
        (("a",), 1.0, "", 0),
        (("b",), 1.0, "", 0),
        (("a",), 2.0, "", 0),
        (("a",), 1.0, "video", 0),
        (("a",), 1.0, "", 1),
    ]
    assert len(queue) == 6
    assert (queue.of_kind(""), queue.of_kind("video"), queue.of_kind("text")) == (5, 1, 0)


def test_equal_ranks_go_by_arrival_and_then_by_id() -> None:
    queue, _ = waiting()
    for item in (job("c", arrival=1.0), job("b"), job("a", arrival=1.0)):
        queue.add(item, 1.0)
    assert groups(queue) == [["b", "a", "c"]]
    assert names(queue.by_arrival()) == ["b", "a", "c"]


def test_who_leaves_is_found_nowhere_and_empty_groups_are_gone() -> None:
    queue, _ = waiting()
    first = job("first", phase("a", sharing=TEXT), phase("b"))
    second = job("second", phase("a", sharing=TEXT))
    queue.add(first, 0.0)
    queue.add(second, 0.0)
    assert (queue.needed("a"), queue.needed("b")) == (2, 1)
    queue.remove(first)
    assert (queue.needed("a"), queue.needed("b")) == (1, 0)
    assert groups(queue) == [["second"]]
    assert names(queue.sharers(first)) == ["second"]
    assert names(queue.by_arrival()) == ["second"]
    queue.remove(second)
    assert groups(queue) == []
    assert queue._shared == {}
    assert list(queue.sharers(first)) == []
    assert (len(queue), queue.of_kind("")) == (0, 0)


def test_whoever_waits_is_placed_anew_when_its_place_runs_out() -> None:
    queue, places = waiting()
    places.told["x"] = [Place(5.0, until=10.0), Place(1.0, lane=2, until=20.0), Place(3.0, lane=2)]
    queue.add(job("x"), 0.0)
    assert queue.next_due == 10.0
    queue.due(9.9)
    assert [g.lane for g in queue.groups()] == [0]
    queue.due(10.0)
    assert [g.lane for g in queue.groups()] == [2]
    assert queue.next_due == 20.0
    queue.due(25.0)
    assert queue.next_due == math.inf
    assert places.asked == [("x", 0.0), ("x", 10.0), ("x", 25.0)]


def test_several_places_run_out_together() -> None:
    queue, places = waiting()
    for name in "xyz":
        places.told[name] = [Place(1.0, until=10.0), Place(2.0)]
        queue.add(job(name), 0.0)
    queue.due(10.0)
    assert [name for name, now in places.asked if now == 10.0] == ["x", "y", "z"]


def test_the_place_of_who_has_left_runs_out_for_nobody() -> None:
    queue, places = waiting()
    places.told["x"] = [Place(1.0, until=10.0), Place(2.0, until=30.0)]
    item = job("x")
    queue.add(item, 0.0)
    queue.remove(item)
    assert queue.next_due == math.inf
    queue.add(item, 5.0)
    assert queue.next_due == 30.0
    queue.due(10.0)
    assert places.asked == [("x", 0.0), ("x", 5.0)]


def test_an_id_may_come_again_while_its_old_turn_is_remembered() -> None:
    queue, places = waiting()
    for _ in range(2):
        places.told["x"] = [Place(1.0, until=10.0)]
        item = job("x")
        queue.add(item, 0.0)
        queue.remove(item)
    places.told["x"] = [Place(1.0, until=10.0)]
    queue.add(job("x"), 0.0)
    queue.due(10.0)
    assert names(queue.by_arrival()) == ["x"]


def test_sharers_have_the_same_key_and_are_in_order_of_rank() -> None:
    queue, _ = waiting()
    mine = job("mine", phase("a", seconds=5.0, sharing=TEXT))
    for item in (
        mine,
        job("slow", phase("a", seconds=9.0, sharing=TEXT)),
        job("quick", phase("a", seconds=1.0, sharing=TEXT)),
        job("image", phase("a", sharing=IMAGE)),
        job("lone", phase("a")),
    ):
        queue.add(item, 0.0)
    assert names(queue.sharers(mine)) == ["quick", "slow"]
    assert list(queue.sharers(job("lone"))) == []
    queue.remove(mine)
    assert names(queue.sharers(mine)) == ["quick", "slow"]


def test_what_must_go_in_step_is_shared_at_the_same_step_only() -> None:
    queue, _ = waiting()
    for sharing, found in ((IMAGE, ["fresh"]), (TEXT, ["fresh", "begun"])):
        mine = job("mine", phase("a", steps=9, sharing=sharing))
        fresh = job("fresh", phase("a", steps=9, sharing=sharing))
        begun = job("begun", phase("a", steps=9, sharing=sharing, seconds=5.0))
        begun.reach(4)
        for item in (mine, fresh, begun):
            queue.add(item, 0.0)
        assert names(queue.sharers(mine)) == found
        for item in (mine, fresh, begun):
            queue.remove(item)


def test_coming_sharers_are_a_phase_behind() -> None:
    queue, _ = waiting()
    mine = job("mine", phase("a", sharing=IMAGE))
    behind = job("behind", phase("b"), phase("a", sharing=IMAGE))
    far = job("far", phase("b"), phase("b"), phase("a", sharing=IMAGE))
    other = job("other", phase("b"), phase("a", sharing=TEXT))
    for item in (mine, behind, far, other):
        queue.add(item, 0.0)
    assert names(queue.coming_sharers(mine)) == ["behind"]
    assert names(queue.sharers(mine)) == []
    assert list(queue.coming_sharers(behind)) == []
    queue.remove(behind)
    assert names(queue.coming_sharers(mine)) == []


def test_one_that_was_paused_a_phase_behind_is_a_coming_sharer() -> None:
    queue, _ = waiting()
    ahead = job("ahead", phase("a", steps=4, sharing=IMAGE))
    behind = job("behind", phase("b", steps=9), phase("a", steps=4, sharing=IMAGE))
    behind.reach(3)
    for item in (ahead, behind):
        queue.add(item, 0.0)
    assert names(queue.coming_sharers(ahead)) == ["behind"]


def test_who_runs_by_itself_is_nobodys_company() -> None:
    queue, _ = waiting()
    mine = job("mine", phase("a", sharing=TEXT))
    solo = job("solo", phase("b"), phase("a", sharing=TEXT))
    solo.solo = True
    queue.add(mine, 0.0)
    queue.add(solo, 0.0)
    assert list(queue.coming_sharers(mine)) == []
    queue.remove(solo)
    solo.next_phase()
    queue.add(solo, 0.0)
    assert names(queue.sharers(mine)) == []
    assert list(queue.sharers(solo)) == []


def test_of_sharers_those_of_the_highest_lane_come_first() -> None:
    queue, places = waiting()
    mine = job("mine", phase("a", sharing=TEXT))
    places.told["last"] = [Place(1e6, lane=3)]
    places.told["late"] = [Place(5.0, lane=1)]
    for name in ("quick", "late", "last"):
        queue.add(job(name, phase("a", sharing=TEXT)), 0.0)
    assert names(queue.sharers(mine)) == ["last", "late", "quick"]
