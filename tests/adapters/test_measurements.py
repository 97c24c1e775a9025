"""Measurements in SQLite: what is saved comes back, by versions, and is bounded."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import pytest

from ourvidz.adapters import measurements as module
from ourvidz.adapters.database import Database
from ourvidz.adapters.measurements import MEASUREMENTS_SCHEMA, SqliteMeasurements
from ourvidz.ports import Series

pytestmark = pytest.mark.anyio

OLD, NEW = "torch 1, card", "torch 2, card"


@asynccontextmanager
async def opened(folder: Path) -> AsyncIterator[SqliteMeasurements]:
    database = Database(folder / "measurements.db")
    await database.open(MEASUREMENTS_SCHEMA)
    try:
        yield SqliteMeasurements(database)
    finally:
        await database.aclose()


async def test_what_is_saved_comes_back_to_the_bit_in_the_order_of_saving(tmp_path: Path) -> None:
    values = (0.1, 1e-9, 123456789.123456789, 3.0)
    async with opened(tmp_path) as measurements:
        assert await measurements.load(NEW) == []
        await measurements.save(NEW, [Series("a", values), Series("b", (1.0,))])
        await measurements.save(NEW, [Series("a", (2.0, *values))])
    async with opened(tmp_path) as measurements:
        assert await measurements.load(NEW) == [
            Series("b", (1.0,)),
            Series("a", (2.0, *values)),
        ]


async def test_other_versions_values_are_kept_apart(tmp_path: Path) -> None:
    async with opened(tmp_path) as measurements:
        await measurements.save(OLD, [Series("a", (1.0,))])
        await measurements.save(NEW, [Series("a", (2.0,))])
        assert await measurements.load(OLD) == [Series("a", (1.0,))]
        assert await measurements.load(NEW) == [Series("a", (2.0,))]


async def test_the_longest_unseen_is_forgotten_whatever_its_versions(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "SERIES_MAX", 3)
    async with opened(tmp_path) as measurements:
        await measurements.save(OLD, [Series("a", (1.0,)), Series("b", (1.0,))])
        await measurements.save(NEW, [Series("c", (1.0,))])
        await measurements.save(OLD, [Series("a", (2.0,))])
        await measurements.save(NEW, [Series("d", (1.0,))])
        assert await measurements.load(OLD) == [Series("a", (2.0,))]
        assert [series.name for series in await measurements.load(NEW)] == ["c", "d"]
