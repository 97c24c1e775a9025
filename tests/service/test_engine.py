"""Events in, commands out: one terminal event a command, one timer, and defects that stay small."""

from __future__ import annotations

from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import asynccontextmanager
from typing import Any

import anyio
import pytest
from support.outcomes import success
from support.turns import turns

from ourvidz.adapters.device_fake import FakeDevice
from ourvidz.service.engine import Engine
from ourvidz.service.signal import Signal
from scheduler import Scheduler, SchedulerSettings
from scheduler import messages as m
from scheduler.recording import Header, Turn
from scheduler.types import Budget, Component, Demand, Lease, Links, Outcome, Phase

pytestmark = pytest.mark.anyio

LIMIT = 20
SETTINGS = SchedulerSettings(4, 3, 5)


class LoopClock:
    def monotonic(self) -> float:
        return anyio.current_time()

    def wall(self) -> float:
        return 0.0


class Watcher:
    """Notes what the engine tells it; ``fails`` in ``before_run`` of ``failing`` jobs."""

    def __init__(self) -> None:
        self.told: list[Any] = []
        self.moved: list[str] = []
        self.settled = Signal()
        self.fails: Exception | None = None
        self.failing: tuple[str, ...] = ("j",)

    async def before_run(self, lease: Lease) -> None:
        await anyio.lowlevel.checkpoint()
        self.told.append(("before", lease.phase))
        if self.fails is not None and lease.job in self.failing:
            raise self.fails

    def after_run(self, lease: Lease, event: m.Event, seconds: float) -> None:
        self.told.append(("after", lease.phase, type(event).__name__, seconds >= 0))

    def before_move(self, command: m.Move) -> None:
        self.moved.append(f"before {type(command).__name__}")

    def after_move(self, event: m.Event, seconds: float) -> None:
        assert seconds >= 0
        self.moved.append(type(event).__name__)

    def on_settle(self, settle: m.Settle) -> None:
        self.told.append(settle)
        self.settled.notify()


class Scripted(FakeDevice):
    """Carries commands out without parts; ``raises`` in commands of a kind."""

    def __init__(self) -> None:
        super().__init__()
        self.raises: dict[type, Exception] = {}

    async def execute(self, command: m.Command) -> m.Event:
        await anyio.lowlevel.checkpoint()
        self.log.append(command)
        error = self.raises.get(type(command))
        if error is not None:
            raise error
        return success(command)


def demand(job: str, *components: str) -> Demand:
    phases = tuple(Phase(f"use {name}", (name,), 10, 1.0, 1) for name in components)
    return Demand(job, phases, "normal", "user", 0.0)


class Notes:
    """``ports.Recorder`` in memory."""

    def __init__(self) -> None:
        self.turns: list[Turn] = []

    def begin(self, header: Header, stopped: Any) -> None:
        raise AssertionError("whoever makes the scheduler begins")

    def turn(self, turn: Turn) -> None:
        self.turns.append(turn)


@asynccontextmanager
async def engine_over(
    scheduler: Any,
    executor: Any,
    watcher: Watcher | None = None,
    inbox_events: int = 16,
    recorder: Notes | None = None,
) -> AsyncIterator[Engine]:
    watcher = watcher or Watcher()
    engine = Engine(scheduler, executor, LoopClock(), inbox_events, watcher, Signal(), recorder)
    async with anyio.create_task_group() as tasks:
        tasks.start_soon(engine.run)
        yield engine
        tasks.cancel_scope.cancel()


async def serve(
    scheduler: Any, executor: Any, event: m.Event, recorder: Notes | None = None
) -> None:
    """Until the engine stops by itself."""
    async with engine_over(scheduler, executor, recorder=recorder) as engine:
        await engine.put(event)
        await anyio.sleep(LIMIT)


def real(budget: int = 1000) -> Scheduler:
    components = [Component("a", 600), Component("b", 600)]
    return Scheduler(components, Budget(budget, 10_000), Links(1e9, 1e9, 0), SETTINGS)


async def settled(watcher: Watcher, jobs: int) -> Mapping[str, m.Settle]:
    with anyio.fail_after(LIMIT):
        while True:
            ticket = watcher.settled.ticket
            found = {told.job: told for told in watcher.told if isinstance(told, m.Settle)}
            if len(found) == jobs:
                return found
            await ticket.wait()


async def test_a_job_goes_through_its_phases() -> None:
    watcher, device = Watcher(), Scripted()
    async with engine_over(real(), device, watcher) as engine:
        await engine.put(m.JobArrived(demand("j", "a", "b")))
        ended = await settled(watcher, 1)
        assert ended["j"].outcome is Outcome.FINISHED
        kinds = [type(command).__name__ for command in device.log]
        assert kinds.count("Start") == 2
        assert "Evict" in kinds
        assert watcher.moved.count("LoadSucceeded") == watcher.moved.count("before Load") == 2
        assert watcher.moved.index("before Load") < watcher.moved.index("LoadSucceeded")
        assert watcher.moved.count("Evicted") == kinds.count("Evict")
        assert [told for told in watcher.told if isinstance(told, tuple)] == [
            ("before", 0),
            ("after", 0, "PhaseFinished", True),
            ("before", 1),
            ("after", 1, "PhaseFinished", True),
        ]


@pytest.mark.parametrize("kind", [m.Start, m.Stage, m.Load])
async def test_an_executor_that_raises_ends_its_command(kind: type) -> None:
    watcher, device = Watcher(), Scripted()
    device.raises[kind] = ZeroDivisionError("defect")
    async with engine_over(real(), device, watcher) as engine:
        await engine.put(m.JobArrived(demand("bad", "a")))
        ended = await settled(watcher, 1)
        assert ended["bad"].outcome is Outcome.FAILED
        assert "ZeroDivisionError: defect" in ended["bad"].detail
        if kind is not m.Start:
            assert f"{kind.__name__}Failed" in watcher.moved, "books of moves are closed too"
        device.raises.clear()
        await engine.put(m.JobArrived(demand("good", "b")))
        assert (await settled(watcher, 2))["good"].outcome is Outcome.FINISHED


async def test_an_eviction_that_raises_stops_the_engine() -> None:
    """Nobody knows any more what the device holds."""
    device = Scripted()
    device.raises[m.Evict] = RuntimeError("driver")
    with pytest.raises(ExceptionGroup) as caught:
        await serve(real(), device, m.JobArrived(demand("j", "a", "b")))
    assert caught.group_contains(RuntimeError, match="driver")


async def test_a_run_whose_books_fail_is_not_begun() -> None:
    watcher, device = Watcher(), Scripted()
    watcher.fails = OSError("disk")
    async with engine_over(real(), device, watcher) as engine:
        await engine.put(m.JobArrived(demand("j", "a")))
        ended = await settled(watcher, 1)
        assert "OSError: disk" in ended["j"].detail
        assert not [command for command in device.log if isinstance(command, m.Start)]


async def test_arrivals_under_way_use_up_credit() -> None:
    engine = Engine(real(), Scripted(), LoopClock(), 2, Watcher(), Signal())
    assert engine.credit() == 4
    async with anyio.create_task_group() as tasks:
        for number in range(3):  # the last one waits for room
            tasks.start_soon(engine.put, m.JobArrived(demand(str(number), "a")))
            await turns()
        assert engine.credit() == 1
        tasks.cancel_scope.cancel()
    assert engine.credit() == 2, "the one that gave up is not on its way any more"
    async with anyio.create_task_group() as commands:
        await engine._handle_next(commands)
        assert engine.credit() == 2, "the scheduler counts them from here on"


class Timed:
    """A scheduler whose deadlines are given; it wants nothing else."""

    def __init__(self, *deadlines: float | None) -> None:
        self.deadlines = list(deadlines)
        self.turns: list[tuple[m.Event, ...]] = []
        self.handled: list[tuple[m.Event, float]] = []
        self.changed = Signal()

    def deadline(self) -> float | None:
        return self.deadlines[0]

    def handle(self, events: Sequence[m.Event], now: float) -> list[m.Command]:
        self.turns.append(tuple(events))
        self.handled += [(event, now) for event in self.turns[-1]]
        if len(self.deadlines) > 1:
            self.deadlines.pop(0)
        self.changed.notify()
        return []

    def credit(self) -> int:
        return 0


async def handled(scheduler: Timed, count: int) -> list[m.Event]:
    with anyio.fail_after(LIMIT):
        while len(scheduler.handled) < count:
            await scheduler.changed.ticket.wait()
    return [event for event, _ in scheduler.handled]


async def test_the_deadline_wakes_the_engine_when_it_has_come() -> None:
    due = anyio.current_time() + 0.02
    scheduler = Timed(due, None)
    async with engine_over(scheduler, Scripted()) as engine:
        assert await handled(scheduler, 1) == [m.TimeReached()]
        assert scheduler.handled[0][1] >= due - 0.002
        await engine.put(m.CancelRequested("x"))
        assert await handled(scheduler, 2) == [m.TimeReached(), m.CancelRequested("x")]


async def test_an_event_that_comes_first_rearms_the_timer() -> None:
    now = anyio.current_time()
    scheduler = Timed(now + 600, now - 1, None)
    async with engine_over(scheduler, Scripted()) as engine:
        await turns()
        assert scheduler.handled == []
        await engine.put(m.CancelRequested("x"))
        assert await handled(scheduler, 2) == [m.CancelRequested("x"), m.TimeReached()]
        await turns()
        assert len(scheduler.handled) == 2


async def test_requests_go_to_the_executor_at_once() -> None:
    requested: list[m.Command] = []
    requests = [m.Pause(Lease(1, "x", 0)), m.Cancel(Lease(2, "y", 0)), m.Abort("c")]

    class Asking(Timed):
        def handle(self, events: Sequence[m.Event], now: float) -> list[m.Command]:
            super().handle(events, now)
            return requests

    device = Scripted()
    device.request = requested.append  # type: ignore[method-assign, assignment]
    scheduler = Asking(None)
    async with engine_over(scheduler, device) as engine:
        await engine.put(m.CancelRequested("x"))
        await handled(scheduler, 1)
        assert requested == requests
        assert list(device.log) == []


async def test_a_scheduler_that_is_broken_stops_the_engine() -> None:
    class Broken(Timed):
        def handle(self, events: Sequence[m.Event], now: float) -> list[m.Command]:
            raise RuntimeError("the books are wrong")

    notes = Notes()
    with pytest.raises(ExceptionGroup) as caught:
        await serve(Broken(None), Scripted(), m.CancelRequested("x"), notes)
    assert caught.group_contains(RuntimeError, match="the books are wrong")
    (last,) = notes.turns
    assert (last.events, last.commands) == ((m.CancelRequested("x"),), None), "it shows how"


async def test_what_is_there_at_one_moment_is_one_turn() -> None:
    scheduler, notes = Timed(None), Notes()
    async with engine_over(scheduler, Scripted(), inbox_events=1000, recorder=notes) as engine:
        step = m.StepReached(Lease(1, "x", 0), 3)
        engine.step_reached(step)
        cancels = [m.CancelRequested(str(number)) for number in range(100)]
        for event in cancels:
            engine._inbox.put_terminal(event)  # without a wait in between
        await handled(scheduler, 101)
        assert scheduler.turns[0] == tuple(cancels[:64]), "a turn is bounded"
        assert scheduler.turns[1:] == [(*cancels[64:], step)]
        assert [turn.events for turn in notes.turns] == scheduler.turns
        assert [turn.at for turn in notes.turns] == [scheduler.handled[n][1] for n in (0, 64)]


class Starting(Timed):
    """Starts a run of several jobs at the first event."""

    def __init__(self, *commands: m.Command) -> None:
        super().__init__(None)
        self.commands = list(commands)

    def handle(self, events: Sequence[m.Event], now: float) -> list[m.Command]:
        super().handle(events, now)
        found, self.commands = self.commands, []
        return found


A, B, C = Lease(1, "a", 0), Lease(2, "b", 0), Lease(3, "c", 0)


@pytest.mark.parametrize("failing", [(), ("b",), ("a", "c"), ("a", "b", "c")])
async def test_a_shared_run_begins_without_jobs_whose_books_fail(failing: tuple[str, ...]) -> None:
    watcher, device = Watcher(), Scripted()
    watcher.fails, watcher.failing = OSError("disk"), failing
    scheduler = Starting(m.Start(A, 7, 3), m.Resume(B, 7, 3), m.Start(C, 7, 3))
    async with engine_over(scheduler, device, watcher) as engine:
        await engine.put(m.CancelRequested("x"))
        ended = await handled(scheduler, 4)
        left = 3 - len(failing)
        begun = [m.Start(A, 7, left), m.Resume(B, 7, left), m.Start(C, 7, left)]
        assert list(device.log) == [c for c in begun if c.lease.job not in failing]
        failed = {e.lease.job for e in ended if isinstance(e, m.RunFailed)}
        assert failed == set(failing)
        kinds = [told[0] for told in watcher.told]
        assert kinds == ["before"] * 3 + ["after"] * left


async def test_those_who_join_a_run_are_told_apart_from_those_who_begin_it() -> None:
    device = Scripted()
    joining = [m.Start(A, 7), m.Start(B, 7), m.Start(C, 8)]
    scheduler = Starting(*joining)
    async with engine_over(scheduler, device) as engine:
        await engine.put(m.CancelRequested("x"))
        await handled(scheduler, 4)
        assert list(device.log) == joining


async def test_a_watcher_that_raises_costs_one_job() -> None:
    class Raising(Watcher):
        def after_run(self, lease: Lease, event: m.Event, seconds: float) -> None:
            raise KeyError("books")

        def before_move(self, command: m.Move) -> None:
            if command == m.Stage("b"):
                raise KeyError("moves")

    watcher = Raising()
    async with engine_over(real(), Scripted(), watcher) as engine:
        await engine.put(m.JobArrived(demand("j", "a")))
        await engine.put(m.JobArrived(demand("k", "b")))
        ended = await settled(watcher, 2)
        assert "KeyError: 'books'" in ended["j"].detail
        assert "KeyError: 'moves'" in ended["k"].detail
