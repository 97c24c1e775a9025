"""Durable queues with leases in the service's own SQLite file.

Positions only grow. A queue that is taken from at the left has its head at its lowest free
position, and an element that comes back still has its place there. At the right the head is the
highest: an element that comes back moves there.
"""

from __future__ import annotations

import sqlite3
from collections.abc import Mapping, Sequence
from typing import Any

import anyio

from ourvidz.adapters.database import Database
from ourvidz.ports import (
    LETTER_BYTES_SHOWN,
    Claimed,
    Clock,
    DeadLetter,
    PopSide,
    QueueFull,
    Standing,
)

QUEUE_SCHEMA = """
CREATE TABLE IF NOT EXISTS queue_items (
    position INTEGER PRIMARY KEY AUTOINCREMENT,
    queue TEXT NOT NULL,
    raw BLOB NOT NULL,
    attempts INTEGER NOT NULL DEFAULT 0,
    counted INTEGER NOT NULL DEFAULT 0,
    claim_id TEXT UNIQUE,
    lease_until REAL
);
CREATE INDEX IF NOT EXISTS queue_all ON queue_items (queue);
CREATE INDEX IF NOT EXISTS queue_free ON queue_items (queue, position) WHERE claim_id IS NULL;
CREATE TABLE IF NOT EXISTS dead_letters (
    position INTEGER PRIMARY KEY AUTOINCREMENT,
    queue TEXT NOT NULL,
    raw BLOB NOT NULL,
    reason TEXT NOT NULL,
    at REAL NOT NULL
);
"""

# Elements of one queue: some days of work, and a disk that a broken caller cannot fill.
_ELEMENTS_MAX = 100_000
# Dead letters are for a person to read; older ones go, so that a broken producer fills no disk.
_DEAD_LETTERS_MAX = 10_000
_DEAD_LETTERS_BYTES_MAX = 256 * 1024 * 1024

_HELD = "SELECT position, queue FROM queue_items WHERE claim_id IS NOT NULL ORDER BY position"
_HELD_BY = "SELECT position, queue FROM queue_items WHERE claim_id = ?"
_EXPIRED = "SELECT position, queue FROM queue_items WHERE lease_until < ? ORDER BY position"

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
        return await self._let_go(_HELD)

    async def push(self, queue: str, raw: bytes) -> None:
        self._side(queue)

        def operation(connection: sqlite3.Connection) -> None:
            count = "SELECT count(*) FROM queue_items WHERE queue = ?"
            if connection.execute(count, (queue,)).fetchone()[0] >= _ELEMENTS_MAX:
                raise QueueFull(f"{queue} holds {_ELEMENTS_MAX} elements, as many as it may")
            connection.execute("INSERT INTO queue_items (queue, raw) VALUES (?, ?)", (queue, raw))

        await self._database.run(operation)
        self._wake(queue)

    async def claim(self, queue: str, claim_id: str, lease_seconds: float) -> Claimed | None:
        until = self._clock.wall() + lease_seconds
        order = _ORDER[self._side(queue)]

        def operation(connection: sqlite3.Connection) -> Claimed | None:
            columns = "SELECT queue, raw, attempts, position FROM queue_items "
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
                (claim_id, until, row[3]),
            )
            return Claimed(row[0], claim_id, row[1], row[2])

        return await self._database.run(operation)

    async def mark(
        self,
        claim_id: str | None,  # noqa: ARG002 - the port's
        job: str,  # noqa: ARG002 - the port's
        digest: str,  # noqa: ARG002 - the port's
    ) -> Standing:
        """There is no other worker."""
        return Standing.FREE

    async def wait(self, queue: str, seconds: float) -> bool:
        with anyio.move_on_after(seconds):
            pushed = self._pushed[queue]  # before the look, so that no later push is missed
            while not await self.depth(queue):
                await pushed.wait()
                pushed = self._pushed[queue]
            return True
        return False

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
        await self._let_go(_HELD_BY, claim_id, take_back=True)

    async def count_attempt(self, claim_id: str) -> int:
        def operation(connection: sqlite3.Connection) -> int:
            row = connection.execute(
                "UPDATE queue_items SET attempts = attempts + 1, counted = counted + 1 "
                "WHERE claim_id = ? RETURNING attempts",
                (claim_id,),
            ).fetchone()
            return 0 if row is None else int(row[0])

        return await self._database.run(operation)

    async def dead_letter(self, claim_id: str, reason: str) -> None:
        at = self._clock.wall()

        def operation(connection: sqlite3.Connection) -> None:
            connection.execute(
                "INSERT INTO dead_letters (queue, raw, reason, at) SELECT queue, raw, ?, ? "
                "FROM queue_items WHERE claim_id = ?",
                (reason, at, claim_id),
            )
            connection.execute("DELETE FROM queue_items WHERE claim_id = ?", (claim_id,))
            connection.execute(
                "DELETE FROM dead_letters WHERE position IN ("
                "SELECT position FROM (SELECT position, "
                "row_number() OVER newest AS number, sum(length(raw)) OVER newest AS bytes "
                "FROM dead_letters WINDOW newest AS (ORDER BY position DESC)) "
                "WHERE number > ? OR (bytes > ? AND number > 1))",
                (_DEAD_LETTERS_MAX, _DEAD_LETTERS_BYTES_MAX),
            )

        await self._database.run(operation)

    async def dead_letters(self, limit: int) -> Sequence[DeadLetter]:
        select = (
            "SELECT queue, coalesce(substr(raw, 1, ?), x''), length(raw), reason, at "
            "FROM dead_letters ORDER BY position DESC LIMIT ?"
        )
        values = (LETTER_BYTES_SHOWN, limit)
        rows = await self._database.run(lambda c: c.execute(select, values).fetchall())
        return [DeadLetter(*row) for row in rows]

    async def reap(self) -> int:
        return await self._let_go(_EXPIRED, self._clock.wall())

    def snapshot(self) -> Mapping[str, Any]:
        return {"kind": "embedded", "wake": "push", "commands_per_minute": 0}

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
        pushed = self._pushed.get(queue)  # what an earlier configuration left is not consumed
        if pushed is not None:
            self._pushed[queue] = anyio.Event()
            pushed.set()

    async def _let_go(self, select: str, *values: str | float, take_back: bool = False) -> int:
        """Free the claimed elements that ``select`` finds, each at the head of its queue; returns
        how many. ``take_back``: without the attempts counted under the claim."""

        def operation(connection: sqlite3.Connection) -> list[str]:
            found = connection.execute(select, values).fetchall()
            for position, queue in found:
                connection.execute(
                    "UPDATE queue_items SET claim_id = NULL, lease_until = NULL, "
                    "attempts = attempts - counted * ?, counted = 0 WHERE position = ?",
                    (take_back, position),
                )
                if self._pop_sides.get(queue) == "right":
                    _move_to_end(connection, position)
            return [queue for _, queue in found]

        queues = await self._database.run(operation)
        for queue in dict.fromkeys(queues):
            self._wake(queue)
        return len(queues)


def _move_to_end(connection: sqlite3.Connection, position: int) -> None:
    """Under a new position; an update would let the next push reuse the number."""
    connection.execute(
        "INSERT INTO queue_items (queue, raw, attempts) "
        "SELECT queue, raw, attempts FROM queue_items WHERE position = ?",
        (position,),
    )
    connection.execute("DELETE FROM queue_items WHERE position = ?", (position,))
