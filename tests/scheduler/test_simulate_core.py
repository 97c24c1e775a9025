"""What the simulator asks of the core: events of one moment, masters from the start, evictions."""

from __future__ import annotations

import dataclasses

import pytest

from scheduler import Scheduler
from scheduler import messages as m
from scheduler.errors import LedgerError
from scheduler.strategy import Eviction, Shelf, Want, bring_in
from scheduler.types import Budget, Component, Tier
from tests.scheduler.shell import DEFAULTS, LINKS, brief, demand, phase
from tests.scheduler.test_strategy import shelf

PARTS = [Component("a", 10), Component("b", 20)]


def test_events_of_one_moment_are_all_noted_before_anything_is_decided() -> None:
    scheduler = Scheduler(PARTS, Budget(40, 40), LINKS, DEFAULTS, staged=("a", "b"))
    long, short = demand("x", phase("a", seconds=9.0)), demand("y", phase("a", seconds=1.0))
    commands = scheduler.handle([m.JobArrived(long), m.JobArrived(short)], 0.0)
    assert commands == [m.Load("a")]
    (start,) = scheduler.handle(m.LoadSucceeded("a"), 1.0)
    assert isinstance(start, m.Start)
    assert start.lease.job == "y"


def test_what_is_staged_from_the_start_is_loaded_without_staging() -> None:
    scheduler = Scheduler(PARTS, Budget(40, 40), LINKS, DEFAULTS, staged=("b",))
    scheduler.check()
    assert scheduler.snapshot()["ledger"]["host"]["reserved"] == 20
    wanted = demand("x", phase("a", "b"))
    assert scheduler.handle(m.JobArrived(wanted), 0.0) == [m.Stage("a"), m.Load("b")]


def test_masters_beyond_the_hosts_budget_are_refused() -> None:
    with pytest.raises(LedgerError, match="20 bytes"):
        Scheduler(PARTS, Budget(40, 25), LINKS, DEFAULTS, staged=("a", "b"))


def full(eviction: Eviction) -> Shelf:
    """A device with 5 bytes free; ``sdxl.unet`` was used first, ``wan.vae`` last."""
    on = shelf(
        45,
        99,
        waiters={"sdxl.unet": 1},
        **{
            "sdxl.unet": (10, Tier.RESIDENT, 1.0),
            "wan.encoder": (20, Tier.RESIDENT, 2.0),
            "wan.vae": (10, Tier.RESIDENT, 3.0),
            "sdxl.vae": (12, Tier.STAGED),
        },
    )
    return dataclasses.replace(on, eviction=eviction)


@pytest.mark.parametrize(
    ("eviction", "working", "gone"),
    [
        (Eviction.PRICED, 0, ["wan.encoder"]),
        (Eviction.RECENCY, 0, ["sdxl.unet"]),
        (Eviction.RECENCY, 10, ["sdxl.unet", "wan.encoder"]),
        (Eviction.RECENCY, 99, ["sdxl.unet", "wan.encoder", "wan.vae"]),
        (Eviction.UNWAITED, 10, ["wan.encoder"]),
        (Eviction.UNWAITED, 99, ["wan.encoder", "wan.vae", "sdxl.unet"]),
        (Eviction.FAMILY, 0, ["wan.encoder", "wan.vae"]),
        (Eviction.FAMILY, 30, ["wan.encoder", "wan.vae", "sdxl.unet"]),
    ],
)
def test_which_copies_go(eviction: Eviction, working: int, gone: list[str]) -> None:
    moves = bring_in(Want(("sdxl.vae",), working), full(eviction))
    assert [brief(move) for move in moves] == [f"Evict {name}" for name in gone]


def test_a_family_makes_way_though_there_is_room() -> None:
    on = dataclasses.replace(full(Eviction.FAMILY), device_free=50)
    moves = bring_in(Want(("sdxl.unet",), 0), on)
    assert [brief(move) for move in moves] == ["Evict wan.encoder", "Evict wan.vae"]
    on = dataclasses.replace(full(Eviction.RECENCY), device_free=50)
    assert bring_in(Want(("sdxl.unet",), 0), on) == []
