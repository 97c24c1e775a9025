"""Jobs that take turns on one card: paused at a boundary, everything dropped, gone on with later.

Knows pipelines by their Protocol and their components alone.
"""

from __future__ import annotations

import gc
import sys
import threading
import weakref
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from types import AsyncGeneratorType, CoroutineType, FrameType, GeneratorType
from typing import Any

from support.states import dump

import pipelines
from pipelines.arena import module_tensors
from pipelines.base import CancelToken, ImageOutput, Output, PhasePlan, Pipeline, VideoOutput
from pipelines.component import Component
from pipelines.device import Device
from pipelines.request import Request, TextRequest
from pipelines.state import State, restore

Place = tuple[str, int]
"""A boundary: the phase to go on with, and the steps done in it."""

_FOLDER = str(Path(pipelines.__file__).parent)
_LOCKS = (type(threading.Lock()), type(threading.RLock()))
_SUSPENDED = {GeneratorType: "gi_code", CoroutineType: "cr_code", AsyncGeneratorType: "ag_code"}


class Card:
    """A device with room for one phase's components; what it drops is poisoned by the device."""

    def __init__(self, opened: Mapping[str, Pipeline], device: Device) -> None:
        self.pipelines = opened
        self.device = device
        self.components: dict[str, Component] = {}
        for pipeline in opened.values():
            self.components |= pipeline.components

    def hold(self, names: Collection[str]) -> None:
        """Have these components resident and no others."""
        for name, component in self.components.items():
            if component.tier == "resident" and name not in names:
                component.evict()
        for name in names:
            component = self.components[name]
            if component.tier == "absent":
                component.stage()
            if component.tier == "staged":
                component.load()

    def clear(self) -> None:
        """Evict everything; the host keeps its masters."""
        self.hold(())

    def unstage(self, names: Iterable[str]) -> None:
        """Evict everything and drop these host masters as well. They are overwritten like evicted
        copies, so that whoever still reads one is found out."""
        self.clear()
        for component in (self.components[name] for name in names):
            if component.tier == "staged":
                assert component.arena is not None
                component.arena.host.fill_(0xFF)
                component.unstage()

    def go_on_with_dropped_copies(self, names: Collection[str]) -> None:
        """Evict and load these components, yet leave their modules on the copies that were dropped:
        what a run does that is not told of an eviction."""
        self.hold(names)
        # Whole numbers are indices: a poisoned one would end a CUDA process, not a test.
        stale = [
            (tensor, tensor.data)
            for name in names
            for _, tensor in module_tensors(self.components[name].module)
            if tensor.is_floating_point()
        ]
        self.clear()
        self.hold(names)
        for tensor, data in stale:
            tensor.data = data


class Run:
    """One job on the card. Between two steps its state is all that there is of it."""

    def __init__(self, card: Card, model: str, request: Request) -> None:
        self.pipeline = card.pipelines[model]
        self.phases: dict[str, PhasePlan] = {p.name: p for p in self.pipeline.plan(request)}
        self.state: State = self.pipeline.begin(request)
        self.outputs: list[Output] = []
        self._card = card

    @property
    def place(self) -> Place:
        return self.state.phase, self.state.step

    @property
    def done(self) -> bool:
        return self.state.phase == "done"

    @property
    def needs(self) -> tuple[str, ...]:
        """The components of the phase to go on with."""
        return self.phases[self.state.phase].components

    def boundaries(self) -> list[Place]:
        """Before the first step of each phase, after its first, in its middle and before its last;
        the first of a phase is the one between two phases."""
        return [
            (phase.name, step)
            for phase in self.phases.values()
            for step in sorted({0, 1, phase.steps // 2, phase.steps - 1})
            if step < phase.steps
        ]

    def step(self) -> None:
        """Bring in what the phase needs, throw out the rest, and run one step."""
        self._card.hold(self.needs)
        self.step_as_it_is()

    def step_as_it_is(self) -> None:
        """Run one step with what is on the card."""
        token = CancelToken()
        self.outputs += self.pipeline.step(self.state, token)
        held = weakref.ref(token)
        del token
        assert held() is None, "somebody still asks the token of a step that is over"

    def until(self, place: Place) -> Run:
        while self.place != place:
            assert not self.done, f"the job ended before {place}"
            self.step()
        return self

    def to_the_end(self) -> list[Any]:
        """Run all steps that are left; returns what was made."""
        while not self.done:
            self.step()
        return self.made()

    def write_and_read(self) -> None:
        """Go on with what a file would have kept."""
        self.state = restore(dump(self.state), self._card.device.torch)

    def made(self) -> list[Any]:
        """All that came out, in order, and a text's token ids: equal where every bit is."""
        found: list[Any] = []
        for output in self.outputs:
            match output:
                case ImageOutput(index, pixels):
                    found.append((index, pixels.shape, pixels.tobytes()))
                case VideoOutput(frames):
                    found.append((frames.shape, frames.tobytes()))
                case _:
                    found.append(output)
        if isinstance(self.state.request, TextRequest):
            found.append(tuple(self.state.values["tokens"]))
        return found


def undisturbed(card: Card, model: str, request: Request) -> list[Any]:
    """What a job makes alone, with every component of its model resident from begin to end."""
    run = Run(card, model, request)
    card.clear()
    card.hold(run.pipeline.components.keys())
    while not run.done:
        run.step_as_it_is()
    return run.made()


def differing(made: Sequence[Any], expected: Sequence[Any]) -> list[int]:
    """The places in ``made`` that are not as expected, to the bit; short where it fails."""
    shared = zip(made, expected, strict=False)
    found = [i for i, (ours, theirs) in enumerate(shared) if ours != theirs]
    lengths = sorted((len(made), len(expected)))
    return found + list(range(*lengths))


def frames_holding(state: State) -> list[str]:
    """Functions of ``pipelines/``, running, suspended or kept by an exception, with a variable that
    is this state, one of its mappings or one of its tensors."""
    parts = (state, state.values, state.tensors, *state.tensors.values())
    return [
        f"{code.co_filename}:{code.co_name}"
        for code in map(_code_of, gc.get_referrers(*parts))
        if code is not None and code.co_filename.startswith(_FOLDER)
    ]


def frames_running() -> list[str]:
    """Functions of ``pipelines/`` on any thread's stack."""
    found = []
    for frame in sys._current_frames().values():
        below: FrameType | None = frame
        while below is not None:
            if below.f_code.co_filename.startswith(_FOLDER):
                found.append(f"{below.f_code.co_filename}:{below.f_code.co_name}")
            below = below.f_back
    return found


def _code_of(holder: object) -> Any:
    if isinstance(holder, FrameType):
        return holder.f_code
    name = _SUSPENDED.get(type(holder))
    return None if name is None else getattr(holder, name)


def locks_of(opened: Mapping[str, Pipeline]) -> dict[str, Any]:
    """Every lock that a module or an object of ``pipelines/`` refers to, by the way that leads to
    it."""
    modules = {
        name: vars(module)
        for name, module in sys.modules.items()
        if name.partition(".")[0] == "pipelines"
    }
    found: dict[str, Any] = {}
    seen: set[int] = set()
    queue: list[tuple[str, Any]] = [*modules.items(), *opened.items()]
    while queue:
        path, thing = queue.pop()
        if id(thing) in seen:
            continue
        seen.add(id(thing))
        if isinstance(thing, _LOCKS):
            found[path] = thing
        queue += [(f"{path}.{name}", child) for name, child in _children(thing)]
    return found


def _children(thing: Any) -> Iterator[tuple[Any, Any]]:
    """What ``pipelines/`` itself put together, and no way into the libraries."""
    if isinstance(thing, dict):
        yield from thing.items()
    elif isinstance(thing, list | tuple | set | frozenset):
        yield from enumerate(thing)
    elif type(thing).__module__.partition(".")[0] in {"pipelines", "threading"}:
        yield from getattr(thing, "__dict__", {}).items()
        for cls in type(thing).__mro__:
            slots = getattr(cls, "__slots__", ())
            yield from ((name, getattr(thing, name)) for name in slots if hasattr(thing, name))


def taken(locks: Mapping[str, Any]) -> list[str]:
    """Which of the locks another thread would have to wait for."""

    def look() -> list[str]:
        found = []
        for path, lock in locks.items():
            if lock.acquire(blocking=False):
                lock.release()
            else:
                found.append(path)
        return found

    with ThreadPoolExecutor(1) as pool:
        return pool.submit(look).result()
