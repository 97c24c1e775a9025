"""A random life of a scheduler, in virtual time: one seed, one walk.

Jobs come, are cancelled and follow each other; a device takes its time over every command, and does
its worst: it is slow, fails, runs out of memory, loses a thread, finishes what was called off, and
tells things twice and late. The shell and its books hold the scheduler to its promises after every
event, ``Fairness`` to its bound on waiting; at the end all jobs have left, and the same events give
the same commands once more.

``make sim SEEDS=10000`` walks that many and stops at the first that fails; ``make sim FIRST=N
SEEDS=1`` walks that one once more.
"""

from __future__ import annotations

import argparse
import heapq
import itertools
import multiprocessing
import random
import sys
import traceback
from collections.abc import Callable
from dataclasses import replace

from scheduler import Scheduler
from scheduler import messages as m
from scheduler.types import Budget, Fault, Lease, Outcome
from tests.scheduler.fairness import Fairness
from tests.scheduler.shell import Shell
from tests.scheduler.world import Jobs, World, world

JOBS = 24
EVENTS_MAX = 20_000
# How likely things are that go wrong more often than ``World.faults`` says, or less.
LOST, SLOW = 0.15, 0.3


class Walk:
    def __init__(self, where: World) -> None:
        self.where = where
        self.rng = random.Random(f"walk {where.seed}")
        self.shell = Shell(
            where.sizes,
            device=where.device,
            host=where.host,
            links=where.links,
            settings=where.settings,
            policy=where.policy(),
            honest=where.honest,
        )
        self.fairness = None if where.wild else Fairness(self.shell)
        self.jobs = Jobs(where)
        self._agenda: list[tuple[float, int, Callable[[], None]]] = []
        self._order = itertools.count()
        at = 0.0
        for number in range(JOBS):
            at += self.rng.choice([0.0, 0.2, self.rng.expovariate(0.2)])
            self._plan_job(f"j{number}", at)

    def run(self) -> None:
        shell = self.shell
        for _ in range(EVENTS_MAX):
            due = shell.scheduler.deadline()
            if due is not None and (not self._agenda or due <= self._agenda[0][0]):
                self._tell(shell.wake)
            elif self._agenda:
                shell.now, _, action = heapq.heappop(self._agenda)
                action()
            else:
                break
        else:
            raise AssertionError("no end in sight")
        shell.assert_settled()
        self._check_ends()
        self._replay()

    def _at(self, when: float, action: Callable[[], None]) -> None:
        heapq.heappush(self._agenda, (when, next(self._order), action))

    def _soon(self, longest: float, action: Callable[[], None]) -> None:
        self._at(self.shell.now + self.rng.uniform(0.0, longest), action)

    def _fails(self, likely: float = 1.0) -> bool:
        return self.rng.random() < self.where.faults * likely

    def _tell(self, event: Callable[[], object]) -> None:
        """Let something happen, and set out to do what the scheduler asks for."""
        before = len(self.shell.log)
        event()
        for _, _, commands in self.shell.log[before:]:
            if self.fairness is not None:
                self.fairness.after(commands)
            for command in commands:
                self._set_out(command)

    def _plan_job(self, job: str, at: float) -> None:
        followed = self.rng.random() < 0.2
        self._at(at, lambda: self._arrive(job, followed=followed))
        if self._fails():
            self._at(at + self.rng.expovariate(0.1), lambda: self._cancel(job))

    def _arrive(self, job: str, *, followed: bool = False, follows: str | None = None) -> None:
        demand = self.jobs.demand(job, self.shell.now)
        demand = replace(demand, followed=followed, follows=follows)
        self.shell.books.arrived(demand)
        self._tell(lambda: self.shell.feed(m.JobArrived(demand)))

    def _cancel(self, job: str) -> None:
        self._tell(lambda: self.shell.cancel(job))

    def _set_out(self, command: m.Command) -> None:
        match command:
            case m.Stage(name) | m.Load(name):
                self._begin_transfer(command, name)
            case m.Evict() | m.Unstage():
                self._soon(2.0 if self._fails(SLOW) else 0.05, lambda: self._end_well(command))
            case m.Start(lease) | m.Resume(lease):
                self._begin_run(command, lease)
            case m.Abort(name) if self.rng.random() < 0.7:
                self._soon(0.2, lambda: self._abort(name))

    def _begin_transfer(self, command: m.Stage | m.Load, name: str) -> None:
        size, links = self.where.sizes[name], self.where.links
        load = isinstance(command, m.Load)
        seconds = links.load_seconds(size) if load else links.stage_seconds(size)
        seconds *= self.rng.uniform(0.5, 1.5) * (50.0 if self._fails(SLOW) else 1.0)
        self._at(self.shell.now + seconds, lambda: self._end_transfer(command))

    def _end_transfer(self, command: m.Stage | m.Load) -> None:
        if self._flies(command):
            well = not self._fails()
            self._end(command, self.shell.ending(command, self.rng.randrange, well=well))

    def _end_well(self, command: m.Command) -> None:
        self._end(command, self.shell.ending(command, self.rng.randrange, well=True))

    def _abort(self, name: str) -> None:
        """Its end may have come first."""
        if name in self.shell.books.aborting:
            flying = (c for c in self.shell.flying if getattr(c, "component", "") == name)
            self._end(next(flying), m.Aborted(name))

    def _begin_run(self, command: m.Start | m.Resume, lease: Lease) -> None:
        phase = self.shell.books.phase(lease)
        if self._fails(LOST):
            self._at(
                self.shell.now + self.rng.uniform(20.0, 200.0),
                lambda: self._end_run(command, m.RunFailed(lease, Fault.RUN, "lost")),
            )
            return
        step = self.shell.books.members[lease.id].step
        self._run_on(command, step, phase.seconds / max(1, phase.steps))

    def _run_on(self, command: m.Start | m.Resume, step: int, seconds: float) -> None:
        when = self.shell.now + seconds * self.rng.uniform(0.7, 1.3)
        self._at(when, lambda: self._boundary(command, step + 1, seconds))

    def _boundary(self, command: m.Start | m.Resume, step: int, seconds: float) -> None:
        lease, books, rng = command.lease, self.shell.books, self.rng
        if not self._flies(command):
            return
        if self._fails() and rng.random() < 0.3:
            self._cancel(lease.job)
        asked = [name for name, number in books.asked if number == lease.id]
        state = rng.randint(0, (1 if self.where.honest else 3) * books.state_bound(lease))
        if "Cancel" in asked and rng.random() < 0.9:
            self._leave(command, m.RunCancelled(lease))
        elif self._fails(0.5):
            self._go_wrong(command, lease)
        elif step >= self._last_step(lease):
            self._leave(command, m.PhaseFinished(lease, state))
        elif "Pause" in asked and rng.random() < 0.95:
            self._leave(command, m.Paused(lease, step, state))
        else:
            if rng.random() < 0.7:
                self._tell(lambda: self.shell.feed(m.StepReached(lease, step)))
            self._run_on(command, step, seconds)

    def _last_step(self, lease: Lease) -> int:
        """A text may end early, at any step."""
        phase = self.shell.books.phase(lease)
        return phase.steps if phase.steps_expected is None else self.rng.randint(1, phase.steps)

    def _go_wrong(self, command: m.Start | m.Resume, lease: Lease) -> None:
        """A step that several take together fails for all of them."""
        beside = [
            c
            for c in self.shell.flying
            if isinstance(c, m.Start | m.Resume) and c.run == command.run
        ]
        fault = self.rng.choice([Fault.RUN, Fault.OUT_OF_MEMORY, Fault.SHARED])
        if fault is Fault.SHARED or len(beside) > 1:
            for each in beside:
                self._leave(each, m.RunFailed(each.lease, Fault.SHARED, "who knows"))
        else:
            self._leave(command, m.RunFailed(lease, fault, "why"))

    def _leave(self, command: m.Start | m.Resume, event: m.Event) -> None:
        """The word of it takes a moment."""
        self._soon(0.05, lambda: self._end_run(command, event))

    def _end_run(self, command: m.Start | m.Resume, event: m.Event) -> None:
        if self._flies(command):
            self._end(command, event)
            if isinstance(event, m.PhaseFinished) and self.shell.books.is_followed(event.lease):
                job = event.lease.job
                self._soon(0.4, lambda: self._arrive(f"{job}+", follows=job))

    def _flies(self, command: m.Command) -> bool:
        return any(c is command for c in self.shell.flying)

    def _end(self, command: m.Command, event: m.Event) -> None:
        self._tell(lambda: self.shell.end(command, event))
        if self._fails():
            self._soon(5.0, lambda: self._repeat(event))

    def _repeat(self, event: m.Event) -> None:
        """Say it once more, unless it could be taken for what is to be said next."""
        name = getattr(event, "component", None)
        if name is None or all(getattr(c, "component", "") != name for c in self.shell.flying):
            self._tell(lambda: self.shell.feed(event))

    def _check_ends(self) -> None:
        """Where nothing goes wrong all jobs finish, but those that were refused, and those that
        carry too much for a later phase of their own."""
        settled = self.shell.books.settled.values()
        if self.where.honest and not self.where.faults:
            failed = [s for s in settled if s.outcome not in (Outcome.FINISHED, Outcome.REFUSED)]
            assert all("and 0 of other jobs'" in s.detail for s in failed), failed

    def _replay(self) -> None:
        where, shell = self.where, self.shell
        budget = Budget(where.device, where.host)
        again = Scheduler(where.parts(), budget, where.links, where.settings, where.policy())
        for event, now, commands in shell.log:
            assert again.handle(event, now) == commands, f"{event} at {now} once more"
        assert again.snapshot() == shell.scheduler.snapshot()


def walk(seed: int) -> Walk:
    found = Walk(world(seed))
    found.run()
    return found


def _outcome(seed: int) -> tuple[int, str]:
    try:
        walk(seed)
    except Exception:  # noqa: BLE001 - whatever it is, the seed that brings it is told
        return seed, traceback.format_exc()
    return seed, ""


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--seeds", type=int, default=1000)
    parser.add_argument("--first", type=int, default=0)
    parser.add_argument("--processes", type=int, default=2)
    options = parser.parse_args()
    seeds = range(options.first, options.first + options.seeds)
    with multiprocessing.Pool(options.processes) as pool:
        for seed, story in pool.imap(_outcome, seeds, chunksize=10):
            if story:
                sys.exit(f"{story}\nseed {seed} fails")
    sys.stdout.write(f"{len(seeds)} walks\n")


if __name__ == "__main__":
    main()
