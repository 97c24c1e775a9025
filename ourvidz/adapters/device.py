"""The device and its pipelines as the service's ``Executor``.

Runs go through one worker thread at a time (``device_runs``), moves of weights through another
(``device_moves``); the loop only ever waits. A part's state lives here between its phases and while
it is paused: no thread, no frame and no lock is held for it.
"""

from __future__ import annotations

import asyncio
import contextlib
import sys
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

import anyio
import structlog

from ourvidz import __version__
from ourvidz.adapters.device_errors import describe
from ourvidz.adapters.device_member import Control, Member, Runnable
from ourvidz.adapters.device_moves import Moves
from ourvidz.adapters.device_runs import Runs
from ourvidz.adapters.requests import request_of
from ourvidz.adapters.saved_states import SavedStates, Saving, remaining
from ourvidz.config.settings import Device as DeviceSettings
from ourvidz.config.settings import Model
from ourvidz.errors import DeviceFailed, DeviceMissing
from ourvidz.jobs import ErrorCode, JobError, TextWork, VideoWork, Work
from ourvidz.ports import Part, Plan, PlanRejected, RunSink, StateSaved
from pipelines.base import PhasePlan, Pipeline, UnsupportedRequest
from pipelines.build import build_facts, model_facts
from pipelines.component import Component as Weights
from pipelines.device import Device
from pipelines.registry import ModelConfig, open_pipeline
from pipelines.setup import prepare
from pipelines.state import State
from pipelines.weights import CheckpointError
from scheduler import messages as m
from scheduler.types import Component, Lease, Phase, Sharing

log = structlog.get_logger()

# The loop must get the interpreter back quickly from small models' Python code.
_SWITCH_SECONDS = 0.0005


@dataclass(frozen=True, slots=True)
class _Planned:
    """A part by its model: the phases that are left of it, from the state in which an earlier
    process left it, if it did."""

    model: str
    phases: tuple[PhasePlan, ...]
    left: State | None


class DeviceExecutor:
    """``ports.Executor`` over ``pipelines``."""

    def __init__(self, settings: DeviceSettings, models: Mapping[str, Model]) -> None:
        self._settings = settings
        self._models = models
        self._device = Device(settings.kind, settings.index, settings.poison_evicted)
        self._pipelines: dict[str, Pipeline] = {}
        self._broken: dict[str, str] = {}
        self._weights: dict[str, Weights] = {}
        self._builds: dict[str, Mapping[str, str]] = {}
        self._plans: dict[str, _Planned] = {}
        self._runnables: dict[str, Runnable] = {}
        self._controls: dict[Lease, Control] = {}
        self._peak: tuple[Lease | None, int | None] = (None, None)
        self._facts: Mapping[str, Any] = {}
        self._runs = Runs()
        self._moves = Moves()
        self._states = SavedStates(settings.save_state_seconds)
        self._plan_thread = anyio.CapacityLimiter(1)

    async def open(self) -> None:
        """Import the libraries and read configurations and headers. A model that cannot be opened
        costs only its own jobs."""
        sys.setswitchinterval(_SWITCH_SECONDS)
        await anyio.to_thread.run_sync(prepare, self._settings.threads)
        where = f"device.kind = {self._settings.kind}, device.index = {self._settings.index}"
        try:
            self._facts = await anyio.to_thread.run_sync(self._device.describe)
        except AssertionError as error:  # as torch says that it knows no such card
            raise DeviceMissing(f"{where}: {error}") from error
        except RuntimeError as error:  # a driver that does not answer, which may be late
            raise DeviceFailed(f"{where}: {error}") from error
        build = await anyio.to_thread.run_sync(build_facts, self._device)
        for name, model in self._models.items():
            config = ModelConfig(name, model.family, model.path, model.config_path, model.dtype)
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
                self._broken[name] = describe(error)
                continue
            paths = [path for path in (model.path, model.config_path) if path is not None]
            model_build = await anyio.to_thread.run_sync(model_facts, paths, model.dtype)
            self._builds[name] = {"ourvidz": __version__, **build, **model_build}
            self._pipelines[name] = pipeline
            self._weights.update(pipeline.components)

    @property
    def components(self) -> Sequence[Component]:
        return [Component(name, w.weight_bytes) for name, w in self._weights.items()]

    async def plan(self, part: Part) -> Plan:
        name = self._model_for(part.work)
        pipeline = self._pipelines[name]
        request = request_of(part.work, part.references, part.wanted)
        try:
            plans, warnings = await anyio.to_thread.run_sync(
                lambda: (pipeline.plan(request), pipeline.warnings(request)),
                limiter=self._plan_thread,
            )
        except UnsupportedRequest as error:
            raise PlanRejected(
                JobError(ErrorCode.INVALID_PARAMETER, str(error), field=error.field)
            ) from error
        left = None
        if not any(plan.sharing for plan in plans):
            left = await anyio.to_thread.run_sync(
                self._states.find,
                part.state_folder,
                request,
                self._builds[name],
                limiter=self._plan_thread,
            )
        whole = plans
        if left is not None:
            plans = remaining(whole, left)
        if not plans:
            left, plans = None, whole
        self._plans[part.id] = _Planned(name, plans, left)
        model = self._models[name]
        phases = tuple(_phase(plan, model.step_seconds) for plan in plans)
        return Plan(phases, tuple(warnings), model.label)

    def begin(self, part: Part, sink: RunSink) -> None:
        planned = self._plans.pop(part.id)
        pipeline = self._pipelines[planned.model]
        self._runnables[part.id] = Runnable(
            part,
            pipeline,
            planned.phases,
            sink,
            left=planned.left,
            skipped=0 if planned.left is None else planned.left.step,
            saving=self._saving(part, planned, sink),
        )

    def _saving(self, part: Part, planned: _Planned, sink: RunSink) -> Saving | None:
        """Who shares steps has no bits to go on with; texts are short, and told as they come."""
        if isinstance(part.work, TextWork) or any(plan.sharing for plan in planned.phases):
            return None
        loop = asyncio.get_running_loop()

        def tell(error: str | None) -> None:
            with contextlib.suppress(RuntimeError):  # the loop may have ended meanwhile
                loop.call_soon_threadsafe(sink, StateSaved(part.id, error))

        return Saving(part.state_folder, self._builds[planned.model], tell)

    def forget(self, part_id: str) -> None:
        self._plans.pop(part_id, None)
        self._runnables.pop(part_id, None)
        for lease in [lease for lease in self._controls if lease.job == part_id]:
            del self._controls[lease]

    def request(self, request: m.Pause | m.Cancel | m.Abort) -> None:
        if isinstance(request, m.Abort):
            self._moves.abort(request.component)
        elif request.lease.job in self._runnables:
            control = self._controls.setdefault(request.lease, Control())
            if isinstance(request, m.Cancel):
                control.token.cancel()
            else:
                control.pause = True

    async def execute(self, command: m.Command) -> m.Event:
        match command:
            case m.Stage(name) | m.Load(name) | m.Evict(name) | m.Unstage(name):
                return await self._moves.carry_out(command, self._weights[name])
            case m.Start(lease) | m.Resume(lease):
                control = self._controls.setdefault(lease, Control())
                runnable = self._runnables[lease.job]
                member = Member(runnable, lease, control, self._device, self._states)
                try:
                    return await self._runs.take_part(member, command)
                finally:
                    self._controls.pop(lease, None)
                    self._peak = (lease, member.peak_bytes)
        raise TypeError(f"{command!r} has no terminal event")

    def peak_bytes(self, lease: Lease) -> int | None:
        """``ports.PeakMeter``: of the run that ended last."""
        measured, peak = self._peak
        return peak if measured == lease else None

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
        broken = [name for name in wanted if name in self._broken]
        # The reason names paths of this machine, which are none of the caller's business.
        message = (
            f"the model {broken[0]} cannot be opened; the worker's log says why"
            if broken
            else f"no model is configured for {type(work).__name__}"
        )
        raise PlanRejected(JobError(ErrorCode.MODEL_LOAD, message, retryable=True))


def _phase(plan: PhasePlan, step_seconds: float) -> Phase:
    return Phase(
        plan.name,
        plan.components,
        plan.working_bytes,
        step_seconds * plan.steps,
        plan.steps,
        plan.state_bytes,
        # The pipelines' type of the same fields.
        None if plan.sharing is None else Sharing(**asdict(plan.sharing)),
    )
