"""The sums that the index keeps, and what policies read from it."""

import pytest

from scheduler.index import Index
from scheduler.job import Job, Run, Standing
from scheduler.policy import Place
from scheduler.types import Budget, Component, Lease, Links, Tier
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
    assert i.setup_seconds(("a",)) == pytest.approx(seconds)
    assert i.resident("a") is resident
    assert i.ledger.device.free == device_free
    assert i.ledger.host.free == host_free


def test_what_one_of_several_that_run_still_needs_is_wanted() -> None:
    i = index()
    for number, phases in enumerate(([phase("a"), phase("b")], [phase("a")])):
        job = park(i, str(number), *phases)
        i.begin(Run(Lease(number, job.id, 0), job, 1, 0.0, False, 0), 1)
    assert i.wanted("a")
    assert i.wanted("b")
    assert not index().wanted("a")


def test_users_who_have_left_are_forgotten() -> None:
    i = index()
    for name in "xyz":
        park(i, name, phase("a"))
    for name in "xyz":
        i.remove(i.jobs[name])
    assert i._users == {}


def test_what_comes_ahead_of_time_counts_until_it_is_there_or_the_next_jobs() -> None:
    i = index()
    a = i.residencies["a"]
    for tier, alone, ahead in (("STAGING", LOAD, STAGE + LOAD), ("LOADING", 0.0, LOAD)):
        i.move(a, Tier[tier], "j", ahead=True)
        assert i.setup_seconds(("a",)) == pytest.approx(ahead)
        i.wanted_now(a)
        assert i.setup_seconds(("a",)) == pytest.approx(alone)
        assert not a.ahead
        i.move(a, Tier.STAGED if tier == "STAGING" else Tier.RESIDENT)
    assert i.setup_seconds(("a",)) == 0.0


def test_set_ups_add_up() -> None:
    i = index()
    assert i.setup_seconds(()) == 0
    assert i.setup_seconds(("a", "b")) == pytest.approx(STAGE + LOAD + 1.5 + 0.6)


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


def test_what_a_set_up_costs_is_not_remembered_beyond_a_move() -> None:
    i = index()
    assert i.setup_seconds(("a", "b")) == pytest.approx(STAGE + LOAD + 1.5 + 0.6)
    i.move(i.residencies["a"], Tier.STAGING, "j")
    assert i.setup_seconds(("a", "b")) == pytest.approx(LOAD + 1.5 + 0.6)


def begin(i: Index, job: Job) -> Run:
    run = Run(Lease(len(i.begun) + 1, job.id, job.phase), job, 1, i.now, False, job.step)
    i.begin(run, 0)
    return run


def rest(i: Index, run: Run, carried: int) -> None:
    """A run has ended between two phases or was paused."""
    i.end(run)
    i.carry(run.job, carried)
    run.job.move(Standing.PAUSED)
    i.park(run.job)


@pytest.mark.parametrize(
    ("claims", "budget", "admitted"),
    [
        ([(5, 99)], 99, True),
        ([(2, 10), (3, 8)], 13, True),
        ([(2, 10), (3, 8)], 12, False),
        ([(3, 8), (2, 10)], 12, False),
        ([(5, 5), (5, 5)], 10, True),
        ([(5, 5), (5, 5)], 9, False),
        ([(1, 10), (1, 10), (1, 10)], 12, True),
        ([(1, 10), (1, 10), (1, 10)], 11, False),
    ],
)
@pytest.mark.parametrize("running", [False, True])
def test_a_job_is_admitted_if_all_that_are_begun_can_still_end(
    claims: list[tuple[int, int]], budget: int, admitted: bool, running: bool
) -> None:
    """Each claims the state that it may hold, and at its peak some bytes more; the last of them is
    the new one. It makes no difference whether another one runs."""
    i = Index([], Budget(budget, 0), LINKS, by_work, share_seconds=10.0)
    for number, (held, peak) in enumerate(claims):
        part = phase(work=peak - held, state_max=held)
        job = park(i, f"j{number}", part, part)
        last = number == len(claims) - 1
        assert i.admits(job) == (admitted or not last), number
        run = None if last else begin(i, job)
        if run is not None and not (running and number == len(claims) - 2):
            rest(i, run, held)


def test_a_begun_job_is_admitted_while_another_runs_if_that_may_pause() -> None:
    """A pause in its last phase leaves x's 20 bytes of state beside y's 40."""
    for budget, admitted in ((60, True), (59, False)):
        i = Index([], Budget(budget, 0), LINKS, by_work, share_seconds=10.0)
        y = park(i, "y", phase(work=40, state_max=0), phase(work=40))
        rest(i, begin(i, y), 0)
        x = park(i, "x", phase(work=20, state_max=20))
        assert i.admits(x)
        run = begin(i, x)
        assert i.admits(y) == admitted
        rest(i, run, 20)
        assert i.admits(y) == i.fits(y) == admitted
        assert i.admits(x)


def test_a_begun_job_by_itself_is_always_admitted() -> None:
    i = Index([], Budget(50, 0), LINKS, by_work, share_seconds=10.0)
    x = park(i, "x", phase(work=40, state_max=40))
    begin(i, x)
    assert i.admits(x)
    rest(i, i.runs[1], 40)
    assert not i.fits(x)
    i.carry(x, 10)
    assert i.fits(x)


def test_state_that_finds_no_room_is_owed_and_repaid() -> None:
    i = Index([Component("a", 40)], Budget(100, 100), LINKS, by_work, 10.0, staged=("a",))
    i.move(i.residencies["a"], Tier.LOADING, "j")
    x = park(i, "x", phase(work=40))
    rest(i, begin(i, x), 75)
    assert (x.carried, x.owed, i.owed_bytes, i.ledger.device.free) == (75, 15, 15, 0)
    i.repay()
    assert x.owed == 15
    i.move(i.residencies["a"], Tier.STAGED)
    i.repay()
    assert (x.owed, i.owed_bytes, i.ledger.device.free) == (0, 0, 25)


def way_back(i: Index, *phases, other, carried: int = 0) -> float:
    """Of a job that runs, if another goes instead, beside a third that carries so many bytes."""
    third = park(i, "third", phase(work=carried))
    run = Run(Lease(1, "third", 0), third, 1, 0.0, False, 0)
    i.begin(run, 0)
    i.end(run)
    i.carry(third, carried)
    third.move(Standing.WAITING)
    i.park(third)
    mine = park(i, "mine", *phases)
    i.begin(Run(Lease(2, "mine", 0), mine, 2, 0.0, False, 0), 0)
    return i.way_back_seconds(mine, park(i, "other", other))


@pytest.mark.parametrize(
    ("work", "carried", "back"),
    [(50, 0, 0.0), (51, 0, LOAD), (45, 5, 0.0), (46, 5, LOAD)],
)
def test_the_way_back_counts_where_what_runs_cannot_stay_beside_all_states(
    work: int, carried: int, back: float
) -> None:
    found = way_back(index(), phase("a"), other=phase("b", work=work), carried=carried)
    assert found == pytest.approx(back)


def test_the_way_back_is_of_the_phase_that_runs_and_of_all_its_components() -> None:
    later = (phase("a"), phase("b"))
    assert way_back(index(), *later, other=phase(work=60)) == 0.0
    assert way_back(index(), *later, other=phase(work=61)) == pytest.approx(LOAD)
    both = way_back(index(), phase("a", "b"), other=phase(work=60))
    assert both == pytest.approx(LOAD + LINKS.load_seconds(10))
