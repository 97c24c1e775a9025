"""The service is cut off at named points and opened again on the same data directory: each job
completes once in effect, with the same bytes, and nothing that was rendered is inferred again."""

from __future__ import annotations

import hashlib
import shutil
from collections.abc import Mapping
from typing import Any

import anyio
import pytest
from support.house import House, OpenHouse, job_id, payload, starts
from support.stage import Hold, StagedStore, SteppedDevice
from support.turns import turns

from ourvidz.adapters.device_fake import FakeDevice
from ourvidz.adapters.receiver import Answer, Receiver
from ourvidz.jobs import JobState

pytestmark = pytest.mark.anyio

QUIET = {"callback.progress": False}
LATER = {**QUIET, "callback.retry_seconds_min": 600, "callback.retry_seconds_max": 600}
ALL = 3  # phases of an image job


async def undisturbed(open_house: OpenHouse, tmp_path: Any, **fields: Any) -> list[str]:
    """The files' digests, as the job gives them where nothing happens."""
    async with open_house(root=tmp_path / "undisturbed") as house:
        body = await house.run("a", **fields)
        await house.quiet()
        house.receiver.reset()
        return digests(house, body)


def digests(house: House, body: Mapping[str, Any]) -> list[str]:
    store = house.root / "store" / "workspace-temp"
    files = [(store / asset["url"]).read_bytes() for asset in body["assets"]]
    return [hashlib.sha256(file).hexdigest() for file in files]


async def completes(house: House, expected: list[str]) -> None:
    body = await house.ended("a")
    await house.quiet()
    assert body["status"] == "completed"
    assert digests(house, body) == expected
    assert {c.headers["webhook-id"] for c in house.terminal(job_id("a"))} == {
        f"{job_id('a')}.completed"
    }
    assert await house.status("a") == "completed"
    assert await house.dead_letters() == []


@pytest.mark.parametrize(("phase", "step"), [("encode", 0), ("denoise", 2), ("decode", 2)])
async def test_cut_off_while_it_runs(
    open_house: OpenHouse, tmp_path: Any, phase: str, step: int
) -> None:
    expected = await undisturbed(open_house, tmp_path, batch_size=3, seed=9)
    device = SteppedDevice()
    hold = device.hold("a", phase, step)
    async with open_house(device) as house:
        await house.push("sdxl_queue", payload("a", batch_size=3, seed=9))
        await hold.reached()
        assert await house.state("a") is JobState.RUNNING
        house.kill()
    second = FakeDevice()
    async with open_house(second) as house:
        await completes(house, expected)
        assert starts(second, "a") == ALL
        job = await house.job("a")
        assert job is not None
        assert job["metrics"]["attempts"] == 2
        assert len(house.terminal(job_id("a"))) == 1


async def test_cut_off_before_it_was_begun(open_house: OpenHouse, tmp_path: Any) -> None:
    expected = await undisturbed(open_house, tmp_path)
    device = SteppedDevice()
    hold = device.hold("first", "denoise")
    async with open_house(device) as house:
        await house.push("sdxl_queue", payload("first"))
        await hold.reached()
        await house.push("sdxl_queue", payload("a"))
        await house.reached("a", "queued")
        house.kill()
    async with open_house() as house:
        await house.ended("first")
        await completes(house, expected)


async def test_cut_off_between_the_parts_of_a_chain(open_house: OpenHouse, tmp_path: Any) -> None:
    expected = await undisturbed(open_house, tmp_path, enhance="base", seed=2)
    device = SteppedDevice()
    hold = device.hold("a", "denoise", 1)
    async with open_house(device) as house:
        await house.push("sdxl_queue", payload("a", enhance="base", seed=2))
        await hold.reached()
        house.kill()
    async with open_house() as house:
        await completes(house, expected)


async def test_cut_off_before_its_files_are_stored(open_house: OpenHouse, tmp_path: Any) -> None:
    expected = await undisturbed(open_house, tmp_path, batch_size=2)
    hold = Hold()
    async with open_house() as house:
        store = StagedStore(house.root / "store")

        async def second_file(key: str) -> None:
            if key.endswith("1.png"):
                await hold.wait()

        store.before_put = second_file
        house.service.delivery.uploads.store = store
        await house.push("sdxl_queue", payload("a", batch_size=2))
        await hold.reached()
        await house.rendered("a")
        house.kill()
    second = FakeDevice()
    async with open_house(second) as house:
        await completes(house, expected)
        assert starts(second, "a") == 0, "what is rendered is not inferred again"


async def test_cut_off_before_it_is_announced(
    open_house: OpenHouse, receiver: Receiver, tmp_path: Any
) -> None:
    expected = await undisturbed(open_house, tmp_path)
    receiver.reset([Answer(503)])
    async with open_house(**LATER) as house:
        await house.push("sdxl_queue", payload("a"))
        with anyio.fail_after(20):
            await receiver.until(lambda seen: len(seen) == 1)
        assert await house.state("a") is JobState.COMPLETED
        house.kill()
    second = FakeDevice()
    async with open_house(second) as house:
        with anyio.fail_after(20):
            await receiver.until(lambda seen: len(seen) == 2)
        await completes(house, expected)
        assert starts(second, "a") == 0
        assert len({c.raw for c in receiver.callbacks}) == 1


async def test_cut_off_before_the_acknowledgement_is_noted(
    open_house: OpenHouse, receiver: Receiver, tmp_path: Any
) -> None:
    expected = await undisturbed(open_house, tmp_path)
    hold = Hold()
    async with open_house(**QUIET) as house:
        house.service.journal.answered = lambda _: hold.wait()  # type: ignore[method-assign]
        await house.push("sdxl_queue", payload("a"))
        await hold.reached()
        house.kill()
    second = FakeDevice()
    async with open_house(second, **QUIET) as house:
        with anyio.fail_after(20):
            await receiver.until(lambda seen: len(seen) == 2)
        await completes(house, expected)
        assert starts(second, "a") == 0
        first, again = house.terminal(job_id("a"))
        assert first.headers["webhook-id"] == again.headers["webhook-id"]
        assert first.raw == again.raw


async def test_cut_off_before_its_element_is_dropped(open_house: OpenHouse, tmp_path: Any) -> None:
    expected = await undisturbed(open_house, tmp_path)
    hold = Hold()
    async with open_house(**QUIET) as house:
        house.source.acknowledge = lambda _: hold.wait()  # type: ignore[method-assign]
        await house.push("sdxl_queue", payload("a"))
        await hold.reached()
        house.kill()
    second = FakeDevice()
    async with open_house(second, **QUIET) as house:
        await completes(house, expected)
        assert starts(second, "a") == 0
        assert len(house.terminal(job_id("a"))) == 1


@pytest.mark.parametrize("lost", ["spool", "one file", "cut short", "damaged"])
async def test_files_that_are_gone_are_made_again(
    open_house: OpenHouse, tmp_path: Any, lost: str
) -> None:
    expected = await undisturbed(open_house, tmp_path, batch_size=2)
    hold = Hold()
    async with open_house() as house:
        store = StagedStore(house.root / "store")
        store.before_put = lambda _: hold.wait()
        house.service.delivery.uploads.store = store
        await house.push("sdxl_queue", payload("a", batch_size=2))
        await hold.reached()
        await house.rendered("a")
        house.kill()
    folder = tmp_path / "data" / "spool" / job_id("a")
    assert len(list(folder.iterdir())) == 4
    if lost == "spool":
        shutil.rmtree(folder.parent)
    elif lost == "one file":
        (folder / "1.png").unlink()
    elif lost == "cut short":
        (folder / "0.png").write_bytes(b"")
    else:
        content = bytearray((folder / "0.png").read_bytes())
        content[-20] ^= 1
        (folder / "0.png").write_bytes(content)
    second = FakeDevice()
    async with open_house(second) as house:
        await completes(house, expected)
        assert starts(second, "a") == ALL


async def test_a_thumbnail_that_is_gone_is_not_worth_a_run(
    open_house: OpenHouse, tmp_path: Any
) -> None:
    hold = Hold()
    async with open_house() as house:
        store = StagedStore(house.root / "store")
        store.before_put = lambda _: hold.wait()
        house.service.delivery.uploads.store = store
        await house.push("sdxl_queue", payload("a"))
        await hold.reached()
        await house.rendered("a")
        house.kill()
    (tmp_path / "data" / "spool" / job_id("a") / "0.thumb.webp").unlink()
    second = FakeDevice()
    async with open_house(second) as house:
        body = await house.ended("a")
        await house.quiet()
        assert (body["status"], starts(second, "a")) == ("completed", 0)
        assert "thumbnail_url" not in body["assets"][0]


async def test_folders_that_nobody_needs_are_swept(open_house: OpenHouse, tmp_path: Any) -> None:
    for name in ("left", job_id("never")):
        (tmp_path / "data" / "spool" / name).mkdir(parents=True)
        (tmp_path / "data" / "spool" / name / "0.png").write_bytes(b"x")
    async with open_house() as house:
        await house.quiet()


async def test_a_job_whose_runs_are_cut_off_is_given_up(open_house: OpenHouse) -> None:
    """It may be what kills the process."""
    for attempt in range(3):
        device = SteppedDevice()
        hold = device.hold("a", "denoise")
        async with open_house(device, **{"intake.attempts_max": 3}) as house:
            if attempt == 0:
                await house.push("sdxl_queue", payload("a"))
            await hold.reached()
            assert await house.attempts() == [attempt + 1]
            house.kill()
    last = FakeDevice()
    async with open_house(last, **{"intake.attempts_max": 3}) as house:
        body = await house.ended("a")
        await house.quiet()
        assert body["status"] == "failed"
        assert "3 runs were cut off" in body["error_message"]
        assert starts(last, "a") == 0
        assert len(await house.dead_letters()) == 1
        assert await house.status("a") == "failed"
        assert len(house.terminal(job_id("a"))) == 1


@pytest.mark.parametrize("answered", [False, True], ids=["not answered yet", "answered"])
async def test_a_job_that_was_given_up_becomes_a_dead_letter_after_a_crash(
    open_house: OpenHouse, receiver: Receiver, answered: bool
) -> None:
    once = {**LATER, "intake.attempts_max": 1}
    device = SteppedDevice()
    run, letter = device.hold("a", "denoise"), Hold()
    async with open_house(device, **once) as house:
        await house.push("sdxl_queue", payload("a"))
        await run.reached()
        house.kill()
    receiver.reset([] if answered else [Answer(503)])
    async with open_house(**once) as house:
        house.source.dead_letter = lambda *_: letter.wait()  # type: ignore[method-assign]
        with anyio.fail_after(20):
            await receiver.until(lambda seen: len(seen) == 1)
        if answered:
            await letter.reached()
        assert await house.elements() == 1, "another worker would find it"
        house.kill()
    async with open_house(**once) as house:
        await house.ended("a")
        await house.quiet()
        assert len(house.terminal(job_id("a"))) == 2 - answered
        assert len(await house.dead_letters()) == 1


async def test_a_cancelled_job_stays_cancelled(open_house: OpenHouse, receiver: Receiver) -> None:
    receiver.reset([Answer(503)])
    async with open_house(**LATER) as house:
        await house.service.submit(payload("a"))
        await house.service.cancel(job_id("a"))
        with anyio.fail_after(20):
            await receiver.until(lambda seen: len(seen) == 1)
        house.kill()
    async with open_house(**QUIET) as house:
        with anyio.fail_after(20):
            await receiver.until(lambda seen: len(seen) == 2)
        await house.quiet()
        assert await house.status("a") == "cancelled"
        assert {c.body["status"] for c in receiver.callbacks} == {"failed"}
        assert len({c.headers["webhook-id"] for c in receiver.callbacks}) == 1


async def test_an_invalid_job_is_held_until_it_is_answered(
    open_house: OpenHouse, receiver: Receiver
) -> None:
    """Whoever takes over when this worker is gone for good would find nothing to answer."""
    receiver.reset([Answer(503)])
    async with open_house(**LATER) as house:
        await house.push("sdxl_queue", payload("bad", steps=9999))
        with anyio.fail_after(20):
            await receiver.until(lambda seen: len(seen) == 1)
        (claim,) = house.service.leases.held()
        await house.source.hand_back(claim)  # as the reaper does with an expired lease
        with anyio.fail_after(20):
            while list(house.service.leases.held()) == [claim]:
                await turns()
        await house.push("sdxl_queue", payload("bad", steps=9999))  # one of them is enough
        with anyio.fail_after(20):
            while not await house.dead_letters():
                await turns()
        assert await house.elements() == 1
        house.kill()
    async with open_house(**QUIET) as house:
        await house.ended("bad")
        with anyio.fail_after(20):
            await receiver.until(lambda seen: len(seen) == 2)
        await house.quiet()
        first, again = house.terminal(job_id("bad"))
        assert (first.raw, first.headers["webhook-id"]) == (again.raw, again.headers["webhook-id"])
        assert len(await house.dead_letters()) == 2


async def test_an_invalid_job_becomes_a_dead_letter_after_a_crash(open_house: OpenHouse) -> None:
    hold = Hold()
    async with open_house(**QUIET) as house:
        house.source.dead_letter = lambda *_: hold.wait()  # type: ignore[method-assign]
        await house.push("sdxl_queue", payload("bad", steps=9999))
        await hold.reached()
        house.kill()
    async with open_house(**QUIET) as house:
        await house.quiet()
        assert len(house.terminal(job_id("bad"))) == 1
        assert len(await house.dead_letters()) == 1


async def test_a_submission_that_reached_only_the_queue_is_run(open_house: OpenHouse) -> None:
    async with open_house() as house:
        house.service.intake.stop()
        await house.push("sdxl_queue", payload("a"))  # the crash came before the journal's row
        house.kill()
    async with open_house() as house:
        record, _ = await house.service.submit(payload("a"))
        assert record.state.status in ("queued", "processing", "completed")
        await house.ended("a")
        await house.quiet()
        assert house.starts("a") == ALL
