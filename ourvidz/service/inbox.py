"""The engine's one bounded inbox.

Requests from outside (arrivals, cancels) wait for room. Terminal events of commands never wait:
there are at most as many as commands in flight, so their room is reserved by construction, and a
full inbox cannot deadlock the engine. Progress is conflated: the newest step of a lease replaces
the one before.
"""

from __future__ import annotations

from collections import deque

import anyio

from scheduler.messages import Event, StepReached
from scheduler.types import Lease


class Inbox:
    def __init__(self, limit: int) -> None:
        # Each with whether it took room.
        self._events: deque[tuple[Event, bool]] = deque()
        self._steps: dict[Lease, StepReached] = {}
        self._room = anyio.Semaphore(limit)
        self._ready = anyio.Event()

    async def put(self, event: Event) -> None:
        """A request from outside; waits while the inbox is full."""
        await self._room.acquire()
        self._push(event, takes_room=True)

    def put_terminal(self, event: Event) -> None:
        """A command's terminal event; never waits."""
        self._push(event, takes_room=False)

    def put_step(self, event: StepReached) -> None:
        """Progress; only the newest of a lease is kept."""
        self._steps[event.lease] = event
        self._ready.set()

    async def get(self, most: int) -> list[Event]:
        """What is there, at least one event and no more than ``most``: requests and terminal events
        in order of arrival, then progress."""
        while not self._events and not self._steps:
            self._ready = anyio.Event()
            await self._ready.wait()
        return [self._pop() for _ in range(min(most, len(self)))]

    def _pop(self) -> Event:
        if not self._events:
            return self._steps.pop(next(iter(self._steps)))
        event, took_room = self._events.popleft()
        if took_room:
            self._room.release()
        return event

    def _push(self, event: Event, takes_room: bool) -> None:
        self._events.append((event, takes_room))
        self._ready.set()

    def __len__(self) -> int:
        return len(self._events) + len(self._steps)
