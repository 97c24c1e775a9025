"""Durable queues with leases in the service's own SQLite file.

Positions only grow, so the head of a queue is its lowest free position and an element that is
handed back keeps its place.
"""

from __future__ import annotations

import sqlite3
from collections.abc import Mapping, Sequence
from typing import Literal

import anyio

from ourvidz.adapters.database import Database
from ourvidz.ports import Claimed, Clock

QUEUE_SCHEMA = """
CREATE TABLE IF NOT EXISTS queue_items (
    position INTEGER PRIMARY KEY AUTOINCREMENT,
    queue TEXT NOT NULL,
    raw BLOB NOT NULL,
    attempts INTEGER NOT NULL DEFAULT 0,
    claim_id TEXT UNIQUE,
    lease_until REAL
);
CREATE INDEX IF NOT EXISTS queue_free ON queue_items (queue, position) WHERE claim_id IS NULL;
CREATE TABLE IF NOT EXISTS dead_letters (
    position INTEGER PRIMARY KEY,
    queue TEXT NOT NULL,
    raw BLOB NOT NULL,
    reason TEXT NOT NULL,
    at REAL NOT NULL
);
"""

# Dead letters are for a person to read; older ones go, so that a broken producer fills no disk.
_DEAD_LETTERS_MAX = 10_000

PopSide = Literal["left", "right"]
_ORDER: dict[PopSide, str] = {"left": "ASC", "right": "DESC"}


class EmbeddedQueues:
    """``ports.JobSource`` over SQLite. One process owns the file, so a push wakes its waiters."""

    def __init__(self, database: Database, clock: Clock, pop_sides: Mapping[str, PopSide]) -> None:
        self._database = database
        self._clock = clock
        self._pop_sides = dict(pop_sides)
        self._pushed = {queue: anyio.Event() for queue in pop_sides}

    async def recover(self) -> int:
        """At start: nobody else can hold a lease on this file, so every claim is let go."""
        return await self._database.run(
            lambda c: (
                c.execute(
                    "UPDATE queue_items SET claim_id = NULL, lease_until = NULL "
                    "WHERE claim_id IS NOT NULL"
                ).rowcount
            )
        )

    async def push(self, queue: str, raw: bytes) -> None:
        self._side(queue)
        await self._database.run(
            lambda c: c.execute("INSERT INTO queue_items (queue, raw) VALUES (?, ?)", (queue, raw))
        )
        self._wake(queue)

    async def claim(self, queue: str, claim_id: str, lease_seconds: float) -> Claimed | None:
        until = self._clock.wall() + lease_seconds
        order = _ORDER[self._side(queue)]
        if self._pushed[queue].is_set():  # before the look, so that no later push is missed
            self._pushed[queue] = anyio.Event()

        def operation(connection: sqlite3.Connection) -> Claimed | None:
            columns = "SELECT raw, attempts, position FROM queue_items "
            row = connection.execute(columns + "WHERE claim_id = ?", (claim_id,)).fetchone()
            if row is None:
                row = connection.execute(
                    f"{columns} WHERE queue = ? AND claim_id IS NULL "
                    f"ORDER BY position {order} LIMIT 1",
                    (queue,),
                ).fetchone()
            if row is None:
                return None
            connection.execute(
                "UPDATE queue_items SET claim_id = ?, lease_until = ? WHERE position = ?",
                (claim_id, until, row[2]),
            )
            return Claimed(queue, claim_id, row[0], row[1])

        return await self._database.run(operation)

    async def wait(self, queue: str, seconds: float) -> None:
        event = self._pushed[queue]
        with anyio.move_on_after(seconds):
            await event.wait()

    async def renew(self, claim_ids: Sequence[str], lease_seconds: float) -> frozenset[str]:
        until = self._clock.wall() + lease_seconds

        def operation(connection: sqlite3.Connection) -> frozenset[str]:
            lost = []
            for claim_id in claim_ids:
                found = connection.execute(
                    "UPDATE queue_items SET lease_until = ? WHERE claim_id = ?", (until, claim_id)
                )
                if not found.rowcount:
                    lost.append(claim_id)
            return frozenset(lost)

        return await self._database.run(operation)

    async def acknowledge(self, claim_id: str) -> None:
        await self._database.run(
            lambda c: c.execute("DELETE FROM queue_items WHERE claim_id = ?", (claim_id,))
        )

    async def hand_back(self, claim_id: str) -> None:
        def operation(connection: sqlite3.Connection) -> str | None:
            row = connection.execute(
                "UPDATE queue_items SET claim_id = NULL, lease_until = NULL "
                "WHERE claim_id = ? RETURNING queue",
                (claim_id,),
            ).fetchone()
            return None if row is None else str(row[0])

        queue = await self._database.run(operation)
        if queue is not None:
            self._wake(queue)

    async def count_attempt(self, claim_id: str) -> int:
        def operation(connection: sqlite3.Connection) -> int:
            row = connection.execute(
                "UPDATE queue_items SET attempts = attempts + 1 "
                "WHERE claim_id = ? RETURNING attempts",
                (claim_id,),
            ).fetchone()
            return 0 if row is None else int(row[0])

        return await self._database.run(operation)

    async def dead_letter(self, claim_id: str, reason: str) -> None:
        at = self._clock.wall()

        def operation(connection: sqlite3.Connection) -> None:
            connection.execute(
                "INSERT INTO dead_letters SELECT position, queue, raw, ?, ? "
                "FROM queue_items WHERE claim_id = ?",
                (reason, at, claim_id),
            )
            connection.execute("DELETE FROM queue_items WHERE claim_id = ?", (claim_id,))
            connection.execute(
                "DELETE FROM dead_letters WHERE position NOT IN "
                "(SELECT position FROM dead_letters ORDER BY at DESC, position DESC LIMIT ?)",
                (_DEAD_LETTERS_MAX,),
            )

        await self._database.run(operation)

    async def dead_letters(self) -> Sequence[tuple[str, bytes, str]]:
        """Queue, element and reason of each, oldest first."""
        return await self._database.run(
            lambda c: c.execute(
                "SELECT queue, raw, reason FROM dead_letters ORDER BY at, position"
            ).fetchall()
        )

    async def reap(self) -> int:
        now = self._clock.wall()

        def operation(connection: sqlite3.Connection) -> list[str]:
            rows = connection.execute(
                "UPDATE queue_items SET claim_id = NULL, lease_until = NULL "
                "WHERE lease_until < ? RETURNING queue",
                (now,),
            ).fetchall()
            return [str(row[0]) for row in rows]

        queues = await self._database.run(operation)
        for queue in dict.fromkeys(queues):
            self._wake(queue)
        return len(queues)

    async def depth(self, queue: str) -> int:
        """Elements that nobody holds."""
        return await self._database.run(
            lambda c: int(
                c.execute(
                    "SELECT count(*) FROM queue_items WHERE queue = ? AND claim_id IS NULL",
                    (queue,),
                ).fetchone()[0]
            )
        )

    def _side(self, queue: str) -> PopSide:
        """Raises ``KeyError`` for a queue that is not configured."""
        return self._pop_sides[queue]

    def _wake(self, queue: str) -> None:
        self._pushed[queue].set()
