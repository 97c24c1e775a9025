"""Random workloads with faults in virtual time: every job ends, in bounded time, and a log replays.

One seed gives one walk; a failing walk is run again by its number.
"""

from __future__ import annotations

import heapq
import itertools
import random

import pytest

from scheduler import Policy, Scheduler
from scheduler import messages as m
from scheduler.types import Budget, Component, Outcome, Phase
from tests.scheduler.shell import DEFAULTS, LINKS, Shell
from tests.scheduler.test_machine import DEVICE, HOST, SIZES, Wild

SEEDS = range(50)
JOBS = 25
SLOWEST = 10.0


class Walk:
    """Every command takes a random time, up to ``SLOWEST`` seconds, and may fail."""

    def __init__(
        self, seed: int, policy: Policy | None, faults: float, *, honest: bool = True
    ) -> None:
        self.rng = random.Random(seed)
        self.faults = faults
        self.shell = Shell(SIZES, device=DEVICE, host=HOST, policy=policy, honest=honest)
        self.agenda: list[tuple[float, int, str, object]] = []
        self.order = itertools.count()
        self.known: list[m.Command] = []
        for number in range(JOBS):
            at = self.rng.uniform(0.0, 60.0)
            self.at(at, "arrive", number)
            if self.rng.random() < faults:
                self.at(at + self.rng.expovariate(0.1), "cancel", number)

    def at(self, when: float, what: str, which: object) -> None:
        heapq.heappush(self.agenda, (when, next(self.order), what, which))

    def run(self) -> None:
        shell = self.shell
        for _ in range(20_000):
            due = shell.scheduler.deadline()
            if due is not None and (not self.agenda or due <= self.agenda[0][0]):
                shell.wake()
            elif self.agenda:
                shell.now, _, what, which = heapq.heappop(self.agenda)
                getattr(self, what)(which)
            else:
                break
            self.set_out()
        shell.assert_settled()

    def set_out(self) -> None:
        for command in self.shell.flying:
            if command not in self.known:
                self.known.append(command)
                self.at(self.shell.now + self.rng.uniform(0.01, SLOWEST), "end", command)

    def arrive(self, number: int) -> None:
        self.shell.arrive(f"j{number}", *self.phases())

    def phases(self) -> list[Phase]:
        rng = self.rng
        return [
            Phase(
                "p",
                tuple(rng.sample("abcde", rng.randint(1, 2))),
                rng.randint(0, 25),
                rng.choice([1.0, 5.0, 30.0]),
                rng.randint(1, 5),
                rng.choice([None, 5]),
            )
            for _ in range(rng.randint(1, 4))
        ]

    def cancel(self, number: int) -> None:
        self.shell.cancel(f"j{number}")

    def end(self, command: m.Command) -> None:
        self.known.remove(command)
        faulty = self.rng.random() < self.faults
        asked = [name for name, lease in self.shell.books.asked if lease == _lease(command)]
        if "Cancel" in asked and self.rng.random() < 0.8:
            event: m.Event = m.RunCancelled(command.lease)
        elif "Pause" in asked and self.rng.random() < 0.8:
            state = self.rng.randint(0, self.shell.books.state_bound(command.lease))
            event = m.Paused(command.lease, 1, state)
        else:
            event = self.shell.ending(command, self.rng.randrange, well=not faulty)
        self.shell.end(command, event)
        if self.rng.random() < self.faults and not self.flies_again(command):
            self.shell.feed(event)

    def flies_again(self, command: m.Command) -> bool:
        return any(type(c) is type(command) and c == command for c in self.shell.flying)


def _lease(command: m.Command) -> int:
    return command.lease.id if isinstance(command, m.Start | m.Resume) else 0


def policy_of(seed: int) -> Policy | None:
    return Wild(seed, preemptions_max=40) if seed % 2 else None


@pytest.mark.parametrize("seed", SEEDS)
def test_every_job_ends_whatever_fails(seed: int) -> None:
    walk = Walk(seed, policy_of(seed), faults=0.25)
    walk.run()
    assert len(walk.shell.books.settled) == JOBS


@pytest.mark.parametrize("seed", SEEDS)
def test_every_job_ends_however_wrong_its_estimates_are(seed: int) -> None:
    walk = Walk(seed, policy_of(seed), faults=0.1, honest=False)
    walk.run()
    assert len(walk.shell.books.settled) == JOBS


@pytest.mark.parametrize("seed", SEEDS)
def test_without_faults_jobs_finish_in_bounded_time(seed: int) -> None:
    """One job at a time, each phase with at most an eviction, an unstaging, a stage and a load of
    every component one after the other: that is the worst there can be, preemptions aside."""
    walk = Walk(seed, policy_of(seed), faults=0.0)
    walk.run()
    for settle in walk.shell.books.settled.values():
        # A job may carry too much for a phase of its own, but is never harmed by another's.
        locked_out = settle.outcome is Outcome.FAILED and "and 0 of other jobs'" in settle.detail
        assert locked_out or settle.outcome in {Outcome.FINISHED, Outcome.REFUSED}
    starts = [c for _, _, said in walk.shell.log for c in said if isinstance(c, m.Start | m.Resume)]
    assert walk.shell.now <= 60.0 + len(starts) * SLOWEST * (1 + 4 * len(SIZES))


@pytest.mark.parametrize("seed", [0, 1, 2, 3])
def test_a_log_replays(seed: int) -> None:
    walk = Walk(seed, policy_of(seed), faults=0.25)
    walk.run()
    parts = [Component(name, size) for name, size in SIZES.items()]
    other = Scheduler(parts, Budget(DEVICE, HOST), LINKS, DEFAULTS, policy_of(seed))
    for event, now, commands in walk.shell.log:
        assert other.handle(event, now) == commands
    assert other.snapshot() == walk.shell.scheduler.snapshot()
