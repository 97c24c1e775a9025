"""A device that only pretends: configured bytes and seconds, pictures that follow from the seed.

It meets the same port as the real one and runs in the event loop, so that the service can be
driven quickly and, with a loop whose clock jumps, in virtual time. Faults are planted by job.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import anyio
import numpy as np
from numpy.typing import NDArray

from ourvidz.adapters.device_fake_runs import FakeControl, FakeMember, FakePart, FakeRuns
from ourvidz.adapters.device_fake_states import FakeStates
from ourvidz.jobs import ErrorCode, ImageWork, JobError, TextWork, VideoWork, may_share
from ourvidz.ports import (
    ImageProduced,
    Part,
    Plan,
    PlanRejected,
    RunNotice,
    RunSink,
    StateSaved,
    TextChunk,
    TextDone,
    VideoProduced,
)
from scheduler import messages as m
from scheduler.types import Component, Fault, Lease, Phase, Sharing

_SIDE_MAX = 64
_TOKENS_MAX = 16
_LOG_MAX = 100_000


@dataclass(frozen=True, slots=True)
class FakeModel:
    """One family's phases: name, component, weight and working bytes."""

    phases: tuple[tuple[str, str, int, int], ...]


DEFAULT_MODELS: Mapping[str, FakeModel] = {
    "sdxl": FakeModel(
        (
            ("encode", "sdxl.text_encoders", 1_600, 200),
            ("denoise", "sdxl.unet", 5_100, 500),
            ("decode", "sdxl.vae", 340, 3_000),
        )
    ),
    "wan": FakeModel(
        (
            ("encode", "wan.text_encoder", 11_400, 500),
            ("denoise", "wan.transformer", 2_800, 1_500),
            ("decode", "wan.vae", 500, 7_600),
        )
    ),
    "qwen_base": FakeModel((("generate", "qwen_base.model", 15_200, 1_500),)),
    "qwen_instruct": FakeModel((("generate", "qwen_instruct.model", 15_200, 1_500),)),
}


@dataclass(slots=True)
class Faults:
    """What is to go wrong: runs of a job (by its id's text) and loads of a component, in order;
    each planted fault happens once."""

    runs: dict[str, list[Fault]] = field(default_factory=dict)
    stages: dict[str, list[str]] = field(default_factory=dict)


class FakeDevice:
    """``ports.Executor`` without a device. ``step_seconds`` and ``move_seconds`` 0 take no time.

    Texts, and the denoising of images of one size with the same settings, share their steps, up to
    ``units_max`` texts or images, where their works may; such a step takes as much longer as the
    ``exponent`` says. What is denoised alone is written down after each ``save_steps`` steps, not
    at all with 0. ``log`` holds the last commands. A subclass may override ``pace`` to decide
    when a step ends, and ``move_pace`` when a stage or load does.
    """

    def __init__(
        self,
        step_seconds: float = 0.0,
        move_seconds: float = 0.0,
        models: Mapping[str, FakeModel] = DEFAULT_MODELS,
        faults: Faults | None = None,
        units_max: int = 1,
        exponent: float = 0.0,
        save_steps: int = 0,
    ) -> None:
        self.faults = faults or Faults()
        self.log: deque[m.Command] = deque(maxlen=_LOG_MAX)
        self._step_seconds = step_seconds
        self._move_seconds = move_seconds
        self._models = models
        self._units_max = units_max
        self._exponent = exponent
        self._runs: dict[str, FakePart] = {}
        self._states = FakeStates(save_steps)
        self._planned: dict[str, tuple[tuple[Phase, ...], int]] = {}
        self._controls: dict[Lease, FakeControl] = {}
        self._shared = FakeRuns(self.pace, self._yielded)
        self._moves: dict[str, anyio.Event] = {}

    async def open(self) -> None:
        """Nothing to prepare."""

    @property
    def components(self) -> Sequence[Component]:
        return [
            Component(component, weight)
            for model in self._models.values()
            for _, component, weight, _ in model.phases
        ]

    async def plan(self, part: Part) -> Plan:
        work = part.work
        if isinstance(work, TextWork):
            name, steps = f"qwen_{work.model}", min(work.max_tokens, _TOKENS_MAX)
        else:
            name, steps = "wan" if isinstance(work, VideoWork) else "sdxl", work.steps
        if name not in self._models:
            message = f"no model is configured for {type(work).__name__}"
            raise PlanRejected(JobError(ErrorCode.MODEL_LOAD, message, retryable=True))
        phases = tuple(
            self._phase(phase, component, working, steps, part)
            for phase, component, _, working in self._models[name].phases
        )
        self._planned[part.id] = self._states.remaining(part, phases)
        return Plan(self._planned[part.id][0], (), name)

    def begin(self, part: Part, sink: RunSink) -> None:
        phases, done = self._planned.pop(part.id)
        self._runs[part.id] = FakePart(part, phases, sink, done)

    def forget(self, part_id: str) -> None:
        self._planned.pop(part_id, None)
        self._runs.pop(part_id, None)
        for lease in [lease for lease in self._controls if lease.job == part_id]:
            del self._controls[lease]

    def request(self, request: m.Pause | m.Cancel | m.Abort) -> None:
        if isinstance(request, m.Abort):
            if request.component in self._moves:
                self._moves[request.component].set()
        elif request.lease.job in self._runs:
            control = self._controls.setdefault(request.lease, FakeControl())
            if isinstance(request, m.Cancel):
                control.cancel.set()
            else:
                control.pause = True

    async def execute(self, command: m.Command) -> m.Event:
        self.log.append(command)
        match command:
            case m.Stage() | m.Load():
                return await self._transfer(command)
            case m.Evict(name):
                return m.Evicted(name)
            case m.Unstage(name):
                return m.Unstaged(name)
            case m.Start(lease) | m.Resume(lease):
                return await self._shared.take_part(self._member(lease), command)
        raise TypeError(f"{command!r} has no terminal event")

    def snapshot(self) -> Mapping[str, Any]:
        return {"kind": "fake", "name": "fake"}

    async def pace(
        self,
        part: Part,
        phase: Phase,
        step: int,  # noqa: ARG002 - for subclasses
        cancelled: anyio.Event,
    ) -> Fault | None:
        """Return when the step may end for the part, at once if ``cancelled``; or why it fails. A
        step that several parts take ends when it may for all of them."""
        with anyio.move_on_after(self.step_seconds(part, phase)):
            await cancelled.wait()
        return None

    def step_seconds(self, part: Part, phase: Phase) -> float:
        """How long the part's present step takes, with those that take it too."""
        if phase.sharing is None:
            return self._step_seconds
        return self._step_seconds * phase.sharing.factor(self._runs[part.id].units)

    async def move_pace(self, component: str, aborted: anyio.Event) -> None:  # noqa: ARG002
        """Return when the component's stage or load may end, at once if ``aborted``."""
        with anyio.move_on_after(self._move_seconds):
            await aborted.wait()

    def _phase(self, name: str, component: str, working: int, steps: int, part: Part) -> Phase:
        if name == "encode":
            steps = 1
        elif name == "decode":
            steps = len(part.pictures)
        seconds = self._step_seconds * steps
        sharing = self._sharing(name, component, part)
        return Phase(name, (component,), working, seconds, steps, sharing=sharing)

    def _sharing(self, name: str, component: str, part: Part) -> Sharing | None:
        work = part.work
        if self._units_max == 1 or not may_share(work):
            return None
        key, limit, exponent = f"{component} {name}", self._units_max, self._exponent
        if isinstance(work, TextWork):
            return Sharing(key, 1, limit, exponent, mid_phase=True)
        if isinstance(work, ImageWork) and name == "denoise":
            settings = (work.width, work.height, work.steps, work.guidance_scale, work.strength)
            units = len(part.pictures)
            return Sharing(f"{key} {settings}", units, limit, exponent, mid_phase=False)
        return None

    def _yielded(self, part: Part, phase: Phase, step: int) -> list[RunNotice]:
        notices = _notices(part, phase, step)
        if self._states.keep(part, phase, self._runs[part.id].done + step + 1):
            notices.append(StateSaved(part.id, None))
        return notices

    def _member(self, lease: Lease) -> FakeMember:
        of = self._runs[lease.job]
        planted = self.faults.runs.get(str(of.part.spec.id))
        control = self._controls.setdefault(lease, FakeControl())
        return FakeMember(of, lease, control, planted.pop(0) if planted else None)

    async def _transfer(self, command: m.Stage | m.Load) -> m.Event:
        name = command.component
        aborted = self._moves[name] = anyio.Event()
        try:
            await self.move_pace(name, aborted)
        finally:
            del self._moves[name]
        if aborted.is_set():
            return m.Aborted(name)
        if isinstance(command, m.Load):
            return m.LoadSucceeded(name)
        planted = self.faults.stages.get(name)
        if planted:
            return m.StageFailed(name, planted.pop(0), permanent=True)
        return m.StageSucceeded(name)


def _notices(part: Part, phase: Phase, step: int) -> list[RunNotice]:
    work = part.work
    if isinstance(work, TextWork):
        words = [f"word{work.seed % 97 + i} " for i in range(phase.steps)]
        chunk: list[RunNotice] = [TextChunk(part.id, words[step])]
        if step + 1 == phase.steps:
            text = "".join(words)
            chunk.append(TextDone(part.id, text, len(work.messages), phase.steps, "stop"))
        return chunk
    if phase.name != "decode":
        return []
    if isinstance(work, ImageWork):
        index = part.pictures[step]
        return [ImageProduced(part.id, index, _pixels(work.seed + index, work, 1)[0])]
    if work.frames == 1:
        return [ImageProduced(part.id, 0, _pixels(work.seed, work, 1)[0])]
    return [VideoProduced(part.id, _pixels(work.seed, work, work.frames))]


def _pixels(seed: int, work: ImageWork | VideoWork, frames: int) -> NDArray[np.uint8]:
    """Noise of the seed, small: (frames, height, width, 3)."""
    shape = (frames, min(work.height, _SIDE_MAX), min(work.width, _SIDE_MAX), 3)
    return np.random.default_rng(seed).integers(0, 256, shape, dtype=np.uint8)
