"""An attempt counts against what may have killed the process, and against nobody else."""

from __future__ import annotations

from typing import Any

import pytest
from support.house import OpenHouse, job_id, payload
from support.stage import Hold, SteppedDevice

from ourvidz.adapters.device_fake import FakeDevice
from ourvidz.adapters.queue_embedded import EmbeddedQueues
from ourvidz.service.engine import Engine
from scheduler.messages import Event, JobArrived

pytestmark = pytest.mark.anyio

QUIET = {"callback.progress": False}


async def test_who_stood_aside_gets_its_attempt_back(
    open_house: OpenHouse, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Its text is made, its images are not begun, and another job is on the device."""
    device, noting = SteppedDevice(), Hold()
    async with open_house(device, **QUIET) as house:
        house.service.journal.add_text = lambda *_: noting.wait()  # type: ignore[method-assign]
        await house.push("sdxl_queue", payload("aside", enhance="base"))
        await noting.reached()
        running = device.hold("guilty", "denoise")
        await house.push("sdxl_queue", payload("guilty"))
        await running.reached()
        assert await house.attempts() == [1, 1]
        house.kill()
    names: dict[str, str] = {}
    counted: dict[str, int] = {}
    claim, count = EmbeddedQueues.claim, EmbeddedQueues.count_attempt

    async def noted(self: EmbeddedQueues, claim_id: str) -> int:
        attempts = await count(self, claim_id)
        counted[names[claim_id]] = attempts
        return attempts

    async def named(self: EmbeddedQueues, *args: Any) -> Any:
        claimed = await claim(self, *args)
        if claimed is not None:
            guilty = job_id("guilty").encode() in claimed.raw
            names[claimed.claim_id] = "guilty" if guilty else "aside"
        return claimed

    monkeypatch.setattr(EmbeddedQueues, "count_attempt", noted)
    monkeypatch.setattr(EmbeddedQueues, "claim", named)
    async with open_house(**QUIET) as house:
        for name in ("aside", "guilty"):
            assert (await house.ended(name))["status"] == "completed"
        await house.quiet()
    assert counted == {"aside": 1, "guilty": 2}


async def test_what_was_cut_off_shares_its_steps_with_nobody(
    open_house: OpenHouse, monkeypatch: pytest.MonkeyPatch
) -> None:
    """If it is what kills the process, it does so alone."""
    sharing: list[bool] = []
    put = Engine.put

    async def noting(self: Engine, event: Event) -> None:
        if isinstance(event, JobArrived):
            sharing.append(any(phase.sharing for phase in event.demand.phases))
        await put(self, event)

    monkeypatch.setattr(Engine, "put", noting)
    device = SteppedDevice(units_max=4)
    running = device.hold("a", "generate", 1)
    async with open_house(device, **QUIET) as house:
        await house.push("chat_queue", payload("a", "chat"))
        await running.reached()
        house.kill()
    async with open_house(FakeDevice(units_max=4), **QUIET) as house:
        assert (await house.ended("a"))["status"] == "completed"
        await house.run("b", "chat")
        await house.quiet()
    assert sharing == [True, False, True]
