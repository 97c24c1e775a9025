"""The simulator's device as an executor: the engine serves it live, in virtual time."""

from __future__ import annotations

import math
from collections.abc import Callable

import anyio

from ourvidz.ports import Clock
from scheduler import messages as m
from scheduler.machine import Machine
from scheduler.types import Demand


def _key(message: m.Command | m.Event) -> object:
    """Of a command and of its terminal event."""
    lease = getattr(message, "lease", None)
    return message.component if lease is None else lease.id  # type: ignore[union-attr]


class MachineDevice:
    """Takes the commands that have a terminal event through ``execute``, the others through
    ``request``. ``drive`` lets time pass for the machine."""

    def __init__(self, machine: Machine, clock: Clock) -> None:
        self.machine = machine
        self._clock = clock
        self._ended: dict[object, tuple[anyio.Event, list[m.Event]]] = {}
        self._changed = anyio.Event()

    def arrived(self, demand: Demand) -> None:
        self.machine.know(demand)

    async def execute(self, command: m.Command) -> m.Event:
        ended, events = self._ended[_key(command)] = anyio.Event(), []
        self._carry_out(command)
        await ended.wait()
        (event,) = events
        return event

    def request(self, command: m.Pause | m.Cancel | m.Abort) -> None:
        self._carry_out(command)

    async def drive(self, step_reached: Callable[[m.StepReached], None]) -> None:
        """For ever."""
        while True:
            self._changed = anyio.Event()
            due = min(self.machine.next_end(), self.machine.boundary(every=True))
            wait = max(0.0, due - self._clock.monotonic()) if due < math.inf else None
            with anyio.move_on_after(wait):
                await self._changed.wait()
                continue
            self._tell(step_reached)

    def _tell(self, step_reached: Callable[[m.StepReached], None]) -> None:
        now = self._clock.monotonic()
        reached = self.machine.newly_reached(now)
        events = self.machine.end(now) if reached is None else reached[0]
        for event in events:
            if isinstance(event, m.StepReached):
                step_reached(event)
            else:
                ended, events = self._ended.pop(_key(event))
                events.append(event)
                ended.set()

    def _carry_out(self, command: m.Command) -> None:
        self.machine.carry_out(command, self._clock.monotonic())
        self._changed.set()
