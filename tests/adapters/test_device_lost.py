"""The real executor on a device that is lost in mid-run: no command has an end any more."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import anyio
import pytest
import torch
from support.bench import IMAGES, TEXT, Bench, models, open_executor

from ourvidz import logs
from ourvidz.adapters.device import DeviceExecutor
from ourvidz.cli.exits import code_of
from ourvidz.config.settings import Device as DeviceSettings
from ourvidz.errors import DeviceFailed, DeviceMissing
from pipelines.tiny import make_tiny
from scheduler import messages as m
from scheduler.types import Fault

pytestmark = pytest.mark.anyio

LIMIT_SECONDS = 60
ERROR = "CUDA error: an illegal memory access was encountered"


@pytest.fixture(scope="module")
async def executor(tiny_root: Path) -> DeviceExecutor:
    make_tiny(tiny_root)
    return await open_executor(models(tiny_root))


@pytest.fixture(autouse=True)
def plain_logs() -> None:
    logs.configure("json", "critical", log_prompts=False)


@pytest.fixture
def answering(monkeypatch: pytest.MonkeyPatch) -> list[bool]:
    """Whether the device answers when it is asked; it does not unless a test says so."""
    answers = [False]

    def synchronize() -> None:
        if not answers[0]:
            raise torch.AcceleratorError(ERROR)

    monkeypatch.setattr(torch.cuda, "synchronize", synchronize)
    return answers


def raising(*_: Any) -> Any:
    raise torch.AcceleratorError(ERROR)


async def begun(executor: DeviceExecutor, patch: pytest.MonkeyPatch, work: Any) -> Bench:
    """A part whose next step meets the error."""
    bench = Bench(executor, work)
    await bench.begin()
    await bench.bring_in(0)
    for name in ("step", "step_together"):
        patch.setattr(executor._runnables[bench.part.id].pipeline, name, raising)
    return bench


async def test_a_run_that_loses_the_device_has_no_end(
    executor: DeviceExecutor, monkeypatch: pytest.MonkeyPatch, answering: list[bool]
) -> None:
    bench = await begun(executor, monkeypatch, IMAGES)
    with anyio.fail_after(LIMIT_SECONDS), pytest.raises(DeviceFailed, match="illegal memory"):
        await executor.execute(bench.start(0))
    bench.end()


async def test_nor_have_those_that_shared_it(
    executor: DeviceExecutor, monkeypatch: pytest.MonkeyPatch, answering: list[bool]
) -> None:
    benches = [await begun(executor, monkeypatch, TEXT) for _ in range(2)]
    found: list[DeviceFailed] = []

    async def execute(command: m.Command) -> None:
        with pytest.raises(DeviceFailed) as raised:
            await executor.execute(command)
        found.append(raised.value)

    with anyio.fail_after(LIMIT_SECONDS):
        async with anyio.create_task_group() as tasks:
            for bench in benches:
                tasks.start_soon(execute, bench.start(0, run=10_000, starters=2))
    assert len(found) == 2
    for bench in benches:
        bench.end()


async def test_a_device_that_still_answers_costs_one_run(
    executor: DeviceExecutor, monkeypatch: pytest.MonkeyPatch, answering: list[bool]
) -> None:
    answering[0] = True
    bench = await begun(executor, monkeypatch, IMAGES)
    with anyio.fail_after(LIMIT_SECONDS):
        event = await executor.execute(bench.start(0))
    assert isinstance(event, m.RunFailed)
    assert event.fault is Fault.RUN
    assert ERROR in event.detail
    bench.end()


@pytest.mark.parametrize("move", [m.Stage, m.Load, m.Evict, m.Unstage])
async def test_a_move_that_loses_the_device_has_no_end(
    executor: DeviceExecutor,
    monkeypatch: pytest.MonkeyPatch,
    answering: list[bool],
    move: type[m.Move],
) -> None:
    name = executor.components[0].name
    monkeypatch.setattr(executor._weights[name], move.__name__.lower(), raising)
    with anyio.fail_after(LIMIT_SECONDS), pytest.raises(DeviceFailed, match="illegal memory"):
        await executor.execute(move(name))
    assert executor._moves._under_way == {}


async def test_a_card_that_is_not_there_is_named() -> None:
    executor = DeviceExecutor(DeviceSettings(kind="cuda", index=63), {})
    with pytest.raises(DeviceMissing, match=r"^device\.kind = cuda, .* = 63: ") as caught:
        await executor.open()
    assert code_of(caught.value) == 78


async def test_a_driver_that_does_not_answer_may_later(monkeypatch: pytest.MonkeyPatch) -> None:
    def describe(_: object) -> None:
        raise RuntimeError("Found no NVIDIA driver on your system")

    monkeypatch.setattr("pipelines.device.Device.describe", describe)
    with pytest.raises(DeviceFailed, match=r"device.index = 0: Found no NVIDIA driver") as caught:
        await DeviceExecutor(DeviceSettings(kind="cuda"), {}).open()
    assert code_of(caught.value) == 75
