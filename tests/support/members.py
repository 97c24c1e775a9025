"""Parts that share a run, and their commands under way."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import replace

import anyio
from anyio.abc import TaskGroup
from support.bench import IMAGES, TEXT, Bench
from support.rigs import LIMIT_SECONDS, Rig
from support.turns import turns

from ourvidz.jobs import Work
from ourvidz.ports import TextDone
from scheduler import messages as m

WORKS: dict[str, Work] = {
    "text": replace(TEXT, seeded=False),
    "images": replace(IMAGES, seeded=False),
}
SHARED_PHASE = {"text": 0, "images": 1}
RUN = 1_000_000


class Member:
    """A part that stands before the phase that can be shared, with its components in place."""

    def __init__(self, rig: Rig, kind: str, seed: int) -> None:
        self.bench = Bench(rig.executor, replace(WORKS[kind], seed=seed))
        self.kind = kind
        self.phase = SHARED_PHASE[kind]

    async def ready(self) -> None:
        await self.bench.begin()
        for phase in range(self.phase):
            assert isinstance(await self.bench.runs(phase), m.PhaseFinished)
        await self.bench.bring_in(self.phase)

    def start(self, run: int = RUN, starters: int = 1) -> m.Start:
        return self.bench.start(self.phase, run, starters)

    def resume(self, run: int = RUN, starters: int = 1) -> m.Resume:
        return self.bench.resume(self.phase, run, starters)

    @property
    def id(self) -> str:
        return self.bench.part.id

    @property
    def steps(self) -> list[int]:
        return [step for phase, step in self.bench.steps if phase == self.phase]

    async def assert_whole(self) -> None:
        """After the phase: what follows runs too, and everything came out once."""
        assert self.steps == list(range(1, len(self.steps) + 1))
        for phase in range(self.phase + 1, len(self.bench.planned.phases)):
            assert isinstance(await self.bench.runs(phase), m.PhaseFinished)
        ended = any(
            isinstance(n, TextDone) and n.finish_reason == "stop" for n in self.bench.notices
        )
        assert ended or len(self.steps) == self.bench.planned.phases[self.phase].steps
        pictures, text, done = self.bench.end()
        if self.kind == "text":
            assert done[0] == text
        else:
            assert [index for index, _ in pictures] == [0, 1]


async def members(rig: Rig, kind: str, count: int) -> list[Member]:
    found = [Member(rig, kind, seed) for seed in range(7, 7 + count)]
    for member in found:
        await member.ready()
    rig.orders.taken.clear()
    return found


class Going:
    """Commands under way, in a task group of their own."""

    def __init__(self, rig: Rig, tasks: TaskGroup) -> None:
        self._rig = rig
        self.tasks = tasks
        self.events: dict[str, m.Event] = {}
        self.cancelled: set[str] = set()

    async def begin(self, command: m.Start | m.Resume) -> anyio.CancelScope:
        """The command has come when this returns, unless it has ended already."""
        scope = anyio.CancelScope()
        self.tasks.start_soon(self._execute, command, scope)
        await turns(3)
        return scope

    async def _execute(self, command: m.Start | m.Resume, scope: anyio.CancelScope) -> None:
        with scope:
            event = await self._rig.executor.execute(command)
            assert command.lease.job not in self.events
            self.events[command.lease.job] = event
        if scope.cancelled_caught:
            self.cancelled.add(command.lease.job)


@asynccontextmanager
async def under_way(rig: Rig) -> AsyncIterator[Going]:
    """Leaving the block waits for every command's end."""
    with anyio.fail_after(LIMIT_SECONDS):
        async with anyio.create_task_group() as tasks:
            yield Going(rig, tasks)


async def carry_out(rig: Rig, *commands: m.Start | m.Resume) -> list[m.Event]:
    async with under_way(rig) as going:
        for command in commands:
            await going.begin(command)
    return [going.events[command.lease.job] for command in commands]


def kinds(events: list[m.Event]) -> list[type[m.Event]]:
    return [type(event) for event in events]
