"""Upload, callback, acknowledgement: each retried until it is done, refused or given up."""

from __future__ import annotations

import shutil
import time
from collections.abc import Awaitable, Callable
from contextlib import AsyncExitStack
from email.utils import formatdate
from pathlib import Path
from typing import Any
from uuid import UUID

import anyio
import httpx
import pytest
import structlog
from support.house import LIMIT_SECONDS, House, OpenHouse, job_id, payload
from support.stage import Hold, StagedStore, SteppedDevice
from support.turns import turns

from ourvidz.adapters.receiver import Answer, Receiver
from ourvidz.ports import Delivered, JobRecord, StoreDenied, StoreRejected, StoreUnavailable
from ourvidz.service import parts

pytestmark = pytest.mark.anyio

QUIET = {"callback.progress": False}


async def fine(house: House, name: str = "other") -> None:
    assert (await house.run(name))["status"] == "completed"
    await house.quiet()


def staged(house: House, before_put: Callable[[str], Awaitable[None]]) -> StagedStore:
    store = StagedStore(house.root / "store")
    store.before_put = before_put
    house.service.delivery.uploads.store = store
    return store


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
        await fine(house)
        assert house.service.health()["alarms"] == []


async def test_callbacks_that_fail_ring_until_none_does(
    open_house: OpenHouse, receiver: Receiver
) -> None:
    receiver.reset([Answer(503)] * 2)
    flags = {"callback.retry_seconds_min": 600, "callback.retry_seconds_max": 600}
    async with open_house(**QUIET, **flags) as house:
        for name in "ab":
            await house.push("sdxl_queue", payload(name))
            await house.ended(name)
        assert (await house.run("c"))["status"] == "completed"
        with anyio.fail_after(LIMIT_SECONDS):
            while house.service.delivery.pending > 2:
                await turns()
        assert house.service.health()["alarms"] == ["callback_unavailable"]
        house.kill()
    async with open_house(**QUIET) as house:
        await house.quiet()
        assert house.service.health()["alarms"] == []
        assert [len(house.terminal(job_id(name))) for name in "abc"] == [2, 2, 1]


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


async def test_a_callback_is_repeated_under_the_same_id(
    open_house: OpenHouse, receiver: Receiver
) -> None:
    receiver.reset(
        [
            Answer(500),
            Answer(429, headers={"Retry-After": "0"}),
            Answer(503, headers={"Retry-After": "nonsense"}),
            Answer(408, body=b"<html>"),
        ]
    )
    async with open_house(**QUIET) as house:
        await house.push("sdxl_queue", payload("a"))
        with anyio.fail_after(20):
            await receiver.until(lambda seen: len(seen) == 5)
        await house.quiet()
        callbacks = house.terminal(job_id("a"))
        assert [c.answered for c in callbacks] == [500, 429, 503, 408, 200]
        assert {c.headers["webhook-id"] for c in callbacks} == {f"{job_id('a')}.completed"}
        assert len({c.raw for c in callbacks}) == 1
        assert all(c.signature_valid for c in callbacks)
        assert house.service.health()["alarms"] == []


@pytest.mark.parametrize(
    ("asked", "least", "most"),
    [
        ("3", 3, 3),
        ("0", 0.5, 1),
        ("99999", 3600, 3600),
        ("in half an hour", 60, 1800),
    ],
)
async def test_the_receivers_time_to_wait_is_kept(
    open_house: OpenHouse,
    receiver: Receiver,
    monkeypatch: pytest.MonkeyPatch,
    asked: str,
    least: float,
    most: float,
) -> None:
    if asked == "in half an hour":
        asked = formatdate(time.time() + 1800, usegmt=True)
    receiver.reset([Answer(429, headers={"Retry-After": asked})])
    slept: list[float] = []

    async def sleep(seconds: float) -> None:
        slept.append(seconds)

    monkeypatch.setattr("stamina._core._smart_sleep", sleep)
    pauses = {"callback.retry_seconds_min": 0.5, "callback.retry_seconds_max": 1}
    async with open_house(**QUIET, **pauses) as house:
        await house.push("sdxl_queue", payload("a"))
        with anyio.fail_after(20):
            await receiver.until(lambda seen: len(seen) == 2)
        await house.quiet()
        (pause,) = slept
        assert least <= pause <= most


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


@pytest.mark.parametrize("answer", [401, 400, 404])
async def test_a_refused_callback_is_parked_with_an_alarm(
    open_house: OpenHouse, receiver: Receiver, answer: int
) -> None:
    receiver.reset([Answer(answer)])
    async with open_house(**QUIET) as house:
        await house.run("a")
        await house.quiet()
        assert len(house.terminal(job_id("a"))) == 1
        health = house.service.health()
        assert (health["alarms"], health["parked_callbacks"]) == (["parked_callbacks"], 1)
        record = await house.service.journal.get(UUID(job_id("a")))
        assert record is not None
        assert (record.parked, record.undelivered) == (True, False)
        assert await house.status("a") == "completed"
        await fine(house)
    async with open_house(**QUIET) as house:
        assert house.service.health()["alarms"] == ["parked_callbacks"], "also after a restart"
        await house.quiet()
        assert len(house.terminal(job_id("a"))) == 1


@pytest.mark.parametrize("restart", [False, True])
async def test_a_parked_callback_is_sent_once_more(
    open_house: OpenHouse, receiver: Receiver, restart: bool
) -> None:
    receiver.reset([Answer(401)] * 2)
    async with AsyncExitStack() as stack:
        house = await stack.enter_async_context(open_house(**QUIET))
        await house.run("a")
        await house.run("bad", steps=9999)
        await house.quiet()
        if restart:
            await stack.aclose()
            house = await stack.enter_async_context(open_house(**QUIET))
        parked = await house.service.parked_callbacks(10)
        assert [(p["job_id"], p["attempts"]) for p in parked] == [
            (job_id(name), 1) for name in ("a", "bad")
        ]
        assert "401" in parked[0]["error"]
        assert await house.service.retry_callbacks([parked[1]["event_id"]], 10) == 1
        await house.quiet()
        assert house.service.health()["parked_callbacks"] == 1
        assert await house.service.retry_callbacks(None, 10) == 1
        await house.quiet()
        assert house.service.health()["alarms"] == []
        assert await house.service.retry_callbacks(None, 10) == 0
        for name in ("a", "bad"):
            first, second = house.terminal(job_id(name))
            assert first.headers["webhook-id"] == second.headers["webhook-id"]
            assert first.body == second.body
        ended = house.service.metrics.registry.get_sample_value
        labels = {"type": "sdxl_generate", "status": "completed"}
        assert ended("ourvidz_jobs_ended_total", labels) == 1


async def test_a_retry_waits_for_a_delivery_that_is_under_way(
    open_house: OpenHouse, receiver: Receiver
) -> None:
    """Its answer was given up, and its element is being acknowledged."""
    receiver.reset([Answer(401)])
    async with open_house(**QUIET) as house:
        hold, acknowledge = Hold(), house.source.acknowledge

        async def slow(claim_id: str) -> None:
            await hold.wait()
            await acknowledge(claim_id)

        house.source.acknowledge = slow  # type: ignore[method-assign]
        await house.push("sdxl_queue", payload("a"))
        await hold.reached()
        assert await house.service.retry_callbacks(None, 10) == 1
        await house.barrier()
        assert len(house.terminal(job_id("a"))) == 1
        hold.release()
        with anyio.fail_after(LIMIT_SECONDS):
            await receiver.until(lambda _: len(house.terminal(job_id("a"))) == 2)
        await house.quiet()
        assert house.service.health()["alarms"] == []
        assert house.service.health()["parked_callbacks"] == 0


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
        assert house.service.health()["alarms"] == []


async def test_a_callback_is_given_up_after_so_many_attempts(
    open_house: OpenHouse, receiver: Receiver
) -> None:
    receiver.reset([Answer(503)] * 4)
    async with open_house(**QUIET, **{"callback.attempts_max": 4}) as house:
        await house.push("sdxl_queue", payload("a"))
        with anyio.fail_after(20):
            await receiver.until(lambda seen: len(seen) == 4)
        await house.quiet()
        await fine(house)
        assert len(house.terminal(job_id("a"))) == 4
        assert house.service.health()["parked_callbacks"] == 1


async def test_nobody_listens(open_house: OpenHouse, receiver: Receiver) -> None:
    """A receiver that is down when the job ends and up again later."""
    async with open_house(**QUIET, **{"callback.attempts_max": 1000}) as house:
        notifier: Any = house.service.delivery.announcer.notifier
        url, notifier._url = notifier._url, httpx.URL("http://127.0.0.1:9/")
        await house.push("sdxl_queue", payload("a"))
        await house.reached("a", "completed")
        notifier._url = url
        assert (await house.ended("a"))["status"] == "completed"
        await house.quiet()


async def test_no_receiver_is_configured(open_house: OpenHouse, receiver: Receiver) -> None:
    async with open_house(url="") as house:
        await house.push("sdxl_queue", payload("a"))
        await house.push("sdxl_queue", payload("bad", steps=9999))
        await house.reached("a", "completed")
        await house.quiet()
        assert await house.status("bad") == "failed"
        assert receiver.callbacks == ()


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
        await fine(house)
        assert (await house.ended("a"))["status"] == "completed"
        assert defects == []
        assert house.service.health()["alarms"] == [], "it is over"


async def test_progress_is_told_while_a_job_runs(open_house: OpenHouse, receiver: Receiver) -> None:
    device = SteppedDevice()
    holds = [device.hold("a", "denoise", step) for step in (1, 3)]
    async with open_house(device, **{"callback.progress_seconds": 0.001}) as house:
        await house.push("sdxl_queue", payload("a"))
        for hold in holds:
            await hold.reached()
            seen = len(receiver.callbacks)
            with anyio.fail_after(20):
                await receiver.until(lambda callbacks, seen=seen: len(callbacks) > seen)
            hold.release()
        await house.ended("a")
        await house.quiet()
        told = [c for c in receiver.callbacks if c.status == "processing"]
        assert receiver.callbacks[-1].status == "completed", "no report after the end"
        shares = [c.body["metadata"]["progress"] for c in told]
        assert shares == sorted(shares)
        assert len({c.headers["webhook-id"] for c in told}) == len(told)
        assert all(c.signature_valid for c in told)


async def test_progress_that_cannot_be_told_harms_nobody(
    open_house: OpenHouse, receiver: Receiver
) -> None:
    receiver.reset([Answer(401)])
    async with open_house() as house:
        await house.push("sdxl_queue", payload("a"))
        await house.ended("a")
        await house.quiet()
        assert await house.status("a") == "completed"
        assert house.service.health()["alarms"] == []
        notifier = house.service.intake.flow.parts.reporter.notifier
        assert notifier is not None
        notify = notifier.notify

        async def broken(event_id: str, body: bytes) -> Delivered:
            if "processing" in event_id:
                raise TypeError("defect")
            return await notify(event_id, body)

        notifier.notify = broken  # type: ignore[method-assign]
        await fine(house)


@pytest.mark.usefixtures("quick_retries")
async def test_a_reference_that_is_denied_fails_its_job(open_house: OpenHouse) -> None:
    """Some stores say so of what is absent: it may be this one alone."""
    async with open_house(**QUIET) as house:

        async def get(_: str) -> None:
            raise StoreDenied("403")

        store: Any = StagedStore(house.root / "store")
        store.before_get = get
        fetcher: Any = house.service.intake.flow.parts.references
        fetcher._others._store = store
        body = await house.run("a", reference_image="workspace-temp/u/j/0.png")
        assert body["metadata"]["error"]["code"] == "REFERENCE_FRAME_ERROR"
        await fine(house)


@pytest.mark.usefixtures("quick_retries")
async def test_a_reference_waits_for_a_store_that_is_away(
    open_house: OpenHouse, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(parts, "_STORE_SECONDS", 0.001)
    async with open_house(**QUIET) as house:
        made = await house.run("made")
        await house.quiet()
        away, asked = True, 0

        async def get(_: str) -> None:
            nonlocal asked
            asked += 1
            if away:
                raise StoreUnavailable("503")

        store: Any = StagedStore(house.root / "store")
        store.before_get = get
        fetcher: Any = house.service.intake.flow.parts.references
        fetcher._others._store = store
        reference = f"workspace-temp/{made['assets'][0]['url']}"
        await house.push("sdxl_queue", payload("a", reference_image=reference))
        with anyio.fail_after(LIMIT_SECONDS):
            while asked < 10:
                await turns()
        assert house.service.health()["alarms"] == ["store_unavailable"]
        assert (await house.run("b"))["status"] == "completed", "others go on"
        assert house.service.health()["alarms"] == ["store_unavailable"]
        away = False
        assert (await house.ended("a"))["status"] == "completed"
        await house.quiet()
        assert house.service.health()["alarms"] == []


@pytest.mark.usefixtures("quick_retries")
async def test_a_job_whose_reference_is_waited_for_can_be_cancelled(
    open_house: OpenHouse, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(parts, "_STORE_SECONDS", 600)
    async with open_house(**QUIET) as house:

        async def get(_: str) -> None:
            raise StoreUnavailable("503")

        store: Any = StagedStore(house.root / "store")
        store.before_get = get
        fetcher: Any = house.service.intake.flow.parts.references
        fetcher._others._store = store
        await house.push("sdxl_queue", payload("a", reference_image="workspace-temp/u/j/0.png"))
        with anyio.fail_after(LIMIT_SECONDS):
            while house.service.health()["alarms"] != ["store_unavailable"]:
                await turns()
        await house.service.cancel(job_id("a"))
        assert (await house.ended("a"))["metadata"]["error"]["code"] == "CANCELLED"
        await house.quiet()
        assert house.service.health()["alarms"] == []
