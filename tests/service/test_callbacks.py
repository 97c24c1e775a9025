"""What a receiver is told, and what becomes of it where it refuses, is busy or is not there."""

from __future__ import annotations

import time
from contextlib import AsyncExitStack
from email.utils import formatdate
from typing import Any

import anyio
import httpx
import pytest
from support.house import LIMIT_SECONDS, OpenHouse, job_id, payload
from support.stage import Hold, SteppedDevice
from support.turns import turns

from ourvidz.adapters.receiver import Answer, Receiver
from ourvidz.ports import Delivered

pytestmark = pytest.mark.anyio

QUIET = {"callback.progress": False}


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
        assert [p["job_id"] for p in await house.service.parked_callbacks(10)] == [job_id("a")]
        assert await house.service.journal.answers() == []
        assert await house.status("a") == "completed"
        await house.fine()
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


async def test_a_callback_is_given_up_after_so_many_attempts(
    open_house: OpenHouse, receiver: Receiver
) -> None:
    receiver.reset([Answer(503)] * 4)
    async with open_house(**QUIET, **{"callback.attempts_max": 4}) as house:
        await house.push("sdxl_queue", payload("a"))
        with anyio.fail_after(20):
            await receiver.until(lambda seen: len(seen) == 4)
        await house.quiet()
        await house.fine()
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
        await house.fine()
