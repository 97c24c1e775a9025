"""A part on an executor that is driven by hand instead of by a scheduler; the real executor over
the tiny checkpoints."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any
from uuid import UUID, uuid4

from ourvidz.adapters.device import DeviceExecutor
from ourvidz.config.settings import Device, Model
from ourvidz.jobs import ChatMessage, ImageWork, JobSpec, JobType, TextWork, VideoWork, Work
from ourvidz.ports import (
    Executor,
    ImageProduced,
    Part,
    Plan,
    RunNotice,
    TextChunk,
    TextDone,
    VideoProduced,
)
from scheduler import messages as m
from scheduler.types import Lease

IMAGES = ImageWork("a pear", "", 64, 64, 2, 3, 5.0, 7)
VIDEO = VideoWork("waves", "", 64, 32, 5, 16, 3, 5.0, 5.0, 7)
TEXT = TextWork("chat", "instruct", (ChatMessage("user", "hello"),), 12, 0.7, 0.9, 7)
_RUNS = itertools.count(1)
FAMILIES = {"sdxl": "sdxl", "wan": "wan-vace", "qwen_instruct": "qwen-instruct"}


def models(root: Path) -> dict[str, Model]:
    return {
        name: Model(family=name.partition("_")[0], path=root / folder)  # type: ignore[arg-type]
        for name, folder in FAMILIES.items()
    }


async def open_executor(given: Mapping[str, Model], **options: Any) -> DeviceExecutor:
    executor = DeviceExecutor(Device(threads=1, **options), given)
    await executor.open()
    return executor


@dataclass
class Bench:
    """One part on the executor; ``on`` is called with each notice as it comes."""

    executor: Executor
    work: Work
    notices: list[RunNotice] = field(default_factory=list)
    on: Callable[[RunNotice], None] = lambda _: None
    references: Mapping[str, Path] = field(default_factory=dict)
    wanted: tuple[int, ...] = ()
    spool: Path = Path("spool")

    async def plan(self) -> Plan:
        spec = JobSpec(
            id=uuid4(),
            type=JobType.SDXL_GENERATE,
            requested_type="sdxl_generate",
            user_id=UUID(int=1),
            job_class="normal",
            works=(self.work,),
            digest="",
            original_prompt="",
        )
        self.part = Part(str(spec.id), spec, self.work, self.references, self.spool, self.wanted)
        self.planned = await self.executor.plan(self.part)
        return self.planned

    async def begin(self) -> None:
        await self.plan()
        self.executor.begin(self.part, self._notice)
        self._leases = 0

    def lease(self, phase: int) -> Lease:
        self._leases += 1
        return Lease(self._leases, self.part.id, phase)

    def start(self, phase: int, run: int | None = None, starters: int = 1) -> m.Start:
        """A command with a lease of its own, for a run of its own unless ``run`` says which."""
        return m.Start(self.lease(phase), next(_RUNS) if run is None else run, starters)

    def resume(self, phase: int, run: int | None = None, starters: int = 1) -> m.Resume:
        """As ``start``."""
        return m.Resume(self.lease(phase), next(_RUNS) if run is None else run, starters)

    async def bring_in(self, phase: int) -> None:
        for name in self.planned.phases[phase].components:
            tier = self._tier(name)
            if tier == "absent":
                await self.does(m.Stage(name), m.StageSucceeded(name))
            if tier != "resident":
                await self.does(m.Load(name), m.LoadSucceeded(name))

    async def clear(self) -> None:
        """Everything off the device; what is left there afterwards is poison."""
        for component in self.executor.components:
            if self._tier(component.name) == "resident":
                await self.does(m.Evict(component.name), m.Evicted(component.name))

    def _tier(self, name: str) -> str:
        """The fake device has none, and takes every move."""
        real = isinstance(self.executor, DeviceExecutor)
        return self.executor._weights[name].tier if real else "absent"

    async def does(self, command: m.Command, event: m.Event) -> None:
        assert await self.executor.execute(command) == event

    async def runs(self, phase: int) -> m.Event:
        """Run one phase with its components, and nothing else, on the device."""
        await self.bring_in(phase)
        return await self.executor.execute(self.start(phase))

    async def run(self) -> list[Any]:
        """Run everything; returns what came out."""
        await self.begin()
        for phase in range(len(self.planned.phases)):
            event = await self.runs(phase)
            assert isinstance(event, m.PhaseFinished), event
        return self.end()

    def end(self) -> list[Any]:
        self.executor.forget(self.part.id)
        return outcome(self.notices)

    def _notice(self, notice: RunNotice) -> None:
        self.notices.append(notice)
        self.on(notice)

    @property
    def steps(self) -> list[tuple[int, int]]:
        """Phase and step of every report of progress."""
        return [(n.lease.phase, n.step) for n in self.notices if isinstance(n, m.StepReached)]


def outcome(notices: list[RunNotice]) -> list[Any]:
    """What came out, comparable: pictures by index as bytes, text with what followers read."""
    found: dict[int, bytes] = {}
    text: list[str] = []
    done: list[Any] = []
    for notice in notices:
        match notice:
            case ImageProduced(_, index, pixels):
                found[index] = pixels.tobytes()
            case VideoProduced(_, frames):
                found[0] = frames.tobytes()
            case TextChunk(_, chunk):
                text.append(chunk)
            case TextDone():
                done = [notice.text, notice.tokens, notice.finish_reason]
    return [sorted(found.items()), "".join(text), done]
