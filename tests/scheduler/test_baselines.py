"""The order and the preemption of the policies to measure against, on the core's own index."""

from __future__ import annotations

import pytest

from scheduler import baselines
from scheduler.baselines import InOrder, PreemptiveWork
from scheduler.job import Job, Run
from scheduler.types import Lease
from tests.scheduler.shell import LINKS, demand, phase
from tests.scheduler.test_policy import Line

LOAD_B = LINKS.load_seconds(40)


def order(line: Line, key: baselines.Key, now: float) -> list[str]:
    line.index.advance(now)
    return [job.id for job in InOrder(key).order(line.index, now)]


def test_fifo_goes_by_arrival() -> None:
    line = Line()
    line.enter("first", 9.0)
    line.enter("second", 1.0, at=1.0)
    assert order(line, baselines.by_arrival, 1.0) == ["first", "second"]


def test_edf_goes_by_deadline_and_by_arrival_where_there_is_none() -> None:
    line = Line()
    line.enter("none", 1.0)
    line.enter("later", 1.0, deadline=50.0)
    line.enter("sooner", 1.0, at=2.0, deadline=40.0)
    line.enter("neither", 1.0, at=3.0)
    assert order(line, baselines.by_deadline, 3.0) == ["sooner", "later", "none", "neither"]


def test_affinity_goes_by_what_is_resident_until_somebody_has_waited_for_a_minute() -> None:
    line = Line()
    line.enter("cold", 1.0, needs="b")
    line.enter("colder", 1.0, needs="c", at=30.0)
    line.enter("warm", 1.0, at=50.0)
    assert order(line, baselines.by_affinity, 60.0) == ["warm", "cold", "colder"]
    assert order(line, baselines.by_affinity, 60.1) == ["cold", "warm", "colder"]
    assert order(line, baselines.by_affinity, 90.1) == ["cold", "colder", "warm"]
    assert order(line, baselines.by_affinity, 110.1) == ["cold", "colder", "warm"]
    line.enter("warmer", 1.0, at=120.0)
    assert order(line, baselines.by_affinity, 120.0)[-1] == "warmer"


def test_srpt_counts_what_is_left_to_run_and_to_load() -> None:
    for spare, first in ((-0.01, "cold"), (0.01, "warm")):
        line = Line()
        line.enter("cold", 5.0 + spare, needs="b")
        line.enter("warm", 5.0 + LOAD_B)
        assert order(line, baselines.by_work, 0.0)[0] == first


def running(seconds: float = 10.0, steps: int = 10, done: int = 0) -> tuple[Line, Job]:
    line = Line()
    wanted = demand("run", phase("b", seconds=seconds, steps=steps))
    job = Job(wanted, line.index.sizes, 1.0)
    line.index.enter(job)
    line.index.begin(Run(Lease(1, "run", 0), job, 1, 0.0, False, 0), 1)
    job.reach(done)
    return line, job


@pytest.mark.parametrize(
    ("seconds", "done", "preempts"),
    [
        # At the next boundary nine seconds and the way back of b are left of the run.
        (8.9 + LOAD_B, 0, True),
        (9.0 + LOAD_B, 0, False),
        (0.9 + LOAD_B, 8, True),
        (1.0 + LOAD_B, 8, False),
        # In its last step it is not paused any more.
        (0.1, 9, False),
    ],
)
def test_a_run_gives_way_to_what_takes_less(seconds: float, done: int, preempts: bool) -> None:
    line, _ = running(done=done)
    line.enter("new", seconds)
    decision = PreemptiveWork().choose(line.index, 0.0)
    assert (decision.job, decision.preempt) == (("new", True) if preempts else (None, False))


def test_without_anyone_to_choose_nothing_is_done() -> None:
    line, _ = running()
    assert PreemptiveWork().choose(line.index, 0.0).job is None
    line.enter("new", 1.0)
    assert InOrder(baselines.by_work).choose(line.index, 0.0).job is None
