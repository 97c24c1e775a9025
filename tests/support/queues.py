"""Each implementation of ``ports.JobSource`` with its server, as the contract's tests see it."""

from __future__ import annotations

from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Protocol

from ourvidz.adapters.database import Database
from ourvidz.adapters.queue_embedded import QUEUE_SCHEMA, EmbeddedQueues
from ourvidz.ports import JobSource

# Taken from at the left, at the right, and one more beside.
LEFT, RIGHT, OTHER = "left_queue", "right_queue", "other_queue"


class QueueWorld(Protocol):
    """The server goes on while sources come and go."""

    source: JobSource

    async def reopen(self) -> JobSource:
        """The worker's process has died and starts again, without having said good-bye."""

    def advance(self, seconds: float) -> None:
        """Time goes by for leases."""

    async def dead_letters(self) -> Sequence[tuple[str, bytes, str]]:
        """Queue, element and reason of each, oldest first."""


class MovedClock:
    def __init__(self) -> None:
        self.now = 1_700_000_000.0

    def monotonic(self) -> float:
        return self.now

    def wall(self) -> float:
        return self.now


class EmbeddedWorld:
    """``QueueWorld`` over SQLite."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._clock = MovedClock()
        self._database = Database(path)

    async def open(self) -> None:
        self._database = Database(self._path)
        await self._database.open(QUEUE_SCHEMA)
        sides = {LEFT: "left", RIGHT: "right", OTHER: "left"}
        self.source = EmbeddedQueues(self._database, self._clock, sides)  # type: ignore[arg-type]

    async def aclose(self) -> None:
        await self._database.aclose()

    async def reopen(self) -> JobSource:
        await self.aclose()
        await self.open()
        return self.source

    def advance(self, seconds: float) -> None:
        self._clock.now += seconds

    async def dead_letters(self) -> Sequence[tuple[str, bytes, str]]:
        return await self.source.dead_letters()


@asynccontextmanager
async def embedded(folder: Path) -> AsyncIterator[QueueWorld]:
    world = EmbeddedWorld(folder / "queues.db")
    await world.open()
    try:
        yield world
    finally:
        await world.aclose()
