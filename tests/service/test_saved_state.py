"""A video that is cut off between two denoising steps, over the real pipelines: the next process on
the same data directory goes on at that step, and what comes out is the same to the byte."""

from __future__ import annotations

import hashlib
import threading
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any
from uuid import UUID

import anyio
import anyio.to_thread
import pytest
from support.bench import models
from support.house import LIMIT_SECONDS, House, OpenHouse, job_id, payload
from support.states import wait
from support.turns import turns

from ourvidz.adapters.device import DeviceExecutor
from ourvidz.config.settings import Device
from pipelines.tiny import make_tiny

pytestmark = [pytest.mark.anyio, pytest.mark.slow]

STEPS = 4
FLAGS = {
    "callback.progress": False,
    "device.budget_bytes": 640_000_000,
    "device.host_budget_bytes": 64_000_000,
    "service.drain_seconds": 0.05,
}
VIDEO = {"steps": STEPS, "seed": 5}


class Stage(DeviceExecutor):
    """The device of one process, which waits before the denoising step ``stop``; ``taken`` are the
    steps that it was asked for."""

    def __init__(self, tiny_root: Path, stop: int | None) -> None:
        settings = Device(threads=1, save_state_seconds=1e-9)
        super().__init__(settings, {"wan": models(tiny_root)["wan"]})
        self.taken: list[tuple[str, int]] = []
        self.reached, self.released = threading.Event(), threading.Event()
        self._stop = stop

    async def open(self) -> None:
        await super().open()
        pipeline = self._pipelines["wan"]
        usual = pipeline.step

        def step(state: Any, token: Any) -> Any:
            self.taken.append((state.phase, state.step))
            wait(self._states)  # no step is so short that its state is not written
            if (state.phase, state.step) == ("denoise", self._stop):
                self.reached.set()
                self.released.wait(LIMIT_SECONDS)
            return usual(state, token)

        pipeline.step = step  # type: ignore[method-assign]

    async def wait(self) -> None:
        await anyio.to_thread.run_sync(self.reached.wait, LIMIT_SECONDS)
        assert self.reached.is_set()


@asynccontextmanager
async def process(
    open_house: OpenHouse, tiny_root: Path, stop: int | None = None, **more: Any
) -> AsyncIterator[tuple[House, Stage]]:
    make_tiny(tiny_root)
    stage = Stage(tiny_root, stop)
    async with open_house(stage, **FLAGS, **more) as house:
        yield house, stage


async def ended(house: House) -> str:
    """The digest of the video, once the job is delivered and its folder is gone."""
    body = await house.ended("a")
    assert body["status"] == "completed", body
    with anyio.fail_after(LIMIT_SECONDS):
        while house.service.delivery.pending:
            changed = house.service.room.ticket
            await changed.wait()
    assert list((house.root / "data" / "spool").iterdir()) == []
    (asset,) = body["assets"]
    file = house.root / "store" / "workspace-temp" / asset["url"]
    return hashlib.sha256(file.read_bytes()).hexdigest()


@pytest.mark.parametrize("how", ["killed", "drained"])
async def test_another_process_goes_on_at_the_step(
    open_house: OpenHouse, tiny_root: Path, tmp_path: Path, how: str
) -> None:
    async with process(open_house, tiny_root, root=tmp_path / "undisturbed") as (house, stage):
        await house.push("wan_queue", payload("a", "wan_generate", **VIDEO))
        expected = await ended(house)
        whole = stage.taken
        house.receiver.reset()
    assert whole[:2] == [("encode", 0), ("denoise", 0)]
    async with process(open_house, tiny_root, stop=2) as (house, stage):
        await house.push("wan_queue", payload("a", "wan_generate", **VIDEO))
        await stage.wait()
        if how == "killed":
            house.kill()
        else:
            await house.drain()
            job = house.service.roster.get(UUID(job_id("a")))
            with anyio.fail_after(LIMIT_SECONDS):
                while job is not None and job.stop is None:
                    await turns()
        stage.released.set()
    async with process(open_house, tiny_root) as (house, stage):
        assert await ended(house) == expected
        assert stage.taken == whole[3:], "what was done is not done again"
        job = await house.job("a")
        assert job is not None
        assert job["metrics"]["steps_total"] == len(stage.taken), "it was planned as what remains"
    assert len(house.terminal(job_id("a"))) == 1


async def test_a_state_that_cannot_be_used_costs_the_steps_alone(
    open_house: OpenHouse, tiny_root: Path, tmp_path: Path
) -> None:
    async with process(open_house, tiny_root, stop=2) as (house, stage):
        await house.push("wan_queue", payload("a", "wan_generate", **VIDEO))
        await stage.wait()
        house.kill()
        stage.released.set()
    (file,) = (tmp_path / "data" / "spool" / job_id("a") / "state").iterdir()
    file.write_bytes(file.read_bytes()[:-1])
    async with process(open_house, tiny_root) as (house, stage):
        await ended(house)
        assert stage.taken[:2] == [("encode", 0), ("denoise", 0)]


async def test_a_disk_that_is_full_rings_and_the_job_goes_on(
    open_house: OpenHouse, tiny_root: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(*_: Any) -> Any:
        raise OSError(28, "no space")

    monkeypatch.setattr("ourvidz.adapters.saved_states.write_atomically", full)
    async with process(open_house, tiny_root, stop=2) as (house, stage):
        await house.push("wan_queue", payload("a", "wan_generate", **VIDEO))
        await stage.wait()
        with anyio.fail_after(LIMIT_SECONDS):
            while house.service.health()["alarms"] != ["state_not_saved"]:
                await anyio.lowlevel.checkpoint()
        monkeypatch.undo()
        stage.released.set()
        await ended(house)
        assert house.service.health()["alarms"] == []
