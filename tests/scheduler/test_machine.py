"""Whatever the shell sends, in whatever order: the promises hold after every event.

The promises are the shell's and its books' (see there): never over budget, nothing in use is
evicted, exactly one end for every job, and no idle device while a job could go on. At the end of
every example all jobs are settled and the ledger holds weights alone.
"""

from __future__ import annotations

from dataclasses import replace
from itertools import pairwise

from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, precondition, rule

from scheduler import messages as m
from scheduler.types import Fault, Lease, Phase, Sharing
from tests.scheduler.shell import DEFAULTS, Shell
from tests.scheduler.world import QUICK, Wild

SIZES = {"a": 10, "b": 20, "c": 30, "d": 45, "e": 60}
DEVICE, HOST = 100, 110
QUICK_TO_AGE = replace(DEFAULTS, policy=replace(QUICK, wait_seconds_max=20.0))

steps = st.integers(0, 4)
bytes_to_work = st.integers(0, 40)
seconds = st.sampled_from([0.0, 1.0, 5.0, 60.0])
state_bytes_max = st.none() | st.integers(0, 10)
units = st.integers(1, 3)
phases = st.builds(
    Phase,
    name=st.just("p"),
    components=st.lists(st.sampled_from("abcde"), max_size=3).map(tuple),
    working_bytes=bytes_to_work,
    seconds=seconds,
    steps=steps,
    state_bytes_max=state_bytes_max,
) | st.builds(
    Phase,
    name=st.just("shared"),
    components=st.just(("a", "b")),
    working_bytes=bytes_to_work,
    seconds=seconds,
    steps=steps,
    state_bytes_max=state_bytes_max,
    sharing=st.builds(Sharing, st.just("text"), units, st.just(4), st.just(0.1), st.just(True))
    | st.builds(Sharing, st.just("image"), units, st.just(4), st.just(0.3), st.just(False)),
)


class Machine(RuleBasedStateMachine):
    """The default policy; jobs grow old quickly, so that the bound on waiting takes part."""

    def make(self, seed: int) -> Shell:
        return Shell(SIZES, device=DEVICE, host=HOST, settings=QUICK_TO_AGE)

    @initialize(seed=st.integers(0, 1000))
    def start(self, seed: int) -> None:
        self.shell = self.make(seed)
        self.jobs = 0

    @rule(
        wanted=st.lists(phases, min_size=1, max_size=4),
        fast=st.booleans(),
        kind=st.sampled_from("kl"),
        deadline=st.none() | st.sampled_from([1.0, 10.0, 70.0]),
    )
    def arrive(self, wanted: list[Phase], fast: bool, kind: str, deadline: float | None) -> None:
        self.jobs += 1
        self.shell.arrive(
            f"j{self.jobs}",
            *wanted,
            job_class="fast" if fast else "normal",
            kind=kind,
            deadline=None if deadline is None else self.shell.now + deadline,
        )

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
        """No end moves away while nothing happens."""
        now, scheduler = self.shell.now, self.shell.scheduler
        plans = [scheduler.plan(now + seconds * share) for share in (0.0, 0.5, 1.0)]
        for earlier, later in pairwise(plans):
            for before, after in zip(earlier, later, strict=True):
                assert (before.job, before.position) == (after.job, after.position)
                assert after.finish_seconds <= before.finish_seconds
                assert after.finish_p90_seconds <= before.finish_p90_seconds
        self.shell.feed(m.TimeReached(), now + seconds)

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
            for event in (m.StageSucceeded, m.LoadSucceeded, m.Evicted, m.Unstaged, m.Aborted):
                self.shell.feed(event(name))

    def teardown(self) -> None:
        if not hasattr(self, "shell"):
            return
        self.shell.play_out()
        self.shell.assert_settled()


class WildMachine(Machine):
    """A policy that chooses, shares, preempts and looks ahead at random."""

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
