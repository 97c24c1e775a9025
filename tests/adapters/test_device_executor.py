"""The device executor over the real pipelines on tiny checkpoints."""

from __future__ import annotations

import asyncio
import gc
import threading
import weakref
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import anyio
import pytest
import torch
from PIL import Image
from support.bench import FAMILIES, IMAGES, TEXT, VIDEO, Bench, models, open_executor

from ourvidz import logs
from ourvidz.adapters import device as module
from ourvidz.adapters.device import DeviceExecutor
from ourvidz.config.settings import Model
from ourvidz.jobs import ErrorCode, Work
from ourvidz.ports import ImageProduced, PlanRejected, RunNotice, VideoProduced
from pipelines.tiny import make_tiny
from scheduler import messages as m
from scheduler.types import Fault, Lease, Outcome, Sharing

pytestmark = pytest.mark.anyio

WORKS: dict[str, Work] = {"sdxl": IMAGES, "wan": VIDEO, "qwen": TEXT}


@pytest.fixture(scope="module")
async def executor(tiny_root: Path) -> DeviceExecutor:
    make_tiny(tiny_root)
    return await open_executor(models(tiny_root))


@pytest.fixture(scope="module")
async def undisturbed(executor: DeviceExecutor) -> dict[str, list[Any]]:
    """What each work gives where nothing happens to it."""
    return {name: await Bench(executor, work).run() for name, work in WORKS.items()}


@pytest.fixture(autouse=True)
def nothing_is_left(executor: DeviceExecutor) -> Any:
    logs.configure("json", "error", log_prompts=False)  # the default draws tracebacks, slowly
    yield
    assert executor._plans == executor._runnables == executor._controls == {}
    assert executor._runs._runs == {}


@pytest.fixture(params=WORKS)
def kind(request: pytest.FixtureRequest) -> str:
    return str(request.param)


async def test_every_command_ends_as_it_must(executor: DeviceExecutor) -> None:
    bench = Bench(executor, IMAGES)
    await bench.begin()
    names = sorted({name for phase in bench.planned.phases for name in phase.components})
    assert {c.name for c in executor.components} >= set(names)
    assert all(c.weight_bytes > 0 for c in executor.components)
    await bench.clear()
    for name in names:
        if executor._weights[name].tier == "staged":
            await bench.does(m.Unstage(name), m.Unstaged(name))
    for phase in range(len(bench.planned.phases)):
        event = await bench.runs(phase)
        assert isinstance(event, m.PhaseFinished)
        assert event.state_bytes >= 0
        await bench.clear()
    bench.end()
    for command in (m.Pause(Lease(9, "x", 0)), m.Settle("x", Outcome.FINISHED)):
        with pytest.raises(TypeError, match="no terminal event"):
            await executor.execute(command)


async def test_what_is_planned_is_what_is_told(executor: DeviceExecutor, kind: str) -> None:
    bench = Bench(executor, WORKS[kind])
    seen: list[int] = []
    await bench.begin()
    for index in range(len(bench.planned.phases)):
        await bench.runs(index)
        seen.append(len(bench.notices))
    assert bench.steps == [
        (index, step + 1)
        for index, phase in enumerate(bench.planned.phases)
        for step in range(phase.steps)
    ]
    assert seen == sorted(set(seen)), "all of a phase's notices come before its end"
    pictures, text, done = bench.end()
    if kind == "qwen":
        assert done[0] == text
        assert done[1] == bench.planned.phases[0].steps or done[2] == "stop"
    else:
        assert len(pictures) == (2 if kind == "sdxl" else 1)


async def test_pixels_come_as_the_port_says(executor: DeviceExecutor) -> None:
    for work, shape in ((IMAGES, (64, 64, 3)), (VIDEO, (5, 32, 64, 3))):
        bench = Bench(executor, work)
        await bench.run()
        found = [n for n in bench.notices if isinstance(n, ImageProduced | VideoProduced)]
        for notice in found:
            pixels = notice.pixels if isinstance(notice, ImageProduced) else notice.frames
            assert (pixels.dtype, pixels.shape) == ("uint8", shape)


def on_step(count: int, act: Any) -> Any:
    """Acts when so many steps have been told, counted over the part."""
    told = 0

    def on(notice: RunNotice) -> None:
        nonlocal told
        if isinstance(notice, m.StepReached):
            told += 1
            if told == count:
                act(notice.lease)

    return on


class Stepping:
    """Stops the pipeline's thread before chosen steps, so that the loop can act first."""

    def __init__(self, executor: DeviceExecutor, name: str, monkeypatch: Any) -> None:
        pipeline = executor._pipelines[name]
        self._step = pipeline.step
        self.before: Any = lambda count: None
        self.count = 0
        monkeypatch.setattr(pipeline, "step", self.step)

    def step(self, state: Any, token: Any) -> Any:
        self.before(self.count)
        self.count += 1
        return self._step(state, token)


MODELS = {"sdxl": "sdxl", "wan": "wan", "qwen": "qwen_instruct"}


async def test_a_paused_run_goes_on_as_if_it_had_not_been(
    executor: DeviceExecutor,
    undisturbed: dict[str, list[Any]],
    kind: str,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Paused at every step, with everything taken off the device in between."""
    bench = Bench(executor, WORKS[kind])
    stepping = Stepping(executor, MODELS[kind], monkeypatch)
    await bench.begin()
    pauses = 0
    for index, phase in enumerate(bench.planned.phases):
        event: m.Event = m.Paused(bench.lease(index), 0, 0)
        for step in range(phase.steps):
            command = bench.start(index) if step == 0 else bench.resume(index)
            lease = command.lease
            await bench.bring_in(index)
            # The request arrives while the step is being computed.
            stepping.before = lambda _, lease=lease: executor.request(m.Pause(lease))
            event = await executor.execute(command)
            await bench.clear()
            if isinstance(event, m.PhaseFinished):
                break
            assert isinstance(event, m.Paused)
            assert (event.lease, event.step) == (lease, step + 1)
            assert event.state_bytes >= 0
            pauses += 1
        assert isinstance(event, m.PhaseFinished)
    assert pauses > 0
    assert bench.end() == undisturbed[kind]


async def test_a_pause_before_the_first_step(executor: DeviceExecutor) -> None:
    bench = Bench(executor, IMAGES)
    await bench.begin()
    await bench.bring_in(0)
    command = bench.start(0)
    executor.request(m.Pause(command.lease))
    event = await executor.execute(command)
    assert isinstance(event, m.Paused)
    assert event.step == 0
    assert bench.steps == []
    assert isinstance(await executor.execute(bench.resume(0)), m.PhaseFinished)
    bench.end()


async def test_a_cancel_before_the_run(executor: DeviceExecutor, kind: str) -> None:
    bench = Bench(executor, WORKS[kind])
    await bench.begin()
    command = bench.start(0)
    executor.request(m.Cancel(command.lease))
    assert await executor.execute(command) == m.RunCancelled(command.lease)
    assert bench.steps == []
    bench.end()


async def test_a_cancel_within_a_step(
    executor: DeviceExecutor, kind: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Every phase; the request comes while a step is being computed, and cuts it off."""
    for phase in range(len((await Bench(executor, WORKS[kind]).plan()).phases)):
        bench = Bench(executor, WORKS[kind])
        await bench.begin()
        for before in range(phase):
            await bench.runs(before)
        await bench.bring_in(phase)
        command, told = bench.start(phase), len(bench.steps)
        with monkeypatch.context() as patch:
            stepping = Stepping(executor, MODELS[kind], patch)
            stepping.before = lambda _, lease=command.lease: executor.request(m.Cancel(lease))
            assert await executor.execute(command) == m.RunCancelled(command.lease)
            assert stepping.count == 1
        assert len(bench.steps) == told
        bench.end()
    executor.forget(bench.part.id)
    executor._plans.clear()


async def test_requests_that_name_nobody_are_ignored(executor: DeviceExecutor) -> None:
    executor.request(m.Cancel(Lease(1, "nobody", 0)))
    executor.request(m.Pause(Lease(1, "nobody", 0)))
    assert executor._controls == {}, "nobody would ever forget them"
    executor.forget("nobody")
    bench = Bench(executor, TEXT)
    await bench.begin()
    executor.request(m.Cancel(Lease(99, bench.part.id, 0)))  # a run that is over
    assert isinstance(await bench.runs(0), m.PhaseFinished)
    bench.end()


def break_at(
    stepping: Stepping, executor: DeviceExecutor, name: str, at: int, error: Exception
) -> None:
    """After the step ``at`` has been computed, as far as the state is concerned."""
    step = stepping._step

    def broken(state: Any, token: Any) -> Any:
        outputs = step(state, token)
        if stepping.count == at + 1:
            stepping.count += 1  # once
            raise error
        return outputs

    stepping._step = broken


@pytest.mark.parametrize("at", [0, 1, 3, 4, 5])
async def test_out_of_memory_leaves_the_state_as_the_run_began(
    executor: DeviceExecutor,
    undisturbed: dict[str, list[Any]],
    kind: str,
    at: int,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """The run is repeated; what comes out is the same, and no text is told twice."""
    bench = Bench(executor, WORKS[kind])
    await bench.begin()
    stepping = Stepping(executor, MODELS[kind], monkeypatch)
    break_at(stepping, executor, kind, at, MemoryError("no room"))
    failed = 0
    for phase in range(len(bench.planned.phases)):
        event = await bench.runs(phase)
        if isinstance(event, m.RunFailed):
            failed += 1
            assert (event.fault, event.detail) == (Fault.OUT_OF_MEMORY, "MemoryError: no room")
            event = await bench.runs(phase)
        assert isinstance(event, m.PhaseFinished)
    assert failed == 1
    assert bench.end() == undisturbed[kind]


async def test_memory_that_lacks_at_the_very_beginning(
    executor: DeviceExecutor, undisturbed: dict[str, list[Any]], monkeypatch: pytest.MonkeyPatch
) -> None:
    bench = Bench(executor, IMAGES)
    await bench.begin()
    with monkeypatch.context() as patch:
        patch.setattr(executor._pipelines["sdxl"], "begin", raising(torch.OutOfMemoryError("x")))
        event = await bench.runs(0)
    assert isinstance(event, m.RunFailed)
    assert event.fault is Fault.OUT_OF_MEMORY
    for phase in range(len(bench.planned.phases)):
        assert isinstance(await bench.runs(phase), m.PhaseFinished)
    assert bench.end() == undisturbed["sdxl"]


def raising(error: Exception) -> Any:
    def call(*_: Any) -> Any:
        raise error

    return call


async def test_a_run_that_breaks_says_why_and_holds_nothing(
    executor: DeviceExecutor, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Also without a garbage collection, which may be long in coming."""
    held: list[weakref.ref[torch.Tensor]] = []
    bench = Bench(executor, IMAGES)
    await bench.begin()
    await bench.runs(0)
    pipeline = executor._pipelines["sdxl"]

    def broken(state: Any, token: Any) -> Any:
        latents = torch.zeros(1000)
        held.extend(weakref.ref(tensor) for tensor in [latents, *state.tensors.values()])
        try:
            raising(KeyError("inner"))()
        except KeyError as error:
            raise RuntimeError("a kernel\n  failed") from error

    monkeypatch.setattr(pipeline, "step", broken)
    gc.collect()
    gc.disable()
    try:
        event = await bench.runs(1)
        assert isinstance(event, m.RunFailed)
        assert (event.fault, event.detail) == (Fault.RUN, "RuntimeError: a kernel failed")
        bench.end()
        # The worker lets go of what it raised only after it has said so: give it something else.
        await asyncio.wrap_future(executor._runs._thread.submit(lambda: None))
        assert len(held) > 1
        assert [tensor() for tensor in held] == [None] * len(held)
    finally:
        gc.enable()


async def test_a_cancelled_scope_stops_the_thread_within_a_step(
    executor: DeviceExecutor, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Otherwise a crash of the service would wait for the whole phase."""
    bench = Bench(executor, replace(IMAGES, steps=50))
    await bench.begin()
    await bench.runs(0)
    await bench.bring_in(1)
    stepping = Stepping(executor, "sdxl", monkeypatch)
    reached, go_on = threading.Event(), threading.Event()

    def before(count: int) -> None:
        if count == 2:
            reached.set()
            assert go_on.wait(20)

    stepping.before = before
    async with anyio.create_task_group() as tasks:
        tasks.start_soon(executor.execute, bench.start(1))
        await anyio.to_thread.run_sync(reached.wait)
        tasks.cancel_scope.cancel()
        with anyio.CancelScope(shield=True):
            control = next(iter(executor._controls.values()))
            while not control.token.cancelled:
                await anyio.lowlevel.checkpoint()
            go_on.set()
    assert stepping.count == 3
    bench.end()


async def test_a_model_that_cannot_be_opened_costs_its_own_jobs(
    tiny_root: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    given = models(tiny_root)
    given["wan"] = Model(family="wan", path=tmp_path / "nothing")
    (tmp_path / "sdxl").mkdir()
    (tmp_path / "sdxl" / "model_index.json").write_text("not JSON")
    given["sdxl"] = Model(family="sdxl", path=tmp_path / "sdxl")
    given["qwen_base"] = given["qwen_instruct"]
    open_pipeline = module.open_pipeline

    def opening(config: Any, *args: Any) -> Any:
        if config.name == "qwen_base":
            raise ZeroDivisionError("a library's own")
        return open_pipeline(config, *args)

    monkeypatch.setattr(module, "open_pipeline", opening)
    executor = await open_executor(given)
    broken = executor.snapshot()["broken_models"]
    assert broken.keys() == {"wan", "sdxl", "qwen_base"}
    assert str(tmp_path / "nothing") in broken["wan"]
    for work in (IMAGES, VIDEO, replace(TEXT, model="base")):
        with pytest.raises(PlanRejected) as caught:
            await Bench(executor, work).plan()
        assert (caught.value.error.code, caught.value.error.retryable) == (
            ErrorCode.MODEL_LOAD,
            True,
        )
        assert "the worker's log says why" in caught.value.error.message
        assert str(tmp_path) not in caught.value.error.message
    assert (await Bench(executor, TEXT).run())[2]


async def test_the_plan_names_the_model_that_runs(tiny_root: Path, tmp_path: Path) -> None:
    """The first of the family that can be opened, not the first that is configured."""
    whole = tiny_root / FAMILIES["sdxl"]
    for paths, label in (((tmp_path, whole), "second"), ((whole, whole), "first")):
        labels = ("first", "second")
        executor = await open_executor(
            {
                name: Model(family="sdxl", path=path, label=name)
                for name, path in zip(labels, paths, strict=True)
            }
        )
        plan = await Bench(executor, IMAGES).plan()
        assert plan.model == label
        assert all(c.startswith(f"{label}.") for phase in plan.phases for c in phase.components)


async def test_a_model_that_is_not_configured(tiny_root: Path) -> None:
    executor = await open_executor({"sdxl": models(tiny_root)["sdxl"]})
    with pytest.raises(PlanRejected, match="no model is configured for VideoWork"):
        await Bench(executor, VIDEO).plan()


async def test_what_the_checkpoint_cannot_do_is_refused_with_its_field(
    tiny_root: Path, tmp_path: Path
) -> None:
    executor = await open_executor({"wan": Model(family="wan", path=tiny_root / "wan-t2v")})
    Image.new("RGB", (64, 32)).save(tmp_path / "start.png")
    bench = Bench(executor, replace(VIDEO, mode="start"))
    bench.references = {"start": tmp_path / "start.png"}
    with pytest.raises(PlanRejected) as caught:
        await bench.plan()
    assert caught.value.error.code is ErrorCode.INVALID_PARAMETER
    assert caught.value.error.field


async def test_moves_that_fail(
    tiny_root: Path, executor: DeviceExecutor, monkeypatch: pytest.MonkeyPatch
) -> None:
    own = await open_executor({"sdxl": models(tiny_root)["sdxl"]})
    name = "sdxl.vae"
    weights = own._weights[name]

    async def outcome_of(method: str, error: Exception, command: m.Command) -> m.Event:
        with monkeypatch.context() as patch:
            patch.setattr(weights, method, raising(error))
            return await own.execute(command)

    gone = module.CheckpointError(Path("vae.safetensors"), "truncated")
    assert await outcome_of("stage", gone, m.Stage(name)) == m.StageFailed(
        name, "vae.safetensors: truncated", permanent=True
    )
    assert await outcome_of("stage", OSError(5, "Input/output error"), m.Stage(name)) == (
        m.StageFailed(name, "OSError: [Errno 5] Input/output error", permanent=False)
    )
    assert await outcome_of("load", torch.OutOfMemoryError("full"), m.Load(name)) == m.LoadFailed(
        name, "OutOfMemoryError: full", Fault.OUT_OF_MEMORY
    )
    assert await outcome_of("load", RuntimeError("link"), m.Load(name)) == m.LoadFailed(
        name, "RuntimeError: link", Fault.LOAD
    )
    assert await own.execute(m.Stage(name)) == m.StageSucceeded(name)


async def test_health_asks_the_device_nothing(
    executor: DeviceExecutor, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("pipelines.device.Device.describe", raising(RuntimeError("driver")))
    snapshot = executor.snapshot()
    assert snapshot["kind"] == "cpu"
    assert snapshot["broken_models"] == {}


async def test_two_parts_take_turns(
    executor: DeviceExecutor, undisturbed: dict[str, list[Any]]
) -> None:
    """Phase by phase, each with the device to itself: their states do not meet."""
    one, two = Bench(executor, IMAGES), Bench(executor, VIDEO)
    await one.begin()
    await two.begin()
    for phase in range(max(len(one.planned.phases), len(two.planned.phases))):
        for bench in (one, two):
            if phase < len(bench.planned.phases):
                await bench.clear()
                assert isinstance(await bench.runs(phase), m.PhaseFinished)
    assert one.end() == undisturbed["sdxl"]
    assert two.end() == undisturbed["wan"]


@pytest.mark.parametrize(("kind", "phase"), [("sdxl", "denoise"), ("qwen", "generate")])
async def test_the_plan_says_with_whom_a_phase_can_be_shared(
    executor: DeviceExecutor, kind: str, phase: str
) -> None:
    """As the pipelines say it, and of no phase for a work that is to be repeated."""
    bench = Bench(executor, replace(WORKS[kind], seeded=False))
    planned = await bench.plan()
    own = executor._plans.pop(bench.part.id)
    plans = own.phases
    for told, plan in zip(planned.phases, plans, strict=True):
        assert (told.sharing is not None) == (told.name == phase)
        if told.sharing is not None:
            assert isinstance(told.sharing, Sharing)
            assert asdict(told.sharing) == asdict(plan.sharing)
            assert told.sharing.key.startswith(own.model)
    for marks in ({"seeded": True}, {"seeded": False, "reproducible": True}):
        bench = Bench(executor, replace(WORKS[kind], **marks))
        assert [told.sharing for told in (await bench.plan()).phases] == [None] * len(plans)
        executor.forget(bench.part.id)
