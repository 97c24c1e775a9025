"""A part that another process began goes on from its saved state: fewer steps, the same bits."""

from __future__ import annotations

import shutil
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from support.bench import IMAGES, VIDEO, Bench, models, open_executor
from support.states import wait
from support.turns import turns

from ourvidz import logs
from ourvidz.adapters.device import DeviceExecutor
from ourvidz.jobs import ImageWork, VideoWork
from ourvidz.ports import StateSaved
from pipelines.tiny import make_tiny
from scheduler import messages as m

pytestmark = [pytest.mark.anyio, pytest.mark.slow]

STEPS = 4
WORKS: dict[str, VideoWork | ImageWork] = {
    "video": replace(VIDEO, steps=STEPS),
    "images": replace(IMAGES, steps=STEPS),
    "images one by one": replace(IMAGES, steps=STEPS // 2, reproducible=True),
}


@pytest.fixture(params=WORKS)
def work(request: pytest.FixtureRequest) -> VideoWork | ImageWork:
    return WORKS[request.param]


@pytest.fixture(autouse=True)
def _quiet() -> None:
    logs.configure("json", "error", log_prompts=False)


@pytest.fixture(scope="module")
async def another(tiny_root: Path) -> DeviceExecutor:
    make_tiny(tiny_root)
    return await opened(tiny_root)


async def opened(root: Path, seconds: float = 1e-9) -> DeviceExecutor:
    """As a process of its own has it; due after every step."""
    given = {name: model for name, model in models(root).items() if name in ("sdxl", "wan")}
    return await open_executor(given, save_state_seconds=seconds)


async def cut_off(executor: DeviceExecutor, bench: Bench, steps: int) -> None:
    """The process ends after so many denoising steps, once the state is written."""
    (bench.spool / "state").mkdir(parents=True, exist_ok=True)
    await bench.begin()
    await bench.runs(0)
    await bench.bring_in(1)
    command = bench.start(1)

    def stop(notice: Any) -> None:
        if isinstance(notice, m.StepReached) and notice == m.StepReached(command.lease, steps):
            executor.request(m.Cancel(command.lease))

    usual = executor._states.offer

    def offer(state: Any, saving: Any, **_: Any) -> None:
        done = state.step if state.phase == "denoise" else STEPS
        if done == steps:  # the cancel may come a step late
            usual(state, saving, at_once=True)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(executor._states, "offer", offer)
        bench.on = stop
        await executor.execute(command)
        wait(executor._states)
    bench.end()


@pytest.mark.parametrize("steps", range(1, STEPS + 1))
async def test_from_every_step(
    tiny_root: Path, tmp_path: Path, work: Any, steps: int, another: DeviceExecutor
) -> None:
    expected = await Bench(another, work).run()
    bench = Bench(another, work, spool=tmp_path)
    whole = [phase.steps for phase in (await bench.plan()).phases]
    await cut_off(another, bench, steps)
    second = await opened(tiny_root)
    resumed = Bench(second, work, spool=tmp_path)
    planned = [phase.steps for phase in (await resumed.plan()).phases]
    left = [STEPS - steps] if steps < STEPS else []
    assert planned == [*left, whole[-1]]
    assert await resumed.run() == expected
    counted = [step for phase, step in resumed.steps if phase == 0]
    assert counted == list(range(1, planned[0] + 1)), "steps are counted as they are planned"
    wait(second._states)


async def test_paused_after_it_was_gone_on_with(
    tiny_root: Path, tmp_path: Path, another: DeviceExecutor
) -> None:
    work = WORKS["video"]
    expected = await Bench(another, work).run()
    await cut_off(another, Bench(another, work, spool=tmp_path), 1)
    second = await opened(tiny_root)
    bench = Bench(second, work, spool=tmp_path)
    await bench.begin()
    await bench.bring_in(0)
    command = bench.start(0)
    second.request(m.Pause(command.lease))
    paused = await second.execute(command)
    assert isinstance(paused, m.Paused)
    assert paused.step == 0, "as it is planned, not as it was begun"
    await bench.clear()
    await bench.bring_in(0)
    assert isinstance(await second.execute(bench.resume(0)), m.PhaseFinished)
    assert isinstance(await bench.runs(1), m.PhaseFinished)
    assert bench.end() == expected
    wait(second._states)


async def test_the_latents_of_a_batch_stay_for_its_missing_images(
    tiny_root: Path, tmp_path: Path, another: DeviceExecutor
) -> None:
    """However far off the next state is: else one lost image would cost all of them again."""
    work = replace(IMAGES, images=3)
    expected = await Bench(another, work).run()
    (tmp_path / "state").mkdir()
    executor = await opened(tiny_root, seconds=3600)
    await Bench(executor, work, spool=tmp_path).run()
    wait(executor._states)
    bench = Bench(executor, work, spool=tmp_path, wanted=(0, 2))
    assert [phase.name for phase in (await bench.plan()).phases] == ["decode"]
    made = await bench.run()
    assert made[0] == [picture for picture in expected[0] if picture[0] != 1]


async def test_others_begin_anew(tiny_root: Path, tmp_path: Path, another: DeviceExecutor) -> None:
    work = WORKS["video"]
    await cut_off(another, Bench(another, work, spool=tmp_path), 2)
    assert len((await Bench(another, replace(work, seed=8), spool=tmp_path).plan()).phases) == 3
    off = await opened(tiny_root, seconds=0)
    assert len((await Bench(off, work, spool=tmp_path).plan()).phases) == 3
    copy = tmp_path / "another model"
    shutil.copytree(tiny_root / "wan-vace", copy / "wan-vace")
    (copy / "wan-vace" / "transformer" / "config.json").touch()
    given = models(tiny_root)
    model = given["wan"].model_copy(update={"path": copy / "wan-vace"})
    other = await open_executor({"wan": model}, save_state_seconds=1)
    assert len((await Bench(other, work, spool=tmp_path).plan()).phases) == 3
    shareable = replace(IMAGES, seeded=False)
    bench = Bench(another, shareable, spool=tmp_path / "shared")
    (tmp_path / "shared" / "state").mkdir(parents=True)
    await bench.run()
    wait(another._states)
    assert list((tmp_path / "shared" / "state").iterdir()) == []


async def test_it_is_told_how_it_went(tmp_path: Path, another: DeviceExecutor) -> None:
    (tmp_path / "state").mkdir()
    bench = Bench(another, WORKS["video"], spool=tmp_path)
    await bench.run()
    wait(another._states)
    await turns()
    told = [notice for notice in bench.notices if isinstance(notice, StateSaved)]
    assert told
    assert {notice.error for notice in told} == {None}
