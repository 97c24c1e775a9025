"""The requests that stay open for the sake of a job: counted, bounded and ended together."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import anyio
from anyio.abc import TaskGroup
from starlette.types import Receive

# Each holds a connection and one task; far more than that and the service is not the place to fan
# out from.
OPEN_MAX = 256


class OpenRequests:
    def __init__(self, limit: int = OPEN_MAX) -> None:
        self._limit = limit
        self._open = 0
        self._closing = anyio.Event()

    def close(self) -> None:
        """The server stops: whoever is held leaves, and nobody else is."""
        self._closing.set()

    def __len__(self) -> int:
        return self._open

    @property
    def full(self) -> bool:
        return self._open >= self._limit

    @asynccontextmanager
    async def hold(self, receive: Receive) -> AsyncIterator[TaskGroup]:
        """Cancel the block when the caller has gone or the server stops.

        The request's body must have been read. Tasks of the group end with the block.
        """
        self._open += 1
        try:
            async with anyio.create_task_group() as tasks:
                tasks.start_soon(self._leave_when_closing, tasks)
                tasks.start_soon(_leave_when_gone, tasks, receive)
                yield tasks
                tasks.cancel_scope.cancel()
        finally:
            self._open -= 1

    async def _leave_when_closing(self, tasks: TaskGroup) -> None:
        await self._closing.wait()
        tasks.cancel_scope.cancel()


async def _leave_when_gone(tasks: TaskGroup, receive: Receive) -> None:
    while (await receive())["type"] != "http.disconnect":
        pass
    tasks.cancel_scope.cancel()
