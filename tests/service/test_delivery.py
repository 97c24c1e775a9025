"""What was rendered is stored, and its element held until that is answered."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from contextlib import AsyncExitStack
from pathlib import Path
from uuid import UUID

import anyio
import pytest
import structlog
from support.house import LIMIT_SECONDS, House, OpenHouse, job_id, payload
from support.stage import Hold, SteppedDevice, staged
from support.turns import turns

from ourvidz.adapters.receiver import Receiver
from ourvidz.ports import Delivered, JobRecord, StoreRejected, StoreUnavailable

pytestmark = pytest.mark.anyio

QUIET = {"callback.progress": False}


async def test_a_store_that_is_away_holds_the_job_back(open_house: OpenHouse) -> None:
    async with open_house() as house:
        refusals = [StoreUnavailable("away")] * 5

        async def away(key: str) -> None:
            if refusals:
                raise refusals.pop()

        store = staged(house, away)
        body = await house.run("a", batch_size=2)
        await house.quiet()
        assert body["status"] == "completed"
        assert refusals == []
        assert len(store.puts) == len(set(store.puts)) == 4
        assert len(house.terminal(job_id("a"))) == 1
        assert house.starts("a") == 3


async def test_one_file_that_the_store_refuses(open_house: OpenHouse) -> None:
    async with open_house() as house:

        async def refuse(key: str) -> None:
            if key.endswith("1.png"):
                raise StoreRejected("415 for this bucket")

        staged(house, refuse)
        body = await house.run("a", batch_size=3, seed=4)
        await house.quiet()
        assert body["status"] == "completed"
        assert body["metadata"]["failed_indices"] == [1]
        assert [a["url"].rsplit("/", 1)[1] for a in body["assets"]] == ["0.png", "2.png"]
        assert [a["metadata"]["seed"] for a in body["assets"]] == [4, 6]
        job = await house.job("a")
        assert job is not None
        assert job["output"]["failed"][0]["message"] == "415 for this bucket"


async def test_a_file_that_is_refused_rings_until_another_is_taken(open_house: OpenHouse) -> None:
    async with open_house() as house:
        refused = True

        async def limited(key: str) -> None:
            if refused:
                raise StoreRejected("413")

        staged(house, limited)
        assert (await house.run("a"))["status"] == "failed"
        assert house.service.health()["alarms"] == ["store_refused"]
        refused = False
        await house.fine()
        assert house.service.health()["alarms"] == []


def stored(house: House, name: str) -> dict[str, bytes]:
    found = (house.root / "store").rglob(f"{job_id(name)}/*")
    return {path.name: path.read_bytes() for path in found}


def clear(spool: Path) -> None:
    shutil.rmtree(spool)


def remove_one(spool: Path) -> None:
    next(spool.rglob("1.png")).unlink()


def damage(spool: Path) -> None:
    path = next(spool.rglob("1.png"))
    path.write_bytes(path.read_bytes()[:-1] + b"x")


@pytest.mark.parametrize("happens", [clear, remove_one, damage], ids=lambda f: f.__name__)
@pytest.mark.parametrize("restart", [False, True], ids=["", "and a restart"])
async def test_what_the_disk_loses_is_rendered_again(
    open_house: OpenHouse, happens: Callable[[Path], None], restart: bool
) -> None:
    """While the store is away."""
    async with AsyncExitStack() as stack:
        house = await stack.enter_async_context(open_house(**QUIET))
        await house.run("a", batch_size=3, seed=7)
        await house.quiet()
        away = True

        async def fails(key: str) -> None:
            if away:
                raise StoreUnavailable("away")

        staged(house, fails)
        await house.push("sdxl_queue", payload("b", batch_size=3, seed=7))
        await house.rendered("b")
        happens(house.root / "data" / "spool")
        with structlog.testing.capture_logs() as logs:
            if restart:
                house.kill()
                house = await stack.enter_async_context(open_house(**QUIET))
            away = False
            body = await house.ended("b")
        await house.quiet()
        assert "spool_lost" in {line["event"] for line in logs}
        assert body["status"] == "completed"
        assert stored(house, "b") == stored(house, "a")
        assert len(house.terminal(job_id("b"))) == 1
        assert house.service.health()["alarms"] == []


async def test_every_file_refused_fails_the_job(open_house: OpenHouse) -> None:
    async with open_house() as house:

        async def refuse(key: str) -> None:
            raise StoreRejected("413")

        staged(house, refuse)
        body = await house.run("a", batch_size=2)
        await house.quiet()
        assert body["status"] == "failed"
        assert body["metadata"]["error"]["code"] == "WORKER_UNAVAILABLE"
        assert body["metadata"]["failed_indices"] == [0, 1]
        assert await house.status("a") == "failed"
        assert house.terminal(job_id("a"))[0].headers["webhook-id"] == f"{job_id('a')}.failed"


async def test_a_thumbnail_that_is_refused_is_left_out(open_house: OpenHouse) -> None:
    async with open_house() as house:

        async def refuse(key: str) -> None:
            if key.endswith(".webp"):
                raise StoreRejected("415")

        staged(house, refuse)
        body = await house.run("a")
        await house.quiet()
        assert body["status"] == "completed"
        assert "thumbnail_url" not in body["assets"][0]


async def test_the_element_is_held_until_the_answer_is_there(
    open_house: OpenHouse, receiver: Receiver
) -> None:
    hold = Hold()
    async with open_house(**QUIET) as house:
        notifier = house.service.delivery.announcer.notifier
        assert notifier is not None
        notify = notifier.notify

        async def slow(event_id: str, body: bytes) -> Delivered:
            delivered = await notify(event_id, body)
            await hold.wait()
            return delivered

        notifier.notify = slow  # type: ignore[method-assign]
        await house.push("sdxl_queue", payload("a"))
        await hold.reached()
        assert await house.elements() == 1
        assert list(house.service.leases.held().values()) == [job_id("a")], "it is renewed"
        assert (house.root / "data" / "spool" / job_id("a")).is_dir()
        hold.release()
        await house.quiet()
        assert await house.elements() == 0


async def test_the_element_is_held_between_the_end_and_the_delivery(
    open_house: OpenHouse,
) -> None:
    hold = Hold()
    async with open_house(**QUIET) as house:
        get = house.service.journal.get

        async def held_up(id_: UUID) -> JobRecord | None:
            await hold.wait()
            return await get(id_)

        house.service.journal.get = held_up  # type: ignore[method-assign]
        await house.push("sdxl_queue", payload("a"))
        await hold.reached()
        assert list(house.service.leases.held().values()) == [job_id("a")]
        hold.release()
        await house.quiet()


async def test_a_newer_claim_holds_what_is_being_delivered(open_house: OpenHouse) -> None:
    hold = Hold()
    async with open_house(**QUIET) as house:
        staged(house, lambda _: hold.wait())
        await house.push("sdxl_queue", payload("a"))
        await hold.reached()
        await house.rendered("a")
        (first,) = house.service.leases.held()
        await house.source.hand_back(first)  # as the reaper does with an expired lease
        await house.push("sdxl_queue", payload("bad", steps=9999))
        await house.ended("bad")  # so the element before it has been dealt with
        with anyio.fail_after(LIMIT_SECONDS):
            while len(house.service.leases.held()) > 1:
                await turns()
        (second,) = house.service.leases.held()
        assert second != first
        assert await house.source.renew([second], 60) == frozenset()
        assert await house.elements() == 1
        hold.release()
        assert (await house.ended("a"))["status"] == "completed"
        await house.quiet()
        assert house.starts("a") == 3


async def test_a_job_that_is_cancelled_takes_its_alarms_along(open_house: OpenHouse) -> None:
    device = SteppedDevice()
    hold = device.hold("a", "decode", 2)
    async with open_house(device, **QUIET) as house:

        async def fails(key: str) -> None:
            raise StoreUnavailable("away")

        staged(house, fails)
        await house.push("sdxl_queue", payload("a", batch_size=3))
        await hold.reached()
        with anyio.fail_after(LIMIT_SECONDS):
            while house.service.health()["alarms"] != ["store_unavailable"]:
                await turns()
        await house.service.cancel(job_id("a"))
        hold.release()
        await house.ended("a")
        await house.quiet()
        with anyio.fail_after(LIMIT_SECONDS):  # an upload that is called off may be in a thread
            while house.service.health()["alarms"]:
                await turns()


async def test_too_much_that_is_undelivered_stops_the_claims(
    open_house: OpenHouse, receiver: Receiver
) -> None:
    hold = Hold()
    flags = {"callback.undelivered_max": 2, "queues.sdxl_queue.claims_max": 1}
    async with open_house(**QUIET, **flags) as house:
        staged(house, lambda _: hold.wait())
        for name in "abcd":
            await house.push("sdxl_queue", payload(name))
        await hold.reached()
        for name in "ab":
            await house.reached(name, "processing")
        while house.service.delivery.pending < 2 or house.service.roster.busy:
            await house.service.room.ticket.wait()
        assert await house.elements() == 4
        assert house.starts("c") == house.starts("d") == 0
        hold.release()
        for name in "abcd":
            assert (await house.ended(name))["status"] == "completed"
        await house.quiet()


async def test_what_nobody_foresaw_holds_one_delivery_back(open_house: OpenHouse) -> None:
    async with open_house(**QUIET) as house:
        defects = [TypeError("store")] * 3

        async def break_(key: str) -> None:
            if job_id("a") in key and defects:
                raise defects.pop()

        staged(house, break_)
        await house.push("sdxl_queue", payload("a"))
        await house.fine()
        assert (await house.ended("a"))["status"] == "completed"
        assert defects == []
        assert house.service.health()["alarms"] == [], "it is over"
