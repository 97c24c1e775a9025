"""A drain claims nothing more, lets what runs finish within its deadline, hands the rest back."""

from __future__ import annotations

from pathlib import Path

import anyio
import pytest
from support.house import LIMIT_SECONDS, House, OpenHouse, job_id, payload, settings_for, starts
from support.stage import Hold, StagedStore, SteppedDevice

from ourvidz.adapters.device_fake import FakeDevice
from ourvidz.adapters.receiver import Answer, Receiver
from ourvidz.app import open_service
from ourvidz.jobs import JobState
from ourvidz.ports import Claimed

pytestmark = pytest.mark.anyio

QUIET = {"callback.progress": False}
HURRIED = {"service.drain_seconds": 0.02}
FREE = "SELECT count(*) FROM queue_items WHERE claim_id IS NULL AND lease_until IS NULL"


async def handed_back(house: House, *names: str) -> None:
    """The jobs are queued as if nothing had happened, and nothing else is left."""
    for name in names:
        assert await house.state(name) is JobState.QUEUED
        assert house.terminal(job_id(name)) == []
    free = await house._database(lambda c: c.execute(FREE).fetchone()[0])
    assert free == await house.elements() == len(names)
    assert await house.attempts() == [0] * len(names), "a drain is no attempt"
    snapshot = house.service.engine.snapshot()
    assert set(snapshot["ledger"]["device"]["by"]) <= {"weights"}


async def finishes(open_house: OpenHouse, *names: str) -> None:
    """A restart does what is left, in order."""
    device = FakeDevice()
    async with open_house(device) as house:
        for name in names:
            assert (await house.ended(name))["status"] == "completed"
            assert starts(device, name) == 3
        await house.quiet()
        for name in names:
            job = await house.job(name)
            assert job is not None
            assert len(house.terminal(job_id(name))) == 1


async def test_nothing_to_do_ends_at_once(open_house: OpenHouse) -> None:
    async with open_house() as house:
        house.service.stop()
        house.service.stop()
        await house.drained()
        assert house.service.health()["status"] == "draining"


async def test_a_stop_before_the_start(receiver: Receiver, tmp_path: Path) -> None:
    async with open_service(settings_for(tmp_path, receiver.url), FakeDevice()) as service:
        service.stop()
        with anyio.fail_after(LIMIT_SECONDS):
            await service.run()
        assert service.health()["status"] == "draining"


async def test_what_runs_finishes_and_what_waits_goes_back(open_house: OpenHouse) -> None:
    device = SteppedDevice()
    hold = device.hold("running", "denoise", 2)
    async with open_house(device) as house:
        await house.push("sdxl_queue", payload("running"))
        await hold.reached()
        for name in ("one", "two"):
            await house.push("sdxl_queue", payload(name))
            await house.reached(name, "queued")
        await house.drain()
        await house.service.submit(payload("three"))
        while len(house.service.roster) > 1:
            await house.service.room.ticket.wait()
        assert not house.stopped.is_set()
        hold.release()
        assert (await house.ended("running"))["status"] == "completed"
        await house.drained()
        await handed_back(house, "one", "two", "three")
    await finishes(open_house, "one", "two", "three")


async def test_what_outlasts_the_deadline_goes_back(open_house: OpenHouse) -> None:
    device = SteppedDevice()
    device.hold("a", "denoise", 2)
    async with open_house(device, **HURRIED) as house:
        await house.push("sdxl_queue", payload("a"))
        await house.reached("a", "processing")
        await house.drain()
        await house.drained()
        await handed_back(house, "a")
    await finishes(open_house, "a")


async def test_a_chain_goes_on_to_its_second_part(open_house: OpenHouse) -> None:
    device = SteppedDevice()
    hold = device.hold("a", "generate", 2)
    async with open_house(device) as house:
        await house.push("sdxl_queue", payload("a", enhance="base"))
        await hold.reached()
        await house.drain()
        hold.release()
        assert (await house.ended("a"))["status"] == "completed"
        await house.drained()
        assert await house.elements() == 0


async def test_a_claim_that_is_under_way_is_not_lost(open_house: OpenHouse) -> None:
    hold = Hold()
    async with open_house() as house:
        await house.run("before")
        await house.quiet()
        claim = house.source.claim

        async def slow(queue: str, claim_id: str, lease_seconds: float) -> Claimed | None:
            claimed = await claim(queue, claim_id, lease_seconds)
            if claimed is not None:
                await hold.wait()
            return claimed

        house.source.claim = slow  # type: ignore[method-assign]
        await house.push("sdxl_queue", payload("a"))
        await hold.reached()
        await house.drain()
        assert not house.stopped.is_set()
        hold.release()
        await house.drained()
        await handed_back(house, "a")
    await finishes(open_house, "a")


async def test_a_job_goes_back_while_another_element_of_it_is_claimed(
    open_house: OpenHouse,
) -> None:
    device, claiming, handing = SteppedDevice(), Hold(), Hold()
    running = device.hold("running", "denoise")
    async with open_house(device) as house:
        await house.push("sdxl_queue", payload("running"))
        await running.reached()
        await house.push("sdxl_queue", payload("a"))
        await house.reached("a", "queued")
        claim, hand_back = house.source.claim, house.source.hand_back

        async def slow_claim(queue: str, claim_id: str, lease_seconds: float) -> Claimed | None:
            claimed = await claim(queue, claim_id, lease_seconds)
            if claimed is not None:
                await claiming.wait()
            return claimed

        async def slow_hand_back(claim_id: str) -> None:
            await handing.wait()
            await hand_back(claim_id)

        house.source.claim = slow_claim  # type: ignore[method-assign]
        house.source.hand_back = slow_hand_back  # type: ignore[method-assign]
        await house.push("sdxl_queue", payload("a"))
        await claiming.reached()
        await house.drain()
        await handing.reached()
        assert await house.state("a") is JobState.QUEUED
        claiming.release()
        await house.barrier()
        handing.release()
        running.release()
        await house.drained()
        assert await house.state("a") is JobState.QUEUED
        assert await house.elements() == 2
    await finishes(open_house, "a")


async def test_a_job_that_waits_for_its_reference_goes_back(open_house: OpenHouse) -> None:
    hold = Hold()
    async with open_house() as house:
        made = await house.run("made")
        await house.quiet()
        store = StagedStore(house.root / "store")
        store.before_get = lambda _: hold.wait()
        house.service.intake.flow.parts.references._others._store = store
        reference = f"workspace-temp/{made['assets'][0]['url']}"
        await house.push("sdxl_queue", payload("a", reference_image=reference))
        await hold.reached()
        await house.drain()
        await house.drained()
        await handed_back(house, "a")
    await finishes(open_house, "a")


async def test_a_job_that_is_cancelled_meanwhile_does_not_go_back(open_house: OpenHouse) -> None:
    device = SteppedDevice()
    hold = device.hold("running", "denoise", 2)
    async with open_house(device) as house:
        await house.push("sdxl_queue", payload("running"))
        await hold.reached()
        await house.drain()
        await house.service.cancel(job_id("running"))
        assert (await house.ended("running"))["metadata"]["error"]["code"] == "CANCELLED"
        await house.drained()
        assert await house.state("running") is JobState.CANCELLED
        assert await house.elements() == 0


async def test_a_user_overrules_the_drain(open_house: OpenHouse) -> None:
    """The drain has asked the job to stop so as to hand it back; the user does not want it."""
    device = SteppedDevice()
    hold = Hold()
    async with open_house(device) as house:
        forget = device.plan

        async def slow(part: object) -> object:
            await hold.wait()
            return await forget(part)  # type: ignore[arg-type]

        device.plan = slow  # type: ignore[method-assign, assignment]
        await house.push("sdxl_queue", payload("a"))
        await hold.reached()
        await house.drain()
        await house.service.cancel(job_id("a"))
        hold.release()
        assert (await house.ended("a"))["metadata"]["error"]["code"] == "CANCELLED"
        await house.drained()
        assert await house.elements() == 0


async def test_a_job_is_cancelled_after_the_drain(open_house: OpenHouse) -> None:
    """The API listens to the very end; the answer is owed to the next start."""
    async with open_house() as house:
        await house.drain()
        await house.drained()
        await house.service.submit(payload("a"))
        record = await house.service.cancel(job_id("a"))
        assert record is not None
        assert record.state is JobState.CANCELLED
        assert house.receiver.callbacks == ()
    async with open_house() as house:
        assert (await house.ended("a"))["metadata"]["error"]["code"] == "CANCELLED"
        await house.quiet()


async def test_what_is_undelivered_at_the_deadline_is_owed(
    open_house: OpenHouse, receiver: Receiver
) -> None:
    receiver.reset([Answer(503)])
    later = {"callback.retry_seconds_min": 600, "callback.retry_seconds_max": 600}
    async with open_house(**QUIET, **HURRIED, **later) as house:
        await house.push("sdxl_queue", payload("a"))
        with anyio.fail_after(20):
            await receiver.until(lambda seen: len(seen) == 1)
        await house.drain()
        await house.drained()
        assert await house.state("a") is JobState.COMPLETED
        assert await house.elements() == 1
    second = FakeDevice()
    async with open_house(second, **QUIET) as house:
        with anyio.fail_after(20):
            await receiver.until(lambda seen: len(seen) == 2)
        await house.quiet()
        assert starts(second, "a") == 0
