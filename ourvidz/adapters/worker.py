"""Who this worker is to others that share a server with it."""

from __future__ import annotations

import sqlite3
from uuid import uuid4

from ourvidz.adapters.database import Database

WORKER_SCHEMA = """
CREATE TABLE IF NOT EXISTS worker (
    only INTEGER PRIMARY KEY CHECK (only = 1),
    identity TEXT NOT NULL
);
"""


async def worker_identity(database: Database) -> str:
    """The same for as long as the data directory lives, which one process uses at a time: names
    from the configuration may be used twice, and one worker would let go what another works on."""

    def operation(connection: sqlite3.Connection) -> str:
        insert = "INSERT OR IGNORE INTO worker (only, identity) VALUES (1, ?)"
        connection.execute(insert, (uuid4().hex,))
        return str(connection.execute("SELECT identity FROM worker").fetchone()[0])

    return await database.run(operation)
