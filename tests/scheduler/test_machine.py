"""Whatever the shell sends, in whatever order: the promises hold after every event.

The promises are the shell's and its books' (see there): never over budget, nothing in use is
evicted, exactly one end for every job, no command in a drain, and no idle device while a job could
go on. At the end of every example all jobs are settled and the ledger holds weights alone.
"""

from __future__ import annotations

import random
from dataclasses import replace

from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, precondition, rule

from scheduler import Decision, PricedWork
from scheduler import messages as m
from scheduler.types import Fault, Lease, Phase
from tests.scheduler.shell import DEFAULTS, PLAIN, Shell

SIZES = {"a": 10, "b": 20, "c": 30, "d": 45, "e": 60}
DEVICE, HOST = 100, 110
QUICK_TO_AGE = replace(DEFAULTS, policy=replace(PLAIN, wait_seconds_max=20.0))

phases = st.builds(
    Phase,
    name=st.just("p"),
    components=st.lists(st.sampled_from("abcde"), max_size=3).map(tuple),
    working_bytes=st.integers(0, 40),
    seconds=st.sampled_from([0.0, 1.0, 5.0, 60.0]),
    steps=st.integers(0, 4),
    state_bytes_max=st.none() | st.integers(0, 10),
)


class Wild(PricedWork):
    """Chooses any job that may be chosen, and preempts now and then, for as long as it may."""

    def __init__(self, seed: int, preemptions_max: int = 10) -> None:
        super().__init__(PLAIN)
        self._rng = random.Random(seed)
        self._left = preemptions_max

    def choose(self, view, now: float) -> Decision:
        if view.running and (self._left == 0 or self._rng.random() < 0.7):
            return Decision(None)
        running = [job.id for job in view.running]
        may = [
            job.id
            for job in view.waiting()
            if job.id not in running and view.admits(job) and not view.blocked(job.needs)
        ]
        if not may:
            return Decision(None)
        self._left -= bool(view.running)
        return Decision(self._rng.choice(may), preempt=True)


class Machine(RuleBasedStateMachine):
    """The default policy; jobs grow old quickly, so that the bound on waiting takes part."""

    def make(self, seed: int) -> Shell:
        # A job that has waited too long may hold new ones back while begun ones rest.
        return Shell(SIZES, device=DEVICE, host=HOST, settings=QUICK_TO_AGE, busy=False)

    @initialize(seed=st.integers(0, 1000))
    def start(self, seed: int) -> None:
        self.shell = self.make(seed)
        self.jobs = 0

    @rule(wanted=st.lists(phases, min_size=1, max_size=4), fast=st.booleans())
    def arrive(self, wanted: list[Phase], fast: bool) -> None:
        self.jobs += 1
        self.shell.arrive(f"j{self.jobs}", *wanted, job_class="fast" if fast else "normal")

    @precondition(lambda self: self.shell.flying)
    @rule(data=st.data())
    def end(self, data: st.DataObject) -> None:
        command = data.draw(st.sampled_from(self.shell.flying))
        event = self.shell.ending(command, lambda n: data.draw(st.integers(0, n - 1)))
        self.shell.end(command, event)

    @precondition(lambda self: self.shell.flying)
    @rule(count=st.integers(1, 8), share=st.sampled_from([0, 1, 2]))
    def go_well(self, count: int, share: int) -> None:
        """Jobs carry none, half or all of what they may."""
        for _ in range(count):
            if self.shell.flying:
                command = self.shell.flying[0]
                event = self.shell.ending(command, lambda n: (n - 1) * share // 2, well=True)
                self.shell.end(command, event)

    @precondition(lambda self: self.shell.books.unsettled())
    @rule(data=st.data())
    def cancel(self, data: st.DataObject) -> None:
        self.shell.cancel(data.draw(st.sampled_from(self.shell.books.unsettled())))

    @rule(seconds=st.sampled_from([0.0, 0.1, 3.0, 6.0, 25.0]))
    def time_passes(self, seconds: float) -> None:
        self.shell.feed(m.TimeReached(), self.shell.now + seconds)

    @precondition(lambda self: self.shell.books.members)
    @rule(data=st.data(), step=st.integers(0, 5))
    def step(self, data: st.DataObject, step: int) -> None:
        self.shell.step(step, data.draw(st.sampled_from(self.shell.books.running())))

    @rule(lease=st.integers(0, 20), job=st.integers(0, 5), phase=st.integers(0, 3))
    def something_stale(self, lease: int, job: int, phase: int) -> None:
        stale = Lease(lease, f"j{job}", phase)
        if all(member.lease != stale for member in self.shell.books.members.values()):
            self.shell.feed(m.PhaseFinished(stale, 5))
            self.shell.feed(m.RunFailed(stale, Fault.OUT_OF_MEMORY, "late"))
            self.shell.feed(m.Paused(stale, 1, 5))

    @rule(name=st.sampled_from("abcde"))
    def something_twice(self, name: str) -> None:
        if all(getattr(c, "component", "") != name for c in self.shell.flying):
            for event in (m.StageSucceeded, m.LoadSucceeded, m.Evicted, m.Unstaged):
                self.shell.feed(event(name))

    @rule(pause=st.booleans(), often=st.integers(0, 9))
    def drain(self, pause: bool, often: int) -> None:
        if often == 0:
            self.shell.drain(pause=pause)

    def teardown(self) -> None:
        if not hasattr(self, "shell"):
            return
        self.shell.play_out()
        if self.shell.draining:
            assert self.shell.scheduler.drained
            for job in self.shell.books.unsettled():
                self.shell.cancel(job)
        self.shell.assert_settled()


class WildMachine(Machine):
    """A policy that chooses and preempts at random; the device may never idle for no reason."""

    def make(self, seed: int) -> Shell:
        return Shell(SIZES, device=DEVICE, host=HOST, policy=Wild(seed))


quick = settings(
    max_examples=60,
    stateful_step_count=40,
    deadline=None,
    derandomize=True,
    suppress_health_check=list(HealthCheck),
)
TestDefault = Machine.TestCase
TestDefault.settings = quick
TestWild = WildMachine.TestCase
TestWild.settings = quick
