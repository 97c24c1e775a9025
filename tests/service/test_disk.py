"""A spool or a disk that is full holds jobs up and loses none; it goes on by itself."""

from __future__ import annotations

import errno
import os
import shutil
import sqlite3
from collections.abc import Callable
from typing import Any, NamedTuple

import anyio
import pytest
from support.house import LIMIT_SECONDS, House, OpenHouse, job_id, payload
from support.stage import Hold, StagedStore, SteppedDevice
from support.turns import turns

from ourvidz.adapters import database, references
from ourvidz.adapters.spool import SpoolRenderer
from ourvidz.jobs import Asset
from ourvidz.ports import DiskRefused, ImageProduced, Part
from ourvidz.service import disk, earlier, service

pytestmark = [pytest.mark.anyio, pytest.mark.usefixtures("quick_retries")]

QUIET = {"callback.progress": False}


@pytest.fixture(autouse=True)
def quick_looks(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(disk, "_LOOK_SECONDS", 0.02)
    monkeypatch.setattr(disk, "_APART_SECONDS", 0.005)
    monkeypatch.setattr(disk, "_FULL_SECONDS", 0.005)


async def becomes(condition: Callable[[], bool]) -> None:
    with anyio.fail_after(LIMIT_SECONDS):
        while not condition():
            await turns()


def alarms(house: House) -> Any:
    return house.service.health()["alarms"]


async def completed(house: House, *names: str) -> None:
    for name in names:
        assert (await house.ended(name))["status"] == "completed"
    await house.quiet()
    await becomes(lambda: alarms(house) == [])
    for name in names:
        assert len(house.terminal(job_id(name))) == 1
        assert house.starts(name) == 3


async def test_a_spool_that_is_full_stops_claims_until_deliveries_make_room(
    open_house: OpenHouse,
) -> None:
    flags = {"spool.bytes_max": 1, "queues.sdxl_queue.claims_max": 1, **QUIET}
    async with open_house(**flags) as house:
        store, hold = StagedStore(house.root / "store"), Hold()

        async def away(key: str) -> None:
            await hold.wait()

        store.before_put = away
        house.service.delivery.uploads.store = store
        await house.push("sdxl_queue", payload("a", batch_size=2))
        await house.rendered("a")
        await becomes(lambda: alarms(house) == ["spool_full"])
        assert house.service.metrics.registry.get_sample_value("ourvidz_spool_bytes") > 1
        await house.push("sdxl_queue", payload("b"))
        await house.barrier()
        assert not house.service.roster.busy, "b is not claimed"
        hold.release()
        await completed(house, "a", "b")


class Usage(NamedTuple):
    total: int
    used: int
    free: int


async def test_a_disk_that_others_fill_stops_claims_until_they_make_room(
    open_house: OpenHouse, monkeypatch: pytest.MonkeyPatch
) -> None:
    free = [99]
    monkeypatch.setattr(shutil, "disk_usage", lambda _: Usage(1000, 1000 - free[0], free[0]))
    async with open_house(**{"spool.free_bytes_min": 100, **QUIET}) as house:
        assert alarms(house) == ["disk_full"]
        await house.push("sdxl_queue", payload("a"))
        await house.barrier()
        assert not house.service.roster.busy
        free[0] = 100
        await completed(house, "a")
        registry = house.service.metrics.registry
        assert registry.get_sample_value("ourvidz_disk_free_bytes") == 100


async def test_a_disk_that_cannot_be_measured_is_used(
    open_house: OpenHouse, monkeypatch: pytest.MonkeyPatch
) -> None:
    def broken(_: Any) -> Any:
        raise OSError("planted")

    monkeypatch.setattr(shutil, "disk_usage", broken)
    async with open_house(**QUIET) as house:
        await house.push("sdxl_queue", payload("a"))
        await completed(house, "a")


class FullDisk:
    """Takes no picture of job "a" but the first as long as it is ``full``."""

    def __init__(self, patch: pytest.MonkeyPatch) -> None:
        self.full, self.asked, usual = True, 0, SpoolRenderer.image

        async def image(renderer: SpoolRenderer, part: Part, produced: ImageProduced) -> Asset:
            if self.full and produced.index and str(part.spec.id) == job_id("a"):
                self.asked += 1
                raise DiskRefused("spool: ENOSPC", full=True)
            return await usual(renderer, part, produced)

        patch.setattr(SpoolRenderer, "image", image)

    async def met(self, house: House) -> None:
        await becomes(lambda: self.asked > 2)
        assert alarms(house) == ["disk_full"]


async def test_a_picture_waits_for_the_disk(
    open_house: OpenHouse, monkeypatch: pytest.MonkeyPatch
) -> None:
    full = FullDisk(monkeypatch)
    async with open_house(**QUIET) as house:
        await house.push("sdxl_queue", payload("a", batch_size=3))
        await full.met(house)
        await house.push("chat_queue", payload("b", "enhance_base"))
        await house.barrier()
        assert house.service.roster.held("chat_queue") == 0
        full.full = False
        await completed(house, "a")
        (end,) = house.terminal(job_id("a"))
        assert len(end.body["assets"]) == 3
        assert "failed_indices" not in end.body["metadata"]
        assert (await house.ended("b"))["status"] == "completed"


class FullFor:
    """A disk that does not take one function's writes as long as it is ``full``, or else broken."""

    def __init__(
        self, patch: pytest.MonkeyPatch, module: Any, name: str, code: int = errno.ENOSPC
    ) -> None:
        self.full, self.asked, usual = True, 0, getattr(module, name)
        self.code = code

        def write(*arguments: Any, **named: Any) -> Any:
            if self.full:
                self.asked += 1
                raise OSError(self.code, os.strerror(self.code))
            return usual(*arguments, **named)

        patch.setattr(module, name, write)

    async def met(self, house: House) -> None:
        await becomes(lambda: self.asked > 2)
        assert alarms(house) == ["disk_full" if self.code == errno.ENOSPC else "disk_failed"]


CODES = [errno.ENOSPC, errno.EROFS]


@pytest.mark.parametrize("code", CODES)
async def test_a_reference_waits_for_the_disk(
    open_house: OpenHouse, monkeypatch: pytest.MonkeyPatch, code: int
) -> None:
    async with open_house(**QUIET) as house:
        made = await house.run("made")
        await house.quiet()
        full = FullFor(monkeypatch, references, "write_checked_image", code)
        reference = f"workspace-temp/{made['assets'][0]['url']}"
        await house.push("sdxl_queue", payload("a", reference_image=reference))
        await full.met(house)
        full.full = False
        assert (await house.ended("a"))["status"] == "completed"
        await house.quiet()


@pytest.mark.parametrize("way_out", ["room", "cancel", "drain"])
@pytest.mark.parametrize("code", CODES)
async def test_a_folder_waits_for_the_disk(
    open_house: OpenHouse, monkeypatch: pytest.MonkeyPatch, way_out: str, code: int
) -> None:
    full = FullFor(monkeypatch, earlier, "open_folder", code)
    async with open_house(**QUIET) as house:
        await house.push("sdxl_queue", payload("a"))
        await full.met(house)
        if way_out == "room":
            full.full = False
        elif way_out == "cancel":
            await house.service.cancel(job_id("a"))
        else:
            house.service.stop()
            await house.drained()
            assert house.terminal(job_id("a")) == []
    full.full = False
    async with open_house(**QUIET) as house:
        body = await house.ended("a")
        assert body["status"] == ("failed" if way_out == "cancel" else "completed")
        await house.quiet()
        assert len(house.terminal(job_id("a"))) == 1
        assert alarms(house) == []


async def test_what_waits_for_the_disk_can_be_cancelled(
    open_house: OpenHouse, monkeypatch: pytest.MonkeyPatch
) -> None:
    full = FullDisk(monkeypatch)
    async with open_house(**QUIET) as house:
        await house.push("sdxl_queue", payload("a", batch_size=3))
        await full.met(house)
        await house.service.cancel(job_id("a"))
        body = await house.ended("a")
        assert body["metadata"]["error"]["code"] == "CANCELLED"
        await house.push("sdxl_queue", payload("b"))
        await completed(house, "b")


async def test_what_waits_for_the_disk_is_handed_back_by_a_drain(
    open_house: OpenHouse, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Not delivered without the pictures that wait."""
    full = FullDisk(monkeypatch)
    async with open_house(**QUIET, **{"service.drain_seconds": 0.01}) as house:
        await house.push("sdxl_queue", payload("a", batch_size=3))
        await full.met(house)
        house.service.stop()
        await house.drained()
        assert house.terminal(job_id("a")) == []
    full.full = False
    async with open_house(**QUIET) as house:
        assert len((await house.ended("a"))["assets"]) == 3
        await house.quiet()


class FullJournal:
    """A database whose transactions find no room as long as it is ``full``."""

    def __init__(self, patch: pytest.MonkeyPatch) -> None:
        self.full, usual = False, database._transaction

        def transaction(*arguments: Any) -> Any:
            if self.full:
                error = sqlite3.OperationalError("database or disk is full")
                error.sqlite_errorcode = sqlite3.SQLITE_FULL
                raise error
            return usual(*arguments)

        patch.setattr(database, "_transaction", transaction)


@pytest.mark.parametrize("phase", ["encode", "denoise", "decode"])
async def test_a_journal_whose_disk_is_full_is_waited_for(
    open_house: OpenHouse, monkeypatch: pytest.MonkeyPatch, phase: str
) -> None:
    journal, device = FullJournal(monkeypatch), SteppedDevice()
    hold = device.hold("a", phase)
    async with open_house(device, **QUIET) as house:
        await house.push("sdxl_queue", payload("a", batch_size=3))
        await hold.reached()
        journal.full = True
        hold.release()
        await becomes(lambda: alarms(house) == ["journal_unavailable"])
        assert house.service.trouble == "database or disk is full"
        journal.full = False
        await completed(house, "a")
        (end,) = house.terminal(job_id("a"))
        assert len(end.body["assets"]) == 3
        assert "failed_indices" not in end.body["metadata"]


async def test_a_drain_does_not_wait_for_the_journals_disk(
    open_house: OpenHouse, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("_CANCEL_SECONDS", "_FLUSH_SECONDS"):
        monkeypatch.setattr(service, name, 0.01)
    journal, device = FullJournal(monkeypatch), SteppedDevice()
    hold = device.hold("a", "denoise")
    async with open_house(device, **QUIET, **{"service.drain_seconds": 0.01}) as house:
        await house.push("sdxl_queue", payload("a"))
        await hold.reached()
        journal.full = True
        hold.release()
        await becomes(lambda: house.service.trouble is not None)
        house.service.stop()
        await house.drained()
        assert house.terminal(job_id("a")) == []
    journal.full = False
    async with open_house(**QUIET) as house:
        assert (await house.ended("a"))["status"] == "completed"
        await house.quiet()
        assert len(house.terminal(job_id("a"))) == 1
