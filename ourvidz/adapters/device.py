"""The device and its pipelines as the service's ``Executor``.

Runs go through one worker thread at a time, moves of weights through another; the loop only ever
waits. A run's state lives here, by part, between its phases and while it is paused: no thread, no
frame and no lock is held for it.
"""

from __future__ import annotations

import asyncio
import sys
import traceback
from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from typing import Any

import anyio
import structlog

from ourvidz.adapters.requests import request_of
from ourvidz.config.settings import Device as DeviceSettings
from ourvidz.config.settings import Model
from ourvidz.jobs import ErrorCode, JobError, TextWork, VideoWork, Work
from ourvidz.ports import (
    ImageProduced,
    Part,
    Plan,
    PlanRejected,
    RunNotice,
    RunSink,
    TextChunk,
    TextDone,
    VideoProduced,
)
from pipelines.base import (
    CancelToken,
    ImageOutput,
    Output,
    PhasePlan,
    Pipeline,
    RunCancelled,
    TextDelta,
    TextOutput,
    UnsupportedRequest,
    VideoOutput,
)
from pipelines.component import Component as Weights
from pipelines.device import Device
from pipelines.faults import is_out_of_memory
from pipelines.registry import ModelConfig, open_pipeline
from pipelines.setup import prepare
from pipelines.state import State
from pipelines.weights import CheckpointError
from scheduler import messages as m
from scheduler.types import Component, Fault, Lease, Phase

log = structlog.get_logger()

# The loop must get the interpreter back quickly from small models' Python code.
_SWITCH_SECONDS = 0.0005


@dataclass(slots=True)
class _Run:
    """One part that the scheduler may run: what is asked, and its state once begun.

    ``said`` counts the characters of text up to the state, ``told`` those that followers have had:
    a run that has to be repeated after an out-of-memory error tells them nothing twice.
    """

    part: Part
    pipeline: Pipeline
    plans: tuple[PhasePlan, ...]
    sink: RunSink
    state: State | None = None
    said: int = 0
    told: int = 0


@dataclass(slots=True)
class _Control:
    """The stop signs of one lease; a request may come before its run has begun."""

    token: CancelToken = field(default_factory=CancelToken)
    pause: bool = False


class DeviceExecutor:
    """``ports.Executor`` over ``pipelines``."""

    def __init__(self, settings: DeviceSettings, models: Mapping[str, Model]) -> None:
        self._settings = settings
        self._models = models
        self._device = Device(settings.kind, settings.index, settings.poison_evicted)
        self._pipelines: dict[str, Pipeline] = {}
        self._broken: dict[str, str] = {}
        self._weights: dict[str, Weights] = {}
        self._plans: dict[str, tuple[Pipeline, tuple[PhasePlan, ...]]] = {}
        self._runs: dict[str, _Run] = {}
        self._controls: dict[Lease, _Control] = {}
        self._facts: Mapping[str, Any] = {}
        self._run_thread = anyio.CapacityLimiter(1)
        self._move_thread = anyio.CapacityLimiter(1)
        self._plan_thread = anyio.CapacityLimiter(1)

    async def open(self) -> None:
        """Import the libraries and read configurations and headers. A model that cannot be opened
        costs only its own jobs."""
        sys.setswitchinterval(_SWITCH_SECONDS)
        await anyio.to_thread.run_sync(prepare, self._settings.threads)
        self._facts = await anyio.to_thread.run_sync(self._device.describe)
        for name, model in self._models.items():
            config = ModelConfig(
                name, model.family, model.path, model.config_path, model.dtype, model.label
            )
            factor = self._settings.working_bytes_factor
            try:
                pipeline = await anyio.to_thread.run_sync(
                    open_pipeline, config, self._device, factor
                )
            except CheckpointError as error:
                log.error("model_broken", model=name, reason=str(error))
                self._broken[name] = str(error)
                continue
            except Exception as error:
                # A checkpoint can be wrong in ways that only a library notices.
                log.exception("model_broken", model=name)
                self._broken[name] = _describe(error)
                continue
            self._pipelines[name] = pipeline
            self._weights.update(pipeline.components)

    @property
    def components(self) -> Sequence[Component]:
        return [Component(name, w.weight_bytes) for name, w in self._weights.items()]

    async def plan(self, part: Part) -> Plan:
        name = self._model_for(part.work)
        pipeline = self._pipelines[name]
        request = request_of(part.work, part.references)
        try:
            plans, warnings = await anyio.to_thread.run_sync(
                lambda: (pipeline.plan(request), pipeline.warnings(request)),
                limiter=self._plan_thread,
            )
        except UnsupportedRequest as error:
            raise PlanRejected(
                JobError(ErrorCode.INVALID_PARAMETER, str(error), field=error.field)
            ) from error
        self._plans[part.id] = (pipeline, plans)
        seconds = self._models[name].step_seconds
        return Plan(tuple(_phase(plan, seconds) for plan in plans), tuple(warnings))

    def begin(self, part: Part, sink: RunSink) -> None:
        pipeline, plans = self._plans.pop(part.id)
        self._runs[part.id] = _Run(part, pipeline, plans, sink)

    def forget(self, part_id: str) -> None:
        self._plans.pop(part_id, None)
        self._runs.pop(part_id, None)
        for lease in [lease for lease in self._controls if lease.job == part_id]:
            del self._controls[lease]

    def request(self, request: m.Pause | m.Cancel) -> None:
        if request.lease.job not in self._runs:
            return
        control = self._controls.setdefault(request.lease, _Control())
        if isinstance(request, m.Cancel):
            control.token.cancel()
        else:
            control.pause = True

    async def execute(self, command: m.Command) -> m.Event:
        match command:
            case m.Stage(name):
                return await self._stage(name)
            case m.Load(name):
                return await self._load(name)
            case m.Evict(name):
                await self._move(self._weights[name].evict)
                return m.Evicted(name)
            case m.Unstage(name):
                await self._move(self._weights[name].unstage)
                return m.Unstaged(name)
            case m.Start(lease) | m.Resume(lease):
                return await self._run(lease)
        raise TypeError(f"{command!r} has no terminal event")

    def snapshot(self) -> Mapping[str, Any]:
        return {**self._facts, "broken_models": dict(self._broken)}

    def _model_for(self, work: Work) -> str:
        """Raises ``PlanRejected``."""
        if isinstance(work, TextWork):
            wanted = [f"qwen_{work.model}"]
        else:
            family = "wan" if isinstance(work, VideoWork) else "sdxl"
            wanted = [name for name, model in self._models.items() if model.family == family]
        for name in wanted:
            if name in self._pipelines:
                return name
        reasons = [self._broken[name] for name in wanted if name in self._broken]
        message = reasons[0] if reasons else f"no model is configured for {type(work).__name__}"
        raise PlanRejected(JobError(ErrorCode.MODEL_LOAD, message, retryable=True))

    async def _move(self, action: Callable[[], None]) -> None:
        await anyio.to_thread.run_sync(action, limiter=self._move_thread)

    async def _stage(self, name: str) -> m.Event:
        try:
            await self._move(self._weights[name].stage)
        except CheckpointError as error:
            return m.StageFailed(name, str(error), permanent=True)
        except Exception as error:
            log.exception("stage_failed", component=name)
            return m.StageFailed(name, _described(error), permanent=False)
        return m.StageSucceeded(name)

    async def _load(self, name: str) -> m.Event:
        try:
            await self._move(self._weights[name].load)
        except Exception as error:
            log.exception("load_failed", component=name)
            fault = Fault.OUT_OF_MEMORY if is_out_of_memory(error) else Fault.LOAD
            return m.LoadFailed(name, _described(error), fault)
        return m.LoadSucceeded(name)

    async def _run(self, lease: Lease) -> m.Event:
        run = self._runs[lease.job]
        control = self._controls.setdefault(lease, _Control())
        loop = asyncio.get_running_loop()

        def report(notice: RunNotice) -> None:
            loop.call_soon_threadsafe(run.sink, notice)

        try:
            async with _cancelled_with(control.token):
                return await anyio.to_thread.run_sync(
                    _run_phase, run, lease, control, report, limiter=self._run_thread
                )
        except RunCancelled:
            return m.RunCancelled(lease)
        except Exception as error:
            fault = Fault.OUT_OF_MEMORY if is_out_of_memory(error) else Fault.RUN
            if fault is Fault.RUN:
                log.exception("run_failed", job=lease.job, phase=lease.phase)
            return m.RunFailed(lease, fault, _described(error))
        finally:
            self._controls.pop(lease, None)


@asynccontextmanager
async def _cancelled_with(token: CancelToken) -> AsyncIterator[None]:
    """A block whose cancellation reaches the worker thread through ``token``: awaiting a thread
    cannot be cut off, and a phase may take minutes."""

    async def watch() -> None:
        try:
            await anyio.sleep_forever()
        finally:
            token.cancel()

    failure: Exception | None = None
    async with anyio.create_task_group() as tasks:
        tasks.start_soon(watch)
        try:
            yield
        except Exception as error:  # noqa: BLE001 - re-raised below, not in a group
            failure = error
        tasks.cancel_scope.cancel()
    if failure is not None:
        raise failure


def _run_phase(
    run: _Run, lease: Lease, control: _Control, report: Callable[[RunNotice], None]
) -> m.Event:
    """Step through one phase, in the run's worker thread."""
    if run.state is None:
        run.state = run.pipeline.begin(request_of(run.part.work, run.part.references))
    begun, said = run.state.copy(), run.said
    try:
        return _run_steps(run, run.state, lease, control, report)
    except Exception as error:
        if is_out_of_memory(error):
            run.state, run.said = begun, said
        raise


def _run_steps(
    run: _Run, state: State, lease: Lease, control: _Control, report: Callable[[RunNotice], None]
) -> m.Event:
    phase = run.plans[lease.phase].name
    while state.phase == phase:
        control.token.check()
        if control.pause:
            return m.Paused(lease, state.step, state.device_bytes)
        step = state.step + 1
        for output in run.pipeline.step(state, control.token):
            report(_notice(run, output))
        report(m.StepReached(lease, step))
    return m.PhaseFinished(lease, state.device_bytes)


def _notice(run: _Run, output: Output) -> RunNotice:
    part = run.part.id
    match output:
        case ImageOutput(index, pixels):
            return ImageProduced(part, index, pixels)
        case VideoOutput(frames):
            return VideoProduced(part, frames)
        case TextDelta(text):
            return TextChunk(part, _untold(run, text))
        case TextOutput(text, prompt_tokens, tokens, finish_reason):
            return TextDone(part, text, prompt_tokens, tokens, finish_reason)


def _untold(run: _Run, text: str) -> str:
    """What of a delta followers have not had yet."""
    begin = run.said
    run.said += len(text)
    new = text[max(0, run.told - begin) :]
    run.told = max(run.told, run.said)
    return new


def _phase(plan: PhasePlan, step_seconds: float) -> Phase:
    return Phase(
        plan.name,
        plan.components,
        plan.working_bytes,
        step_seconds * plan.steps,
        plan.steps,
        plan.state_bytes,
    )


def _describe(error: BaseException) -> str:
    """One line for the job's error."""
    text = " ".join(str(error).split())[:500]
    return f"{type(error).__name__}: {text}" if text else type(error).__name__


def _described(error: BaseException) -> str:
    """``_describe``, and let go what the exception holds: it lives on in reference cycles of the
    event loop's, and its frames hold latents and weights."""
    met = [error]
    for one in met:
        traceback.clear_frames(one.__traceback__)
        one.__traceback__ = None
        met += [e for e in (one.__cause__, one.__context__) if e is not None and e not in met]
    return _describe(error)
