"""The default policy's order, on a view made by hand; and that its two ways to it agree."""

import random
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field, replace

import pytest

from scheduler import WAIT, Decision, SchedulerSettings, ShortestWork
from scheduler.index import Index
from scheduler.job import Job
from scheduler.types import Budget, Component, Demand
from tests.scheduler.shell import DEFAULTS, LINKS, demand, phase

SETTINGS = replace(DEFAULTS, ageing_seconds=10.0, wait_seconds_max=100.0)


@dataclass
class FakeJob:
    id: str
    remaining_seconds: float
    arrival: float = 0.0
    weight: float = 1.0
    needs: tuple[str, ...] = ("a",)
    begun: bool = False
    admitted: bool = True
    phase: int = 0
    step: int = 0
    carried: int = 0
    rank: float = 0.0

    @property
    def demand(self) -> Demand:
        return demand(self.id, arrival=self.arrival)


@dataclass
class FakeGroup:
    needs: tuple[str, ...]
    weight: float
    members: list[FakeJob] = field(default_factory=list)

    def jobs(self) -> Iterator[FakeJob]:
        return iter(sorted(self.members, key=lambda j: (j.rank, j.arrival, j.id)))


class FakeView:
    def __init__(self, *jobs: FakeJob, setup=None, failed=(), running=()) -> None:
        self.jobs = {job.id: job for job in jobs}
        self.setup = setup or {}
        self.failed = failed
        self.running = running
        self.device_free = 0
        policy = ShortestWork(SETTINGS)
        for job in jobs:
            job.rank = policy.rank(job)

    def waiting(self) -> Iterator[FakeJob]:
        return iter(sorted(self.jobs.values(), key=lambda j: (j.arrival, j.id)))

    def groups(self) -> Iterator[FakeGroup]:
        groups: dict = {}
        for job in self.jobs.values():
            key = (job.needs, job.weight)
            groups.setdefault(key, FakeGroup(*key)).members.append(job)
        return iter(groups.values())

    def resident(self, component: str) -> bool:
        return not self.setup.get(component)

    def setup_seconds(self, needs: Sequence[str]) -> float:
        return sum(self.setup.get(name, 0.0) for name in needs)

    def blocked(self, needs: Sequence[str]) -> bool:
        return any(name in self.failed for name in needs)

    def admits(self, job: FakeJob) -> bool:
        return job.admitted


def choose(*jobs: FakeJob, now: float = 0.0, **view) -> str | None:
    return ShortestWork(SETTINGS).choose(FakeView(*jobs, **view), now).job


def order(*jobs: FakeJob, now: float = 0.0, **view) -> list[str]:
    return [job.id for job in ShortestWork(SETTINGS).order(FakeView(*jobs, **view), now)]


def test_nothing_waits() -> None:
    assert ShortestWork(SETTINGS).choose(FakeView(), 0.0) == WAIT == Decision(None, preempt=False)
    assert order() == []


def test_1_a_run_is_never_paused() -> None:
    assert choose(FakeJob("x", 1.0), now=1e6, running=(FakeJob("r", 1e6),)) is None


def test_2a_the_oldest_of_those_that_waited_too_long_goes_first() -> None:
    jobs = (FakeJob("short", 0.1, 150.0), FakeJob("old", 99.0, 51.0), FakeJob("older", 99.0, 50.0))
    assert choose(*jobs, now=149.9) == "short"
    assert choose(*jobs, now=150.0) == "older"
    assert order(*jobs, now=151.0) == ["older", "old", "short"]


def test_2a_equally_old_go_by_id() -> None:
    assert choose(FakeJob("b", 1.0), FakeJob("a", 2.0), now=100.0) == "a"


def test_2b_while_there_is_no_room_for_it_only_begun_jobs_go() -> None:
    old = FakeJob("old", 9.0, 0.0, admitted=False)
    fresh = FakeJob("fresh", 1.0, 150.0)
    begun = FakeJob("begun", 5.0, 140.0, begun=True, needs=("b",))
    slower = FakeJob("slower", 6.0, 140.0, begun=True)
    assert choose(old, fresh, slower, begun, now=150.0) == "begun"
    assert choose(old, fresh, now=150.0) is None


def test_2_a_blocked_job_holds_nobody_up() -> None:
    old = FakeJob("old", 9.0, 0.0, needs=("broken",))
    older = FakeJob("fresh", 1.0, 150.0)
    assert choose(old, older, now=150.0, failed=("broken",)) == "fresh"
    assert order(old, older, now=150.0, failed=("broken",)) == ["fresh", "old"]
    assert choose(old, now=150.0, failed=("broken",)) is None


def test_3_shortest_remaining_work() -> None:
    jobs = (FakeJob("long", 9.0), FakeJob("short", 3.0), FakeJob("middle", 5.0))
    assert choose(*jobs) == "short"
    assert order(*jobs) == ["short", "middle", "long"]


def test_3_set_up_counts() -> None:
    jobs = (FakeJob("cold", 3.0, needs=("a", "c")), FakeJob("warm", 5.0, needs=("b",)))
    assert choose(*jobs, setup={"a": 1.5, "c": 0.4}) == "cold"
    assert choose(*jobs, setup={"a": 1.5, "c": 0.6}) == "warm"
    assert order(*jobs, setup={"a": 1.5, "c": 0.6}) == ["warm", "cold"]


def test_3_the_class_weight_divides_work_and_set_up() -> None:
    jobs = (FakeJob("fast", 5.0, weight=2.0), FakeJob("normal", 3.0))
    assert choose(*jobs) == "fast"
    assert choose(*jobs, setup={"a": 2.0}) == "fast"
    light = (FakeJob("fast", 5.0, weight=2.0, needs=("b",)), FakeJob("normal", 3.0))
    assert choose(*light, setup={"b": 1.5}) == "normal"
    assert order(*light, setup={"b": 1.5}) == ["normal", "fast"]


def test_3_ageing_takes_off_a_second_for_every_ageing_seconds() -> None:
    assert choose(FakeJob("old", 5.0, 0.0), FakeJob("new", 3.9, 10.0), now=50.0) == "new"
    assert choose(FakeJob("old", 5.0, 0.0), FakeJob("new", 4.1, 10.0), now=50.0) == "old"


def test_3_ties_go_to_the_earlier_then_to_the_lower_id() -> None:
    assert choose(FakeJob("a", 4.0, 10.0), FakeJob("b", 5.0, 0.0), now=20.0) == "b"
    assert choose(FakeJob("b", 5.0, needs=("b",)), FakeJob("a", 5.0), FakeJob("c", 5.0)) == "a"


def test_3_who_is_not_admitted_is_passed_over() -> None:
    jobs = (FakeJob("big", 1.0, admitted=False), FakeJob("small", 9.0))
    assert choose(*jobs) == "small"
    assert order(*jobs) == ["big", "small"]


def test_3_who_needs_what_failed_is_passed_over() -> None:
    jobs = (FakeJob("hurt", 1.0, needs=("a", "broken")), FakeJob("well", 9.0))
    assert choose(*jobs, failed=("broken",)) == "well"
    assert order(*jobs, failed=("broken",)) == ["well", "hurt"]


@pytest.mark.parametrize("seed", range(20))
def test_the_choice_is_the_first_in_order(seed: int) -> None:
    """On the real index: looking at the heads of groups finds what sorting everything finds."""
    rng = random.Random(seed)
    settings = SchedulerSettings(20.0, 60.0, 64, 3, 5.0, {"fast": 2.0})
    policy = ShortestWork(settings)
    parts = [Component(name, rng.randint(1, 40)) for name in "abcd"]
    index = Index(parts, Budget(10_000, 10_000), LINKS, policy.rank)
    parked: list[Job] = []
    for number in range(60):
        names = [rng.choice("abcd") for _ in range(rng.randint(1, 3))]
        phases = [phase(name, seconds=rng.choice([0.0, 1.0, 2.0, 30.0])) for name in names]
        wanted = demand(f"j{number:02}", *phases, arrival=float(rng.randint(0, 100)))
        parked.append(Job(wanted, index.sizes, rng.choice([1.0, 2.0])))
        index.park(parked[-1])
    while parked:
        now = rng.uniform(0.0, 130.0)
        ranked = policy.order(index, now)
        assert policy.choose(index, now) == Decision(ranked[0].id)
        assert len(ranked) == len(parked)
        gone = parked.pop(rng.randrange(len(parked)))
        index.remove(gone)
    assert list(index.groups()) == []
    assert [index.waiters(name) for name in "abcd"] == [0, 0, 0, 0]
