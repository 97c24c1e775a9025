"""States move by their tables, and tell their story when they may not."""

import itertools

import pytest

from scheduler import IllegalMove, job, residency
from scheduler.job import Job, Standing
from scheduler.residency import Residency
from scheduler.types import Component, Tier
from tests.scheduler.shell import demand, phase


@pytest.mark.parametrize("table", [residency.MOVES, job.MOVES], ids=["tier", "standing"])
def test_the_docstring_shows_the_table(table) -> None:
    text = (residency if table is residency.MOVES else job).__doc__
    for state, following in table.items():
        row = f"{state.value} ".ljust(11 if table is residency.MOVES else 9)
        assert f"\n{(row + ', '.join(s.value for s in following)).rstrip()}\n" in text


@pytest.mark.parametrize(("old", "new"), list(itertools.product(Tier, Tier)))
def test_a_component_moves_by_the_table(old: Tier, new: Tier) -> None:
    item = Residency(Component("sdxl.unet", 5), tier=old, owner="j1")
    if new in residency.MOVES[old]:
        item.move(new, "j2")
        assert (item.tier, item.owner) == (new, "j2")
    else:
        with pytest.raises(IllegalMove, match=rf"sdxl.unet: {old.value} -> {new.value}; .* j1"):
            item.move(new)
        assert item.tier is old


@pytest.mark.parametrize(("old", "new"), list(itertools.product(Standing, Standing)))
def test_a_job_moves_by_the_table(old: Standing, new: Standing) -> None:
    item = Job(demand("x", phase("a")), {"a": 1}, 1.0)
    item.standing = old
    if new in job.MOVES[old]:
        item.move(new)
        assert item.standing is new
    else:
        with pytest.raises(IllegalMove, match=rf"job x: {old.value} -> {new.value}; .*phase 0"):
            item.move(new)
        assert item.standing is old


def test_where_the_bytes_are() -> None:
    item = Residency(Component("a", 5))
    seen = []
    path = "STAGING STAGED LOADING RESIDENT EVICTING STAGED UNSTAGING ABSENT"
    for name in path.split():
        item.move(Tier[name], "j")
        seen.append((item.master, item.on_device))
    on_both = [(True, True)] * 3
    assert seen == [(True, False)] * 2 + on_both + [(True, False)] * 2 + [(False, False)]


def test_a_failed_load_keeps_the_master_and_a_failed_stage_has_none() -> None:
    item = Residency(Component("a", 5), Tier.LOADING, master=True)
    item.move(Tier.FAILED)
    assert (item.master, item.unstageable) == (True, True)
    item.move(Tier.UNSTAGING, "j")
    assert (item.master, item.unstageable) == (True, False)
    item.move(Tier.FAILED)
    assert (item.master, item.unstageable) == (False, False)
    item = Residency(Component("a", 5), Tier.STAGING, master=True)
    item.move(Tier.FAILED)
    assert not item.master


def test_uses_are_counted_when_runs_begin_and_fade() -> None:
    item = Residency(Component("a", 5))
    assert (item.uses, item.worth(0.0), item.ahead, item.aborting) == (0.0, 0.0, False, False)
    item.use(100.0)
    item.use(100.0)
    assert (item.uses, item.last_used) == (2.0, 100.0)
    assert item.worth(100.0 + 3600.0) == 1.0
    assert item.worth(100.0 + 1800.0) == pytest.approx(2.0**0.5)
    # Time that goes back changes nothing.
    assert item.worth(50.0) == 2.0
    item.use(3700.0)
    assert (item.uses, item.last_used) == (2.0, 3700.0)
    item.use(7300.0)
    assert (item.uses, item.last_used) == (2.0, 7300.0)


def test_a_move_ends_what_was_said_of_the_transfer_before_it() -> None:
    item = Residency(Component("a", 5), Tier.LOADING, master=True, ahead=True, aborting=True)
    item.move(Tier.STAGED)
    assert (item.ahead, item.aborting) == (False, False)
