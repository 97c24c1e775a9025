"""Executors whose steps and transfers a test holds, and fails, where it says.

The same for the fake device and for the real one, so that one suite can be run against both.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any, Protocol

import anyio
import pytest
from support.bench import Bench
from support.stage import Hold

from ourvidz.adapters.device import DeviceExecutor
from ourvidz.adapters.device_fake import FakeDevice
from ourvidz.adapters.device_fake_runs import FakeMember
from ourvidz.ports import Executor, Part
from pipelines.component import Component
from pipelines.state import State
from scheduler.types import Fault, Phase

# Nothing here takes so long; it turns a hang into a failure.
LIMIT_SECONDS = 30
Place = tuple[str, str, int]


@dataclass
class Orders:
    """What a test wants of an executor. ``taken`` are the steps of the device, each by the ids of
    the parts that took it together; ``stepping`` while one is being taken."""

    holds: dict[Any, Hold] = field(default_factory=dict)
    faults: dict[Place, Fault] = field(default_factory=dict)
    taken: list[frozenset[str]] = field(default_factory=list)
    stepping: bool = False

    def hold(self, bench: Bench, phase: int, step: int) -> Hold:
        """The part's step is not over before the hold is released."""
        return self.holds.setdefault(place_of(bench, phase, step), Hold())

    def hold_move(self, component: str) -> Hold:
        """The next stage or load of the component is not over before the hold is released."""
        return self.holds.setdefault(component, Hold())

    def fail(self, bench: Bench, phase: int, step: int, fault: Fault) -> None:
        """The part's step fails, once."""
        self.faults[place_of(bench, phase, step)] = fault


def place_of(bench: Bench, phase: int, step: int) -> Place:
    return bench.part.id, bench.planned.phases[phase].name, step


class Rig(Protocol):
    """An executor under orders."""

    orders: Orders

    @property
    def executor(self) -> Executor: ...

    def assert_nothing_is_left(self) -> None: ...


class FakeRig(FakeDevice):
    """The fake device."""

    def __init__(self) -> None:
        super().__init__(units_max=8)
        self.orders = Orders()
        self._take = self._shared._faults
        self._shared._faults = self._taking  # type: ignore[method-assign]

    @property
    def executor(self) -> Executor:
        return self

    async def pace(
        self, part: Part, phase: Phase, step: int, cancelled: anyio.Event
    ) -> Fault | None:
        place = (part.id, phase.name, step)
        await anyio.lowlevel.checkpoint()
        if place in self.orders.holds:
            await self.orders.holds[place].wait(cancelled)
        return self.orders.faults.pop(place, None)

    async def move_pace(self, component: str, aborted: anyio.Event) -> None:
        await anyio.lowlevel.checkpoint()
        hold = self.orders.holds.pop(component, None)
        if hold is not None:
            await hold.wait(aborted)

    def assert_nothing_is_left(self) -> None:
        assert self._runs == self._planned == self._controls == self._moves == {}
        assert self._shared._runs == self._shared._starters._gathering == {}

    async def _taking(self, members: Sequence[FakeMember]) -> list[Fault]:
        self.orders.taken.append(frozenset(member.of.part.id for member in members))
        self.orders.stepping = True
        try:
            return await self._take(members)
        finally:
            self.orders.stepping = False


class DeviceRig:
    """The real executor; ``patch`` is undone after the test."""

    def __init__(self, executor: DeviceExecutor, patch: pytest.MonkeyPatch) -> None:
        self.executor = executor
        self.orders = Orders()
        self._loop = asyncio.get_running_loop()
        for pipeline in executor._pipelines.values():
            for name in ("step", "step_together"):
                patch.setattr(pipeline, name, self._step(getattr(pipeline, name)))
        for component in executor._weights.values():
            for name in ("stage", "load"):
                patch.setattr(component, name, self._move(component, getattr(component, name)))

    def assert_nothing_is_left(self) -> None:
        executor = self.executor
        assert executor._plans == executor._runnables == executor._controls == {}
        assert executor._runs._runs == executor._runs._starters._gathering == {}
        assert executor._moves._under_way == {}

    def _step(self, usual: Callable[..., Any]) -> Callable[..., Any]:
        """In the run's thread. A pipeline may take a single step by the other of the two names."""

        def step(states: Any, tokens: Any) -> Any:
            if self.orders.stepping:
                return usual(states, tokens)
            self.orders.stepping = True
            try:
                self._obey(states if isinstance(states, list) else [states])
                return usual(states, tokens)
            finally:
                self.orders.stepping = False

        return step

    def _obey(self, states: list[State]) -> None:
        parts = {id(each.state): key for key, each in self.executor._runnables.items()}
        places = [(parts[id(state)], state.phase, state.step) for state in states]
        self.orders.taken.append(frozenset(part for part, _, _ in places))
        for place in places:
            if place in self.orders.holds:
                self._wait(self.orders.holds[place])
        faults = [self.orders.faults.pop(place) for place in places if place in self.orders.faults]
        if Fault.OUT_OF_MEMORY in faults:
            raise MemoryError("planted")
        if faults:
            raise RuntimeError("planted")

    def _move(self, component: Component, usual: Callable[..., None]) -> Callable[..., None]:
        def move(*token: Any) -> None:
            hold = self.orders.holds.pop(component.name, None)
            if hold is not None:
                self._wait(hold)
            usual(*token)

        return move

    def _wait(self, hold: Hold) -> None:
        asyncio.run_coroutine_threadsafe(hold.wait(), self._loop).result(LIMIT_SECONDS)
