"""A reference whose store refuses it, or is away."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import Any

import anyio
import pytest
from support.house import LIMIT_SECONDS, House, OpenHouse, job_id, payload
from support.stage import StagedStore
from support.turns import turns

from ourvidz.ports import StoreDenied, StoreUnavailable
from ourvidz.service import parts

pytestmark = [pytest.mark.anyio, pytest.mark.usefixtures("quick_retries")]

QUIET = {"callback.progress": False}


def read_through(house: House, before_get: Callable[[str], Awaitable[None]]) -> None:
    """Where the house's references come from, from now on."""
    store: Any = StagedStore(house.root / "store")
    store.before_get = before_get
    fetcher: Any = house.service.intake.flow.parts.references
    fetcher._others._store = store


async def test_a_reference_that_is_denied_fails_its_job(open_house: OpenHouse) -> None:
    """Some stores say so of what is absent: it may be this one alone."""
    async with open_house(**QUIET) as house:

        async def get(_: str) -> None:
            raise StoreDenied("403")

        read_through(house, get)
        body = await house.run("a", reference_image="workspace-temp/u/j/0.png")
        assert body["metadata"]["error"]["code"] == "REFERENCE_FRAME_ERROR"
        await house.fine()


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

        read_through(house, get)
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


async def test_a_job_whose_reference_is_waited_for_can_be_cancelled(
    open_house: OpenHouse, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(parts, "_STORE_SECONDS", 600)
    async with open_house(**QUIET) as house:

        async def get(_: str) -> None:
            raise StoreUnavailable("503")

        read_through(house, get)
        await house.push("sdxl_queue", payload("a", reference_image="workspace-temp/u/j/0.png"))
        with anyio.fail_after(LIMIT_SECONDS):
            while house.service.health()["alarms"] != ["store_unavailable"]:
                await turns()
        await house.service.cancel(job_id("a"))
        assert (await house.ended("a"))["metadata"]["error"]["code"] == "CANCELLED"
        await house.quiet()
        assert house.service.health()["alarms"] == []
