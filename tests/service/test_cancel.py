"""A cancel at every point of a job's life: one terminal callback, every byte free, nothing held."""

from __future__ import annotations

from uuid import UUID

import anyio
import pytest
from support.house import House, OpenHouse, job_id, payload
from support.stage import Hold, StagedStore, SteppedDevice

from ourvidz.adapters.receiver import Answer, Receiver
from ourvidz.adapters.spool import SpoolRenderer
from ourvidz.jobs import Asset, JobState
from ourvidz.ports import ImageProduced, Part
from ourvidz.service.service import TooLate

pytestmark = pytest.mark.anyio


async def cancelled(house: House, name: str) -> None:
    """The job has ended as cancelled, told once, and is as good as never there."""
    body = await house.ended(name)
    await house.quiet()
    assert body["status"] == "failed"
    assert body["metadata"]["error"]["code"] == "CANCELLED"
    assert body["assets"] == []
    assert len(house.terminal(job_id(name))) == 1
    assert await house.status(name) == "cancelled"
    again = await house.service.cancel(job_id(name))
    assert again is not None, "repeating is harmless"
    assert again.state is JobState.CANCELLED
    assert len(house.terminal(job_id(name))) == 1
    events = house.service.events.get(UUID(job_id(name)))
    assert events is not None
    assert events.ended


async def others_go_on(house: House) -> None:
    assert (await house.run("other"))["status"] == "completed"
    await house.quiet()


async def test_an_unknown_id_is_none(open_house: OpenHouse) -> None:
    async with open_house() as house:
        assert await house.service.cancel(job_id("never")) is None
        assert await house.service.cancel("no uuid") is None


async def test_queued_and_unclaimed(open_house: OpenHouse) -> None:
    device = SteppedDevice()
    hold = device.hold("first", "encode")
    queues = {"queues.sdxl_queue.claims_max": 1}
    async with open_house(device, **queues) as house:
        await house.push("sdxl_queue", payload("first"))
        await hold.reached()
        await house.service.submit(payload("a"))
        record = await house.service.cancel(job_id("a"))
        assert record is not None
        assert record.state is JobState.CANCELLED
        assert (await house.ended("a"))["metadata"]["error"]["code"] == "CANCELLED"
        assert await house.elements() == 2, "its element is dropped when it is its turn"
        hold.release()
        await house.ended("first")
        await cancelled(house, "a")
        assert house.starts("a") == 0


async def test_while_its_reference_is_fetched(open_house: OpenHouse) -> None:
    async with open_house() as house:
        made = await house.run("made")
        await house.quiet()
        store = StagedStore(house.root / "store")
        hold = Hold()
        store.before_get = lambda _: hold.wait()
        house.service.intake.flow.parts.references._others._store = store
        reference = f"workspace-temp/{made['assets'][0]['url']}"
        await house.push("sdxl_queue", payload("a", reference_image=reference))
        await hold.reached()
        await house.service.cancel(job_id("a"))
        await cancelled(house, "a")
        assert house.starts("a") == 0
        hold.release()
        await others_go_on(house)


async def test_waiting_for_the_device(open_house: OpenHouse) -> None:
    device = SteppedDevice()
    hold = device.hold("first", "denoise", 1)
    async with open_house(device) as house:
        await house.push("sdxl_queue", payload("first"))
        await hold.reached()
        await house.push("sdxl_queue", payload("a"))
        await house.reached("a", "queued")
        await house.service.cancel(job_id("a"))
        await house.ended("a")
        assert len(house.service.roster) == 1
        hold.release()
        await house.ended("first")
        await cancelled(house, "a")
        assert house.starts("a") == 0


@pytest.mark.parametrize(("phase", "step"), [("encode", 0), ("denoise", 2), ("decode", 1)])
async def test_running(open_house: OpenHouse, phase: str, step: int) -> None:
    device = SteppedDevice()
    hold = device.hold("a", phase, step)
    async with open_house(device) as house:
        await house.push("sdxl_queue", payload("a", batch_size=3))
        await hold.reached()
        job = house.service.roster.get(UUID(job_id("a")))
        assert job is not None
        done = job.steps_done
        async with anyio.create_task_group() as tasks:  # one of them wins, all are content
            for _ in range(3):
                tasks.start_soon(house.service.cancel, job_id("a"))
        await cancelled(house, "a")
        ended = await house.job("a")
        assert ended is not None
        assert ended["metrics"]["cancel_requested_step"] == done
        assert ended["metrics"]["steps_done"] <= done + 1, "it ended within a step"
        share = ended["metrics"]["steps_done"] / ended["metrics"]["steps_total"]
        assert ended["progress"] == round(100 * share, 1) < 100
        await others_go_on(house)


@pytest.mark.parametrize(("phase", "step", "starts"), [("generate", 3, 1), ("denoise", 1, 3)])
async def test_in_either_part_of_a_chain(
    open_house: OpenHouse, phase: str, step: int, starts: int
) -> None:
    device = SteppedDevice()
    hold = device.hold("a", phase, step)
    async with open_house(device) as house:
        await house.push("sdxl_queue", payload("a", enhance="base"))
        await hold.reached()
        await house.service.cancel(job_id("a"))
        await cancelled(house, "a")
        assert house.starts("a") == starts
        await others_go_on(house)


async def test_between_the_parts_of_a_chain(open_house: OpenHouse) -> None:
    device = SteppedDevice()
    async with open_house(device) as house:
        plan = device.plan
        hold = Hold()

        async def slow_plan(part: Part) -> object:
            if part.id.endswith("/1"):
                await hold.wait()
            return await plan(part)

        device.plan = slow_plan  # type: ignore[method-assign]
        await house.push("sdxl_queue", payload("a", enhance="base"))
        await hold.reached()
        await house.service.cancel(job_id("a"))
        hold.release()
        await cancelled(house, "a")
        assert house.starts("a") == 1
        await others_go_on(house)


async def test_while_its_images_are_written(
    open_house: OpenHouse, monkeypatch: pytest.MonkeyPatch
) -> None:
    hold = Hold()
    image = SpoolRenderer.image

    async def slow(self: SpoolRenderer, part: Part, produced: ImageProduced) -> Asset:
        await hold.wait()
        return await image(self, part, produced)

    monkeypatch.setattr(SpoolRenderer, "image", slow)
    async with open_house() as house:
        await house.push("sdxl_queue", payload("a", batch_size=2))
        await hold.reached()
        job = house.service.roster.get(UUID(job_id("a")))
        assert job is not None
        while job.scheduled:
            await job.moved.ticket.wait()
        await house.service.cancel(job_id("a"))
        hold.release()
        await cancelled(house, "a")
        await others_go_on(house)


async def test_what_is_not_written_yet_is_dropped(
    open_house: OpenHouse, monkeypatch: pytest.MonkeyPatch
) -> None:
    hold, written = Hold(), list[int]()
    image = SpoolRenderer.image

    async def slow(self: SpoolRenderer, part: Part, produced: ImageProduced) -> Asset:
        written.append(produced.index)
        await hold.wait()
        return await image(self, part, produced)

    monkeypatch.setattr(SpoolRenderer, "image", slow)
    device = SteppedDevice()
    decoding = device.hold("a", "decode", 3)
    async with open_house(device) as house:
        await house.push("sdxl_queue", payload("a", batch_size=5))
        await decoding.reached()
        await hold.reached()
        await house.service.cancel(job_id("a"))
        job = house.service.roster.get(UUID(job_id("a")))
        assert job is not None
        while job.scheduled:
            await job.moved.ticket.wait()
        await house.barrier()
        hold.release()
        await cancelled(house, "a")
        assert written == [0]


async def test_too_late_once_its_files_are_made(open_house: OpenHouse) -> None:
    hold = Hold()
    async with open_house() as house:
        store = StagedStore(house.root / "store")
        store.before_put = lambda _: hold.wait()
        house.service.delivery.uploads.store = store
        await house.push("sdxl_queue", payload("a"))
        await hold.reached()
        await house.rendered("a")
        with pytest.raises(TooLate, match="rendered"):
            await house.service.cancel(job_id("a"))
        hold.release()
        assert (await house.ended("a"))["status"] == "completed"
        await house.quiet()
        with pytest.raises(TooLate, match="completed"):
            await house.service.cancel(job_id("a"))
        assert len(house.terminal(job_id("a"))) == 1


async def test_too_late_while_its_end_is_written_down(open_house: OpenHouse) -> None:
    """It is certain by then that the job completes: a yes would be a lie."""
    hold = Hold()
    async with open_house() as house:
        finish = house.service.journal.finish

        async def slow(job: UUID, *args: object, **options: object) -> None:
            await hold.wait()
            await finish(job, *args, **options)  # type: ignore[arg-type]

        house.service.journal.finish = slow  # type: ignore[method-assign]
        await house.push("sdxl_queue", payload("a"))
        await hold.reached()
        outcomes: list[str] = []

        async def cancel() -> None:
            try:
                await house.service.cancel(job_id("a"))
                outcomes.append("cancelled")
            except TooLate:
                outcomes.append("too late")

        async with anyio.create_task_group() as tasks:
            tasks.start_soon(cancel)
            await house.barrier()
            hold.release()
        assert outcomes == ["too late"]
        assert (await house.ended("a"))["status"] == "completed"


async def test_claimed_and_not_opened_yet(open_house: OpenHouse) -> None:
    """Between the journal's row and the roster's entry."""
    hold = Hold()
    async with open_house() as house:
        accept = house.service.journal.accept

        async def slow(*args: object) -> object:
            known = await accept(*args)  # type: ignore[arg-type]
            await hold.wait()
            return known

        house.service.journal.accept = slow  # type: ignore[method-assign, assignment]
        await house.push("sdxl_queue", payload("a"))
        await hold.reached()
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(house.service.cancel, job_id("a"))
            await house.barrier()
            hold.release()
        await cancelled(house, "a")
        assert house.starts("a") == 0


@pytest.mark.parametrize("receiving", ["a", "video", "text"])
async def test_the_backend_does_not_want_it_any_more(
    open_house: OpenHouse, receiver: Receiver, receiving: str
) -> None:
    """It knows already: nothing more is said of the job."""
    receiver.reset([Answer(skipped=True)])
    device = SteppedDevice()
    type_ = {"a": "sdxl_generate", "video": "wan_generate", "text": "enhance_base"}[receiving]
    phase = "generate" if receiving == "text" else "denoise"
    device.hold("a", phase, 2)  # never released: only the answer can end it
    async with open_house(device) as house:
        await house.push("sdxl_queue", payload("a", type_))
        await house.reached("a", "cancelled")
        await house.quiet()
        assert [c.status for c in receiver.callbacks] == ["processing"]
        assert await house.status("a") == "cancelled"
        assert len(house.service.roster) == 0
        await others_go_on(house)
        assert house.terminal(job_id("a")) == []


async def test_every_step_of_a_short_life(open_house: OpenHouse) -> None:
    """A cancel after any number of turns of the event loop: one end, whichever it is."""
    async with open_house() as house:
        for turns in range(0, 400, 10):
            name = f"n{turns}"
            await house.service.submit(payload(name))
            for _ in range(turns):
                await anyio.lowlevel.checkpoint()
            try:
                await house.service.cancel(job_id(name))
                expected = ("failed", "cancelled")
            except TooLate:
                expected = ("completed", "completed")
            body = await house.ended(name)
            assert (body["status"], await house.status(name)) == expected
        await house.quiet()
        terminal = [c for c in house.receiver.callbacks if c.status != "processing"]
        assert len(terminal) == 40
        assert len({c.headers["webhook-id"] for c in terminal}) == 40
