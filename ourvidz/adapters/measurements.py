"""Measurements in the service's database, so that what was learned outlives the process."""

from __future__ import annotations

import sqlite3
from collections.abc import Sequence

import orjson

from ourvidz.adapters.database import Database
from ourvidz.ports import Series

# Rows are replaced, never updated, so that ``seen`` grows with every save: its order is theirs.
MEASUREMENTS_SCHEMA = """
CREATE TABLE IF NOT EXISTS measurements (
    seen INTEGER PRIMARY KEY,
    versions TEXT NOT NULL,
    name TEXT NOT NULL,
    samples BLOB NOT NULL,
    UNIQUE (versions, name)
);
"""
# Over all versions; some 4 MiB. A downgrade finds what it knew, unless much was learned since.
SERIES_MAX = 4096


class SqliteMeasurements:
    """``ports.Measurements`` over the database's one thread."""

    def __init__(self, database: Database) -> None:
        self._database = database

    async def load(self, versions: str) -> Sequence[Series]:
        def operation(connection: sqlite3.Connection) -> Sequence[Series]:
            rows = connection.execute(
                "SELECT name, samples FROM measurements WHERE versions = ? ORDER BY seen",
                (versions,),
            )
            return [Series(name, tuple(orjson.loads(samples))) for name, samples in rows]

        return await self._database.run(operation)

    async def save(self, versions: str, changed: Sequence[Series]) -> None:
        rows = [(versions, series.name, orjson.dumps(list(series.values))) for series in changed]

        def operation(connection: sqlite3.Connection) -> None:
            connection.executemany(
                "INSERT OR REPLACE INTO measurements (versions, name, samples) VALUES (?, ?, ?)",
                rows,
            )
            connection.execute(
                "DELETE FROM measurements WHERE seen IN "
                "(SELECT seen FROM measurements ORDER BY seen DESC LIMIT -1 OFFSET ?)",
                (SERIES_MAX,),
            )

        await self._database.run(operation)
