"""Events flow in, commands flow out: the only place that calls ``scheduler.handle``.

The engine takes one event at a time from its inbox, starts every command that comes back in one
task group, and re-arms one timer from ``scheduler.deadline()``. A command's task ends with exactly
one terminal event in the inbox.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Protocol

import anyio
import structlog
from anyio.abc import TaskGroup

from ourvidz.ports import Clock, Executor
from ourvidz.service.inbox import Inbox
from ourvidz.service.signal import Signal
from scheduler import Scheduler
from scheduler.messages import (
    Cancel,
    Command,
    Event,
    JobArrived,
    Load,
    LoadFailed,
    Pause,
    Resume,
    RunFailed,
    Settle,
    Stage,
    StageFailed,
    Start,
    StepReached,
    TimeReached,
)
from scheduler.types import Fault, Lease

log = structlog.get_logger()


class RunWatcher(Protocol):
    """Who keeps the books of runs."""

    async def before_run(self, lease: Lease) -> None:
        """Awaited before a run's first step; what it raises fails the run."""

    def after_run(self, lease: Lease, event: Event, seconds: float | None) -> None:
        """A run has ended with ``event`` after ``seconds``: of the whole phase, or ``None``."""

    def after_move(self, event: Event) -> None:
        """A component was staged, loaded, evicted or unstaged, or could not be."""

    def on_settle(self, settle: Settle) -> None:
        """A job has left the scheduler."""


@dataclass(frozen=True, slots=True)
class Place:
    """Position 0 runs, 1 is next; the seconds are those until the part is expected to end."""

    queue_position: int | None = None
    eta_seconds: float | None = None


class Engine:
    """Owns the scheduler; ``room`` is notified after every event."""

    def __init__(
        self,
        scheduler: Scheduler,
        executor: Executor,
        clock: Clock,
        inbox_events: int,
        watcher: RunWatcher,
        room: Signal,
    ) -> None:
        self._scheduler = scheduler
        self._executor = executor
        self._clock = clock
        self._inbox = Inbox(inbox_events)
        self._watcher = watcher
        self._room = room
        self._arriving = 0

    async def run(self) -> None:
        """Serve until cancelled. Runs in flight are waited for: a worker thread cannot be left."""
        async with anyio.create_task_group() as tasks:
            while True:
                await self._handle_next(tasks)

    async def put(self, event: Event) -> None:
        """Bring a request; waits while the inbox is full."""
        arrival = isinstance(event, JobArrived)
        self._arriving += arrival
        try:
            await self._inbox.put(event)
        except BaseException:
            self._arriving -= arrival
            raise

    def step_reached(self, event: StepReached) -> None:
        self._inbox.put_step(event)

    def credit(self) -> int:
        """How many more jobs the scheduler can use, beside those on their way to it."""
        return max(0, self._scheduler.credit() - self._arriving)

    def snapshot(self) -> Mapping[str, Any]:
        """The scheduler's state as plain values, with its plan for the waiting jobs."""
        return {**self._scheduler.snapshot(), "inbox": len(self._inbox)}

    def places(self) -> Mapping[str, Place]:
        """Where every part that the scheduler holds stands, by its id."""
        return {
            estimate.job: Place(estimate.position, round(estimate.finish_seconds, 3))
            for estimate in self._scheduler.plan(self._clock.monotonic())
        }

    async def _handle_next(self, tasks: TaskGroup) -> None:
        event = await self._next_event()
        self._arriving -= isinstance(event, JobArrived)
        for command in self._scheduler.handle(event, self._clock.monotonic()):
            self._start(tasks, command)
        self._room.notify()

    async def _next_event(self) -> Event:
        deadline = self._scheduler.deadline()
        if deadline is None:
            return await self._inbox.get()
        with anyio.move_on_after(max(0.0, deadline - self._clock.monotonic())):
            return await self._inbox.get()
        return TimeReached()

    def _start(self, tasks: TaskGroup, command: Command) -> None:
        match command:
            case Settle():
                self._watcher.on_settle(command)
            case Pause() | Cancel():
                self._executor.request(command)
            case _:
                tasks.start_soon(self._carry_out, command)

    async def _carry_out(self, command: Command) -> None:
        try:
            event = await self._execute(command)
        except Exception as error:
            log.exception("command_broke", command=repr(command))
            event = _failure(command, error)
        log.debug("command_done", command=repr(command), outcome=type(event).__name__)
        self._inbox.put_terminal(event)

    async def _execute(self, command: Command) -> Event:
        if not isinstance(command, Start | Resume):
            event = await self._executor.execute(command)
            self._watcher.after_move(event)
            return event
        await self._watcher.before_run(command.lease)
        began = self._clock.monotonic()
        event = await self._executor.execute(command)
        seconds = self._clock.monotonic() - began
        self._watcher.after_run(
            command.lease, event, seconds if isinstance(command, Start) else None
        )
        return event


def _failure(command: Command, error: Exception) -> Event:
    """The terminal event of a command that met a defect: it costs one job, or one component's.

    Re-raises for an ``Evict`` or ``Unstage``: nobody knows where those bytes are now.
    """
    detail = f"{type(error).__name__}: {error}"
    match command:
        case Start(lease) | Resume(lease):
            return RunFailed(lease, Fault.RUN, detail)
        case Stage(component):
            return StageFailed(component, detail, permanent=False)
        case Load(component):
            return LoadFailed(component, detail, Fault.LOAD)
    raise error
