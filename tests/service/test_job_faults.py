"""What goes wrong with one job, or one model, costs no other job anything."""

from __future__ import annotations

from typing import Any

import pytest
from support.house import OpenHouse, job_id
from support.stage import SteppedDevice

from ourvidz.adapters.device_fake import FakeDevice, Faults
from ourvidz.adapters.spool import SpoolRenderer
from ourvidz.jobs import Asset, ErrorCode, JobError, JobSpec
from ourvidz.ports import ImageProduced, Part, Plan, PlanRejected, RenderFailed
from scheduler.messages import Evict, Start
from scheduler.types import Fault

pytestmark = pytest.mark.anyio


def error_of(body: dict[str, Any]) -> dict[str, Any]:
    assert body["status"] == "failed"
    error: dict[str, Any] = body["metadata"]["error"]
    return error


async def test_out_of_memory_once_is_tried_again_alone(open_house: OpenHouse) -> None:
    device = SteppedDevice()
    device.fail("a", "decode", 2, Fault.OUT_OF_MEMORY)
    async with open_house(device) as house:
        await house.fine("before", "enhance_base")
        body = await house.run("a", batch_size=3, seed=5)
        await house.quiet()
        assert body["status"] == "completed"
        assert [a["metadata"]["seed"] for a in body["assets"]] == [5, 6, 7]
        assert "failed_indices" not in body["metadata"]
        assert house.starts("a") == 4
        commands = list(device.log)
        again = max(i for i, c in enumerate(commands) if isinstance(c, Start))
        evicted = {c.component for c in commands[:again] if isinstance(c, Evict)}
        assert "qwen_base.model" in evicted, "it had the device to itself"
        await house.fine()


class Repeating(SteppedDevice):
    """Begins a failed phase anew, as a device that keeps no state of a step does."""

    async def execute(self, command: Any) -> Any:
        event = await super().execute(command)
        if isinstance(command, Start):
            self._runs[command.lease.job].steps.clear()
        return event


async def test_images_that_come_twice_are_written_once(
    open_house: OpenHouse, monkeypatch: pytest.MonkeyPatch
) -> None:
    written: list[int] = []
    image = SpoolRenderer.image

    async def counting(self: SpoolRenderer, part: Part, produced: ImageProduced) -> Asset:
        written.append(produced.index)
        return await image(self, part, produced)

    monkeypatch.setattr(SpoolRenderer, "image", counting)
    device = Repeating()
    device.fail("a", "decode", 5, Fault.OUT_OF_MEMORY)
    async with open_house(device) as house:
        body = await house.run("a", batch_size=6)
        await house.quiet()
        assert body["status"] == "completed"
        assert len(body["assets"]) == 6
        assert written == [0, 1, 2, 3, 4, 5]


async def test_out_of_memory_twice_is_the_jobs_end(open_house: OpenHouse) -> None:
    device = SteppedDevice()
    device.fail("a", "denoise", 2, Fault.OUT_OF_MEMORY, Fault.OUT_OF_MEMORY)
    async with open_house(device) as house:
        error = error_of(await house.run("a"))
        assert (error["code"], error["retryable"]) == ("OOM_ERROR", True)
        assert error["message"] == (
            "phase denoise ran out of memory with the device to itself: 5100 bytes of weights, "
            "500 to work in, the budget is 51000 (planted)"
        )
        await house.fine()


@pytest.mark.parametrize(
    ("fields", "code"),
    [({}, "WORKER_UNAVAILABLE"), ({"exact": True}, "I2I_PIPELINE_ERROR")],
    ids=["txt2img", "img2img"],
)
async def test_a_run_that_breaks_fails_its_job(
    open_house: OpenHouse, fields: dict[str, Any], code: str
) -> None:
    device = SteppedDevice()
    device.fail("a", "denoise", 1, Fault.RUN)
    async with open_house(device) as house:
        extra: dict[str, Any] = {}
        if fields:
            made = await house.run("made")
            extra["reference_image"] = f"workspace-temp/{made['assets'][0]['url']}"
        error = error_of(await house.run("a", **extra))
        assert error["code"] == code
        assert error["message"] == "planted"
        await house.fine()


async def test_an_executor_that_raises_costs_one_job(open_house: OpenHouse) -> None:
    """It promises not to; a defect in it must not take the engine down."""
    device = SteppedDevice()
    device.fail("a", "denoise", 1, KeyError("defect"))
    async with open_house(device) as house:
        error = error_of(await house.run("a"))
        assert error["code"] == "WORKER_UNAVAILABLE"
        assert "KeyError" in error["message"]
        await house.fine()


async def test_a_checkpoint_that_cannot_be_read_fails_its_own_jobs(open_house: OpenHouse) -> None:
    device = FakeDevice(faults=Faults(stages={"wan.transformer": ["no such file", "nor now"]}))
    async with open_house(device, **{"scheduler.load_retry_seconds": 600}) as house:
        error = error_of(await house.run("w", "wan_generate"))
        assert error["code"] == "MODEL_LOAD_ERROR"
        assert "no such file" in error["message"]
        assert "component_failed:wan.transformer" in house.service.health()["alarms"]
        await house.fine()
        await house.fine("text", "enhance_instruct")
        assert error_of(await house.run("w2", "wan_generate"))["code"] == "MODEL_LOAD_ERROR"


async def test_a_part_that_the_models_cannot_do_is_refused(open_house: OpenHouse) -> None:
    class Unable(FakeDevice):
        async def plan(self, part: Part) -> Plan:
            if part.id.startswith(job_id("a")):
                reason = "reference_mode: both, this checkpoint serves none"
                raise PlanRejected(JobError(ErrorCode.INVALID_PARAMETER, reason))
            return await super().plan(part)

    async with open_house(Unable()) as house:
        error = error_of(await house.run("a"))
        assert (error["code"], error["retryable"]) == ("INVALID_PARAMETER", False)
        assert house.starts("a") == 0
        await house.fine()


async def test_a_job_larger_than_the_device_is_refused_with_the_bytes(
    open_house: OpenHouse,
) -> None:
    async with open_house(**{"device.budget_bytes": 9_000}) as house:
        error = error_of(await house.run("big", "wan_generate"))
        assert (error["code"], error["retryable"]) == ("OOM_ERROR", False)
        assert house.starts("big") == 0
        assert "the budget is 9000" in error["message"]
        await house.fine("small")


async def test_the_operator_refuses(open_house: OpenHouse) -> None:
    class Policy:
        async def admit(self, spec: JobSpec) -> JobError | None:
            if "weapon" in spec.original_prompt:
                return JobError(ErrorCode.REJECTED, "not here")
            return None

    async with open_house() as house:
        object.__setattr__(house.service.intake.flow.parts, "admission", Policy())
        error = error_of(await house.run("a", prompt="a weapon"))
        assert (error["code"], error["message"]) == ("REJECTED", "not here")
        assert house.starts("a") == 0
        await house.fine()


async def test_a_hook_that_breaks_costs_its_job_and_rings(open_house: OpenHouse) -> None:
    class Broken:
        async def admit(self, spec: JobSpec) -> JobError | None:
            if spec.original_prompt == "boom":
                raise ZeroDivisionError(spec.original_prompt)
            return None

    async with open_house() as house:
        object.__setattr__(house.service.intake.flow.parts, "admission", Broken())
        error = error_of(await house.run("a", prompt="boom"))
        assert (error["code"], error["retryable"]) == ("WORKER_UNAVAILABLE", True)
        assert "boom" not in error["message"], "a message of ours, not the exception's text"
        assert house.service.health()["alarms"] == ["job_defect"]
        await house.fine()


def breaking(*bad: int, error: Exception) -> Any:
    image = SpoolRenderer.image

    async def image_or_error(self: SpoolRenderer, part: Part, produced: ImageProduced) -> Asset:
        if produced.index in bad and str(part.spec.id) == job_id("a"):
            raise error
        return await image(self, part, produced)

    return image_or_error


@pytest.mark.parametrize("error", [RenderFailed("encoder error -2"), TypeError("encoder")])
async def test_one_image_that_cannot_be_written(
    open_house: OpenHouse, monkeypatch: pytest.MonkeyPatch, error: Exception
) -> None:
    monkeypatch.setattr(SpoolRenderer, "image", breaking(1, error=error))
    async with open_house() as house:
        body = await house.run("a", batch_size=3, seed=7)
        await house.quiet()
        assert body["status"] == "completed"
        assert body["metadata"]["failed_indices"] == [1]
        assert body["metadata"]["num_images"] == 2
        assert [a["url"].rsplit("/", 1)[1] for a in body["assets"]] == ["0.png", "2.png"]
        assert [a["metadata"]["asset_index"] for a in body["assets"]] == [0, 1]
        assert [a["metadata"]["seed"] for a in body["assets"]] == [7, 9]
        job = await house.job("a")
        assert job is not None
        assert [failed["index"] for failed in job["output"]["failed"]] == [1]
        await house.fine()


async def test_no_image_that_can_be_written(
    open_house: OpenHouse, monkeypatch: pytest.MonkeyPatch
) -> None:
    broken = RenderFailed("encoder error -2")
    monkeypatch.setattr(SpoolRenderer, "image", breaking(0, 1, 2, error=broken))
    async with open_house() as house:
        body = await house.run("a", batch_size=3)
        error = error_of(body)
        assert (error["code"], error["retryable"]) == ("WORKER_UNAVAILABLE", False)
        assert body["metadata"]["failed_indices"] == [0, 1, 2]
        await house.fine()


async def test_a_journal_that_breaks_for_one_image(open_house: OpenHouse) -> None:
    async with open_house() as house:
        add_asset = house.service.journal.add_asset

        async def failing(job: Any, asset: Asset) -> None:
            if asset.index == 0 and str(job) == job_id("a"):
                raise OSError("disk")
            await add_asset(job, asset)

        house.service.journal.add_asset = failing  # type: ignore[method-assign]
        body = await house.run("a", batch_size=2)
        assert body["metadata"]["failed_indices"] == [0]
        await house.fine()


async def test_a_run_that_cannot_be_counted_is_not_begun(open_house: OpenHouse) -> None:
    async with open_house() as house:
        count = house.source.count_attempt

        async def failing(claim_id: str) -> int:
            house.source.count_attempt = count  # type: ignore[method-assign]
            raise OSError("disk")

        house.source.count_attempt = failing  # type: ignore[method-assign]
        assert "OSError" in error_of(await house.run("a"))["message"]
        await house.fine()
