"""The sums that the index keeps, and what policies read from it."""

import pytest

from scheduler.index import Index
from scheduler.job import Job
from scheduler.policy import Place
from scheduler.types import Budget, Component, Links, Tier
from scheduler.view import JobView
from tests.scheduler.shell import demand, phase

LINKS = Links(disk_to_host=10.0, host_to_device=100.0, fixed_seconds=0.5)
STAGE, LOAD = 4.5, 0.9


def by_work(job: JobView, now: float) -> Place:
    return Place(job.remaining_seconds)


def index() -> Index:
    parts = [Component("a", 40), Component("b", 10)]
    return Index(parts, Budget(100, 100), LINKS, by_work, share_seconds=10.0)


def park(i: Index, name: str, *phases, arrival: float = 0.0, weight: float = 1.0) -> Job:
    job = Job(demand(name, *phases, arrival=arrival), i.sizes, weight)
    i.enter(job)
    return job


@pytest.mark.parametrize(
    ("path", "seconds", "resident", "device_free", "host_free"),
    [
        ("", STAGE + LOAD, False, 100, 100),
        ("STAGING", LOAD, False, 100, 60),
        ("STAGING FAILED", STAGE + LOAD, False, 100, 100),
        ("STAGING STAGED", LOAD, False, 100, 60),
        ("STAGING STAGED LOADING", 0.0, True, 60, 60),
        ("STAGING STAGED LOADING FAILED", LOAD, False, 100, 60),
        ("STAGING STAGED LOADING RESIDENT", 0.0, True, 60, 60),
        ("STAGING STAGED LOADING RESIDENT EVICTING", LOAD, False, 60, 60),
        ("STAGING STAGED UNSTAGING", STAGE + LOAD, False, 100, 60),
    ],
)
def test_what_a_tier_costs(
    path: str, seconds: float, resident: bool, device_free: int, host_free: int
) -> None:
    i = index()
    for tier in path.split():
        i.move(i.residencies["a"], Tier[tier], "j" if tier.endswith("ING") else "")
    assert i.setup_seconds(["a"]) == pytest.approx(seconds)
    assert i.resident("a") is resident
    assert i.device_free == device_free
    assert i.ledger.host.free == host_free


def test_set_ups_add_up() -> None:
    i = index()
    assert i.setup_seconds([]) == 0
    assert i.setup_seconds(["a", "b"]) == pytest.approx(STAGE + LOAD + 1.5 + 0.6)


def test_groups_and_waiters_follow_the_jobs() -> None:
    i = index()
    slow = park(i, "slow", phase("a", seconds=9.0), phase("b", seconds=1.0), arrival=3.0)
    park(i, "quick", phase("a", seconds=2.0), phase("b", seconds=1.0), arrival=5.0)
    park(i, "heavy", phase("a"), phase("b"), arrival=4.0, weight=2.0)
    other = park(i, "other", phase("b"), arrival=3.0)
    groups = {(g.needs, g.weight): [j.id for j in g.jobs()] for g in i.groups()}
    assert groups == {
        (("a", "b"), 1.0): ["quick", "slow"],
        (("a", "b"), 2.0): ["heavy"],
        (("b",), 1.0): ["other"],
    }
    assert [j.id for j in i.waiting()] == ["other", "slow", "heavy", "quick"]
    assert (i.queue.needed("a"), i.queue.needed("b")) == (3, 4)
    i.remove(slow)
    i.remove(other)
    assert [[j.id for j in g.jobs()] for g in i.groups()] == [["quick"], ["heavy"]]
    assert (i.queue.needed("a"), i.queue.needed("b")) == (2, 2)
    assert list(i.jobs) == ["quick", "heavy"]
