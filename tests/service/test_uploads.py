"""Uploads: as soon as a file is there, side by side, and no longer than somebody waits for them."""

from __future__ import annotations

from uuid import UUID

import anyio
import pytest
from support.house import LIMIT_SECONDS, OpenHouse, job_id, payload, starts
from support.stage import Hold, StagedStore, SteppedDevice, staged
from support.turns import turns

from ourvidz.adapters.device_fake import FakeDevice
from ourvidz.jobs import JobState
from ourvidz.ports import StoreDenied, StoreUnavailable

pytestmark = pytest.mark.anyio

QUIET = {"callback.progress": False}


async def stored(store: StagedStore, count: int) -> None:
    with anyio.fail_after(LIMIT_SECONDS):
        while len(store.puts) < count:
            await turns()


async def test_a_file_is_stored_while_the_device_makes_the_next(open_house: OpenHouse) -> None:
    device = SteppedDevice()
    last = device.hold("a", "decode", 2)
    async with open_house(device, **QUIET) as house:
        rows: list[int] = []

        async def is_in_the_journal(key: str) -> None:
            assets = await house.service.journal.assets(UUID(job_id("a")))
            rows.extend(a.index for a in assets if key in (a.key, a.thumbnail_key))

        store = staged(house, is_in_the_journal)
        await house.push("sdxl_queue", payload("a", batch_size=3))
        await last.reached()
        await stored(store, 4)
        assert await house.state("a") is JobState.RUNNING
        assert sorted(rows) == [0, 0, 1, 1], "its row comes first"
        last.release()
        body = await house.ended("a")
        await house.quiet()
        assert [a["metadata"]["asset_index"] for a in body["assets"]] == [0, 1, 2]
        assert len(store.puts) == len(set(store.puts)) == 6, "nothing is stored twice"


async def test_files_of_one_job_are_stored_side_by_side(open_house: OpenHouse) -> None:
    holds = {f"{index}.png": Hold() for index in range(3)}

    async def wait(key: str) -> None:
        hold = holds.get(key.rpartition("/")[2])
        if hold is not None:
            await hold.wait()

    async with open_house(**QUIET) as house:
        store = staged(house, wait)
        await house.push("sdxl_queue", payload("a", batch_size=3, seed=5))
        for hold in holds.values():
            await hold.reached()
        for index in (2, 0, 1):
            before = len(store.puts)
            holds[f"{index}.png"].release()
            await stored(store, before + 2)
        body = await house.ended("a")
        await house.quiet()
        assert [a["url"].rpartition("/")[2] for a in body["assets"]] == ["0.png", "1.png", "2.png"]
        assert [a["metadata"]["seed"] for a in body["assets"]] == [5, 6, 7]


@pytest.mark.parametrize("how", ["cancelled", "drained"])
async def test_uploads_that_nobody_waits_for_are_dropped(open_house: OpenHouse, how: str) -> None:
    device, hold = SteppedDevice(), Hold()
    last = device.hold("a", "decode", 1)
    called_off: list[bool] = []

    async def wait(key: str) -> None:
        try:
            await hold.wait()
        finally:
            called_off.append(not hold._released.is_set())

    async with open_house(device, **QUIET, **{"service.drain_seconds": 0.02}) as house:
        store = staged(house, wait)
        await house.push("sdxl_queue", payload("a", batch_size=2))
        await last.reached()
        await hold.reached()
        if how == "cancelled":
            await house.service.cancel(job_id("a"))
            assert (await house.ended("a"))["status"] == "failed"
            await house.quiet()
        else:
            await house.drain()
            await house.drained()
            assert await house.state("a") is JobState.QUEUED
        assert called_off == [True]
        assert store.puts == []


async def test_an_upload_goes_on_where_the_process_ended(open_house: OpenHouse) -> None:
    device, hold = SteppedDevice(), Hold()
    async with open_house(device, **QUIET) as house:

        async def second(key: str) -> None:
            if key.endswith("1.png"):
                await hold.wait()

        staged(house, second)
        await house.push("sdxl_queue", payload("a", batch_size=2))
        await hold.reached()
        await house.rendered("a")
        house.kill()
    again = FakeDevice()
    async with open_house(again, **QUIET) as house:
        assert (await house.ended("a"))["status"] == "completed"
        await house.quiet()
        assert starts(again, "a") == 0


async def test_a_store_that_denies_everything_holds_jobs_until_it_is_mended(
    open_house: OpenHouse,
) -> None:
    mended = anyio.Event()
    refused = Hold()

    async def deny(key: str) -> None:
        if not mended.is_set():
            refused._reached.set()
            raise StoreDenied("the store answered 404: NoSuchBucket")

    async with open_house(**QUIET) as house:
        store = staged(house, deny)
        await house.push("sdxl_queue", payload("a", batch_size=2))
        await refused.reached()
        await house.rendered("a")
        await turns()
        assert house.service.health()["alarms"] == ["store_denied"]
        assert house.terminal(job_id("a")) == []
        mended.set()
        assert (await house.ended("a"))["status"] == "completed"
        await house.quiet()
        assert house.service.health()["alarms"] == []
        assert len(store.puts) == 4
        assert house.starts("a") == 3


async def test_a_store_that_is_away_rings_until_it_is_back(open_house: OpenHouse) -> None:
    back, refused = anyio.Event(), Hold()

    async def away(key: str) -> None:
        if not back.is_set():
            refused._reached.set()
            raise StoreUnavailable("the store answered 503")

    async with open_house(**QUIET) as house:
        staged(house, away)
        await house.push("sdxl_queue", payload("a"))
        await refused.reached()
        await turns()
        assert house.service.health()["alarms"] == ["store_unavailable"]
        back.set()
        assert (await house.ended("a"))["status"] == "completed"
        await house.quiet()
        assert house.service.health()["alarms"] == []


@pytest.mark.parametrize(
    ("error", "least", "most"),
    [
        (StoreUnavailable("busy", 3.0), 3, 3),
        (StoreUnavailable("busy", 99_999.0), 3600, 3600),
        (StoreUnavailable("busy"), 0.5, 1),
        (StoreDenied("gone"), 60, 60),
    ],
    ids=["asked", "asked too much", "not asked", "denied"],
)
async def test_how_long_an_upload_waits_for_its_next_attempt(
    open_house: OpenHouse,
    monkeypatch: pytest.MonkeyPatch,
    error: Exception,
    least: float,
    most: float,
) -> None:
    slept: list[float] = []
    refusals = [error]

    async def sleep(seconds: float) -> None:
        slept.append(seconds)

    async def refuse(key: str) -> None:
        if refusals:
            raise refusals.pop()

    monkeypatch.setattr("stamina._core._smart_sleep", sleep)
    pauses = {"callback.retry_seconds_min": 0.5, "callback.retry_seconds_max": 60}
    async with open_house(**QUIET, **pauses) as house:
        staged(house, refuse)
        assert (await house.run("a"))["status"] == "completed"
        await house.quiet()
    (pause,) = slept
    assert least <= pause <= most
