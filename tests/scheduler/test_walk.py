"""Random lives of a scheduler, seed by seed; ``make sim`` walks more of them."""

from __future__ import annotations

import pytest

from scheduler import messages as m
from scheduler.types import Fault, Outcome
from tests.scheduler.walk import Walk, walk
from tests.scheduler.world import world

FEW, SEEDS = 20, 200


def seeds() -> list[object]:
    slow = [pytest.param(seed, marks=pytest.mark.slow) for seed in range(FEW, SEEDS)]
    return [*range(FEW), *slow]


@pytest.mark.parametrize("seed", seeds())
def test_all_promises_hold_whatever_happens(seed: int) -> None:
    walk(seed)


def met(walks: list[Walk]) -> dict[str, int]:
    """How often what happened in these."""
    found: dict[str, int] = {}

    def count(what: str) -> None:
        found[what] = found.get(what, 0) + 1

    for each in walks:
        for event, _, commands in each.shell.log:
            count(type(event).__name__)
            if isinstance(event, m.RunFailed):
                count(event.fault.name)
            for command in commands:
                count(type(command).__name__)
                if isinstance(command, m.Start | m.Resume):
                    joins = command.starters == 1 and command.run != command.lease.id
                    count("joins" if joins else f"{command.starters} together")
                elif isinstance(command, m.Settle):
                    count(command.outcome.name)
    return found


def test_the_few_walks_meet_all_that_may_happen() -> None:
    found = met([walk(seed) for seed in range(FEW)])
    messages = [kind.__name__ for kind in (*m.Event.__args__, *m.Command.__args__)]
    shared = ["joins", "1 together", "2 together", "3 together"]
    faults = [fault.name for fault in (Fault.SHARED, Fault.OUT_OF_MEMORY, Fault.RUN)]
    for name in [*messages, *shared, *faults, *(outcome.name for outcome in Outcome)]:
        assert found.get(name, 0) > 0, name


def test_a_world_and_a_walk_are_drawn_from_their_seed() -> None:
    assert world(5) == world(5)
    assert world(5) != world(6)
    assert walk(5).shell.log == walk(5).shell.log
