"""An attempt counts against what may have killed the process, and against nobody else."""

from __future__ import annotations

import pytest
from support.house import OpenHouse, payload
from support.stage import SteppedDevice

from ourvidz.adapters.device_fake import FakeDevice
from ourvidz.service.engine import Engine
from scheduler.messages import Event, JobArrived

pytestmark = pytest.mark.anyio

QUIET = {"callback.progress": False}


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
