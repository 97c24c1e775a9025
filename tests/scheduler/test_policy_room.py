"""What the default policy does while there is no room for who has waited too long (rule 1a), and
whom it names to share a run (rule 4), asked directly on the core's own index."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import pytest

from scheduler.job import Job, Run, Standing
from scheduler.residency import Failure
from scheduler.types import Lease, Phase, Sharing
from tests.scheduler.shell import demand, phase
from tests.scheduler.test_policy import Line

LONGEST = 100.0
TEXT = Sharing("text", 1, 4, 0.1, mid_phase=True)
IMAGE = Sharing("image", 1, 4, 0.0, mid_phase=False)


class Company(Line):
    """A line in which jobs may share runs."""

    def __init__(self, **changes: Any) -> None:
        super().__init__(wait_seconds_max=LONGEST, **changes)
        self._leases = 0

    def join(self, name: str, *phases: Phase, at: float = 0.0, weight: float = 1.0) -> Job:
        self.index.advance(at)
        job = Job(demand(name, *phases, arrival=at), self.index.sizes, weight)
        self.index.enter(job)
        return job

    def run(self, job: Job) -> Run:
        self._leases += 1
        run = Run(Lease(self._leases, job.id, job.phase), job, 1, self.index.now, False, 0)
        self.index.begin(run, 1)
        return run

    def begin(self, name: str, *, seconds: float = 50.0, state: int = 30, needs: str = "a") -> Job:
        """A job that has run and waits, with a state of so many bytes; it came at 50."""
        job = self.join(name, phase(needs, seconds=seconds, work=state, steps=9), at=50.0)
        self.index.end(self.run(job))
        self.index.carry(job, state)
        job.move(Standing.WAITING)
        self.index.park(job)
        return job

    def company(self, job: Job) -> list[str]:
        return [j.id for j in self.policy.company(job, self.index, self.index.now)]


def text(seconds: float = 10.0, **more: Any) -> Phase:
    return phase("a", seconds=seconds, sharing=replace(TEXT, **more), state_max=0)


def image(units: int = 1, seconds: float = 10.0, steps: int = 4, **more: Any) -> Phase:
    sharing = replace(IMAGE, units=units, **more)
    return phase("a", seconds=seconds, steps=steps, sharing=sharing, state_max=0)


# No room for the oldest (1a):


def crowded(**changes: Any) -> Company:
    """``big`` has waited too long and fits beside no state; ``begun`` has one of 30 bytes."""
    line = Company(**changes)
    line.enter("big", 1.0, work=40)
    line.begin("begun")
    line.index.advance(LONGEST - 1.0)
    return line


def test_1a_while_room_is_lacking_begun_jobs_go_before_shorter_new_ones() -> None:
    line = crowded()
    line.enter("new", 0.5, at=LONGEST - 1.0)
    assert line.choice(LONGEST - 1.0) == "new"
    assert line.choice(LONGEST) == "begun"


def test_1a_of_the_begun_jobs_the_best_goes() -> None:
    line = crowded()
    line.begin("shorter", seconds=20.0, state=0)
    assert line.index.admits(line.index.jobs["begun"])
    assert line.choice(LONGEST) == "shorter"


def test_1a_nothing_new_preempts_a_run_while_room_is_lacking() -> None:
    line = crowded()
    line.enter("new", 0.5, at=LONGEST - 1.0)
    line.run(line.index.jobs["begun"])
    assert line.policy.choose(line.index, line.index.now).preempt
    assert line.choice(LONGEST) is None


def test_1a_a_begun_job_that_is_held_up_does_not_keep_the_device_idle() -> None:
    line = Company()
    line.enter("big", 1.0, work=40)
    line.begin("begun", needs="c")
    line.enter("new", 0.5, at=LONGEST - 1.0)
    line.index.residencies["c"].failure = Failure("why", False, 1e9)
    assert line.choice(LONGEST) == "new"


def test_1a_room_is_kept_for_the_oldest_alone() -> None:
    """It fits; that a younger one, which has waited too long as well, does not, is its affair."""
    line = Company()
    line.enter("older", 9.0, at=1.0)
    line.enter("big", 1.0, at=2.0, work=40, needs="b")
    line.begin("begun")
    assert line.choice(LONGEST + 2.0) == "older"


def test_1a_no_room_is_kept_for_what_needs_a_failed_component() -> None:
    line = Company()
    line.enter("big", 1.0, work=60, needs="c")
    line.begin("begun")
    line.enter("new", 0.5, at=51.0)
    line.index.residencies["c"].failure = Failure("why", False, 1e9)
    assert line.choice(LONGEST) == "new"


def test_1a_who_may_come_along_is_begun_where_room_is_lacking() -> None:
    line = Company()
    line.enter("big", 1.0, work=40)
    line.begin("begun")
    leader = line.join("leader", text(), at=51.0)
    line.join("new", text(), at=51.0)
    other = line.join("other", text(), at=51.0)
    line.index.end(line.run(other))
    other.move(Standing.WAITING)
    line.index.park(other)
    assert line.company(leader) == ["new", "other"]
    line.index.advance(LONGEST)
    assert line.company(leader) == ["other"]


@pytest.mark.parametrize(("crowd", "chosen"), [(7, "small"), (8, "begun")])
def test_no_more_than_eight_of_a_group_are_asked_whether_there_is_room(
    crowd: int, chosen: str
) -> None:
    line = Company()
    line.begin("begun")
    for number in range(crowd):
        line.enter(f"big{number}", 1.0, work=40, at=50.0)
    line.enter("small", 2.0, at=50.0)
    assert line.choice(50.0) == chosen


# Company (4):


def test_4_who_must_run_alone_has_no_company() -> None:
    line = Company()
    job = line.join("x", phase("a"))
    line.join("y", text())
    assert tuple(line.policy.company(job, line.index, 0.0)) == ()


def test_4a_at_the_start_whoever_can_comes_along_though_somebody_has_waited_too_long() -> None:
    """Later only those who have may join, and nobody once one that cannot has."""
    line = Company()
    old = line.join("old", text())
    other = line.enter("other", 9.0, needs="b")
    line.index.advance(LONGEST)
    line.join("young", text(), at=LONGEST)
    assert line.company(old) == ["young"]
    line.run(old)
    assert line.company(old) == []
    line.index.remove(other)
    assert line.company(old) == ["young"]


def test_4a_while_texts_wait_too_long_only_these_join() -> None:
    line = Company()
    leader = line.join("leader", text())
    line.join("old", text(50.0))
    line.index.advance(LONGEST)
    line.run(leader)
    line.join("young", text(1.0), at=LONGEST)
    assert line.company(leader) == ["old"]


def test_4a_who_has_waited_too_long_for_what_has_failed_keeps_nobody_from_joining() -> None:
    line = Company()
    leader = line.join("leader", text())
    line.enter("old", 9.0, needs="c")
    line.index.residencies["c"].failure = Failure("why", False, 1e9)
    line.index.advance(LONGEST)
    line.run(leader)
    line.join("young", text(), at=LONGEST)
    assert line.company(leader) == ["young"]


def test_4b_nobody_joins_images_that_run() -> None:
    line = Company()
    leader = line.join("leader", image())
    line.join("other", image())
    assert line.company(leader) == ["other"]
    line.run(leader)
    assert line.company(leader) == []


def test_4b_who_is_too_large_is_left_out_and_a_smaller_one_is_not() -> None:
    line = Company()
    leader = line.join("leader", image(2))
    for name, units in (("three", 3), ("one", 1), ("two", 2), ("last", 1)):
        line.join(name, image(units, seconds=10.0 + line.index.waiting_count))
    assert line.company(leader) == ["one", "last"]


@pytest.mark.parametrize(
    ("leader", "other", "seconds", "exponent", "waiting", "joins"),
    [
        # Nine units alone take 3 s, sixteen 4, together 5: two are saved and two lost.
        (9, 16, 3.0, 0.5, 2, False),
        (9, 16, 3.0, 0.5, 3, True),
        (16, 9, 4.0, 0.5, 2, True),
        # Nothing is saved where a unit costs what it costs.
        (1, 1, 3.0, 1.0, 9, False),
        (2, 2, 3.0, 1.0, 9, False),
        (3, 1, 3.0, 1.0, 9, False),
        # Four alone 2, five together 2.236: saved 0.764 for each that waits, lost 0.236.
        (4, 1, 2.0, 0.5, 2, True),
        # One alone 1, five together 2.236: saved 0.764 for each that waits, lost 1.236.
        (1, 4, 1.0, 0.5, 2, False),
        (1, 4, 1.0, 0.5, 3, True),
        (1, 4, 9.0, 0.5, 2, False),
        (1, 4, 9.0, 0.5, 3, True),
    ],
)
def test_4b_what_is_saved_for_all_who_wait_outweighs_what_those_in_the_run_lose(
    leader: int, other: int, seconds: float, exponent: float, waiting: int, joins: bool
) -> None:
    line = Company()
    sizes = {"exponent": exponent, "units_max": 25}
    first = line.join("first", image(leader, seconds, **sizes))
    line.join("other", image(other, 99.0, **sizes))
    for number in range(waiting - 2):
        line.enter(f"behind{number}", 999.0)
    assert line.index.waiting_count == waiting
    assert line.company(first) == (["other"] if joins else [])


def test_4b_a_third_must_pay_for_the_two_that_it_delays() -> None:
    """1 + 1 - 1.625 are saved for each of the two behind the first, which loses 0.625; by a third
    1.625 + 1 - 2.158 for the one behind the two, and each of these would lose 0.533."""
    line = Company()
    first = line.join("first", image(1, 1.0, exponent=0.7, units_max=25))
    line.join("second", image(1, 20.0, exponent=0.7, units_max=25))
    line.join("third", image(1, 21.0, exponent=0.7, units_max=25))
    assert line.company(first) == ["second"]


# One that is a phase behind (4c):


def behind(
    line: Company, *, units: int = 1, needs: str = "a", following: Phase | None = None
) -> Job:
    return line.join("behind", phase(needs, seconds=1.0, state_max=0), following or image(units))


def test_4c_goes_first_where_it_pays() -> None:
    line = Company()
    line.join("first", image(seconds=0.5))
    behind(line)
    assert line.choice() == "behind"


@pytest.mark.parametrize(
    ("beside", "chosen"), [((1,), "behind"), ((1, 1), "first"), ((2,), "first")]
)
def test_4c_only_if_there_is_room_for_it_in_the_run(beside: Sequence[int], chosen: str) -> None:
    """Beside the one that was chosen and those that will come along, for its own two units."""
    line = Company()
    line.join("first", image(seconds=0.5))
    for number, units in enumerate(beside):
        line.join(f"beside{number}", image(units))
    behind(line, units=2)
    assert line.choice() == chosen


def test_4c_not_for_a_text_which_may_join_at_any_step() -> None:
    line = Company()
    line.join("first", text(0.5))
    behind(line, following=text())
    assert line.choice() == "first"


def test_4c_not_one_whose_component_has_failed() -> None:
    line = Company()
    line.join("first", image(seconds=0.5))
    behind(line, needs="c")
    assert line.choice() == "behind"
    line.index.residencies["c"].failure = Failure("why", False, 1e9)
    assert line.choice() == "first"


def test_4c_not_where_images_do_not_share_runs() -> None:
    line = Company(share_images=False)
    line.join("first", image(seconds=0.5))
    behind(line)
    assert line.choice() == "first"
