"""Events flow in, commands flow out: the only place that calls ``scheduler.handle``.

In each turn the engine takes the events that are in its inbox, starts every command that comes back
in one task group, and re-arms one timer from ``scheduler.deadline()``. A command's task ends with
exactly one terminal event in the inbox.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, Final, Protocol

import anyio
import structlog
from anyio.abc import TaskGroup

from ourvidz.errors import DeviceFailed
from ourvidz.ports import Clock, Executor, Recorder
from ourvidz.service.inbox import Inbox
from ourvidz.service.signal import Signal
from scheduler import Scheduler
from scheduler.messages import (
    Abort,
    Cancel,
    Command,
    Event,
    JobArrived,
    Load,
    LoadFailed,
    Move,
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
from scheduler.recording import Turn
from scheduler.types import Fault, Lease

log = structlog.get_logger()

# Together they take less time than one by one, as one decision follows them; but the loop has other
# work too, and a turn of so many arrivals takes it a few milliseconds.
_TURN_EVENTS_MAX: Final = 64

Run = Start | Resume


class NotBegun(Exception):
    """A run must not begin, and whoever says so has said why."""


class RunWatcher(Protocol):
    """Who keeps the books of runs."""

    async def before_run(self, lease: Lease) -> None:
        """Awaited before a run's first step; what it raises fails the run: ``NotBegun``, or a
        defect."""

    def after_run(self, lease: Lease, event: Event, seconds: float) -> None:
        """A job's part in a run has ended with ``event`` after ``seconds``."""

    def before_move(self, command: Move) -> None:
        """A component is about to be moved."""

    def after_move(self, event: Event, seconds: float) -> None:
        """A component was moved in ``seconds``, or could not be, or was not wanted any more."""

    def on_settle(self, settle: Settle) -> None:
        """A job has left the scheduler."""

    def device_failed(self, failure: DeviceFailed) -> None:
        """A command found the device lost and has no terminal event: the service is to end."""


@dataclass(frozen=True, slots=True)
class Place:
    """Position 0 runs, 1 is next; the seconds are those until the part is expected to end, and in
    nine cases of ten has ended."""

    queue_position: int | None = None
    eta_seconds: float | None = None
    eta_p90_seconds: float | None = None


class Engine:
    """Owns the scheduler; ``room`` is notified after every turn, ``recorder`` told of it."""

    def __init__(
        self,
        scheduler: Scheduler,
        executor: Executor,
        clock: Clock,
        inbox_events: int,
        watcher: RunWatcher,
        room: Signal,
        recorder: Recorder | None = None,
    ) -> None:
        self._scheduler = scheduler
        self._executor = executor
        self._clock = clock
        self._inbox = Inbox(inbox_events)
        self._watcher = watcher
        self._room = room
        self._recorder = recorder
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
            estimate.job: Place(
                estimate.position,
                round(estimate.finish_seconds, 3),
                round(estimate.finish_p90_seconds, 3),
            )
            for estimate in self._scheduler.plan(self._clock.monotonic())
        }

    async def _handle_next(self, tasks: TaskGroup) -> None:
        events = await self._next_events()
        self._arriving -= sum(isinstance(event, JobArrived) for event in events)
        self._start(tasks, self._decide(events, self._clock.monotonic()))
        self._room.notify()

    async def _next_events(self) -> Sequence[Event]:
        deadline = self._scheduler.deadline()
        if deadline is None:
            return await self._inbox.get(_TURN_EVENTS_MAX)
        with anyio.move_on_after(max(0.0, deadline - self._clock.monotonic())):
            return await self._inbox.get(_TURN_EVENTS_MAX)
        return [TimeReached()]

    def _decide(self, events: Sequence[Event], now: float) -> Sequence[Command]:
        try:
            commands = self._scheduler.handle(events, now)
        except Exception:
            self._record(Turn(now, tuple(events), None))
            raise
        self._record(Turn(now, tuple(events), tuple(commands)))
        return commands

    def _record(self, turn: Turn) -> None:
        if self._recorder is not None:
            self._recorder.turn(turn)

    def _start(self, tasks: TaskGroup, commands: Sequence[Command]) -> None:
        together: dict[int, list[Run]] = {}
        for command in commands:
            match command:
                case Settle():
                    self._watcher.on_settle(command)
                case Pause() | Cancel() | Abort():
                    self._executor.request(command)
                case Start(starters=1) | Resume(starters=1):
                    tasks.start_soon(self._begin, tasks, [command])
                case Start() | Resume():
                    together.setdefault(command.run, []).append(command)
                case _:
                    tasks.start_soon(self._carry_out, command)
        for starters in together.values():
            tasks.start_soon(self._begin, tasks, starters)

    async def _begin(self, tasks: TaskGroup, starters: Sequence[Run]) -> None:
        """Begin a run with those of its starters whose books could be opened: the executor must not
        wait for the others."""
        ready: list[Lease] = []
        async with anyio.create_task_group() as books:
            for command in starters:
                books.start_soon(self._open_books, command, ready)
        for command in starters:
            if command.lease in ready:
                tasks.start_soon(self._carry_out, replace(command, starters=len(ready)))

    async def _open_books(self, command: Run, ready: list[Lease]) -> None:
        try:
            await self._watcher.before_run(command.lease)
        except NotBegun as reason:
            self._inbox.put_terminal(_failure(command, reason))
        except Exception as error:
            log.exception("command_broke", command=repr(command))
            self._inbox.put_terminal(_failure(command, error))
        else:
            ready.append(command.lease)

    async def _carry_out(self, command: Move | Run) -> None:
        try:
            event = await self._watched(command)
        except DeviceFailed as failure:
            self._watcher.device_failed(failure)
            return
        except Exception as error:
            log.exception("watching_broke", command=repr(command))
            event = _failure(command, error)
        log.debug("command_done", command=repr(command), outcome=type(event).__name__)
        self._inbox.put_terminal(event)

    async def _watched(self, command: Move | Run) -> Event:
        if not isinstance(command, Start | Resume):
            self._watcher.before_move(command)
        began = self._clock.monotonic()
        try:
            event = await self._executor.execute(command)
        except DeviceFailed:
            raise
        except Exception as error:
            log.exception("command_broke", command=repr(command))
            event = _failure(command, error)
        seconds = self._clock.monotonic() - began
        if isinstance(command, Start | Resume):
            self._watcher.after_run(command.lease, event, seconds)
        else:
            self._watcher.after_move(event, seconds)
        return event


def _failure(command: Move | Run, error: Exception) -> Event:
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
