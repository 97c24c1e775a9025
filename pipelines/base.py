"""The one Protocol that every pipeline meets, and what passes through it.

A pipeline holds no state of a run. ``begin`` makes a ``State``, ``step`` moves it on by one step;
between two calls the state may be dumped, the components evicted and brought back, another job
run, and the result is the same to the bit.
"""

from __future__ import annotations

import threading
from dataclasses import dataclass
from typing import TYPE_CHECKING, Protocol

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    import numpy as np
    from numpy.typing import NDArray

    from pipelines.component import Component
    from pipelines.request import Request
    from pipelines.state import State


class RunCancelled(Exception):
    """The run was asked to stop."""


class UnsupportedRequest(ValueError):
    """The checkpoint cannot do what is asked. ``field`` is the request's guilty field."""

    def __init__(self, field: str, message: str) -> None:
        super().__init__(message)
        self.field = field


class CancelToken:
    """One run's stop sign, set from another thread and read in the run's own."""

    def __init__(self) -> None:
        self._event = threading.Event()

    def cancel(self) -> None:
        self._event.set()

    @property
    def cancelled(self) -> bool:
        return self._event.is_set()

    def check(self) -> None:
        """Raise ``RunCancelled`` if the run was asked to stop."""
        if self._event.is_set():
            raise RunCancelled


@dataclass(frozen=True, slots=True)
class Sharing:
    """With whom a phase may run together: phases of other requests with the same ``key``.

    ``units`` is what this request brings (a text 1, an image request its images); at most
    ``units_max`` run together. A step of ``n`` units is expected to take
    ``(n / units) ** exponent`` times as long as the phase's own. With ``mid_phase`` any steps may
    be taken together, else only those with the same number.
    """

    key: str
    units: int
    units_max: int
    exponent: float
    mid_phase: bool


@dataclass(frozen=True, slots=True)
class PhasePlan:
    """A phase of one request: which components together, peak activation bytes, step count.

    ``state_bytes`` bounds what the run's state holds on the device at any of the phase's step
    boundaries and at its end. ``sharing`` is ``None`` where the phase runs alone. A step that
    several requests take together needs no more than their ``working_bytes`` together.
    """

    name: str
    components: tuple[str, ...]
    working_bytes: int
    steps: int
    state_bytes: int
    sharing: Sharing | None = None


@dataclass(frozen=True, slots=True)
class ImageOutput:
    """One finished image: uint8, shape (height, width, 3), RGB. ``index`` is its place."""

    index: int
    pixels: NDArray[np.uint8]


@dataclass(frozen=True, slots=True)
class VideoOutput:
    """A finished video: uint8, shape (frames, height, width, 3), RGB."""

    frames: NDArray[np.uint8]


@dataclass(frozen=True, slots=True)
class TextDelta:
    """Text that is final and whole (no half character), to be appended to what came before."""

    text: str


@dataclass(frozen=True, slots=True)
class TextOutput:
    """A finished text. ``finish_reason`` is ``stop`` or ``length``."""

    text: str
    prompt_tokens: int
    tokens: int
    finish_reason: str


Output = ImageOutput | VideoOutput | TextDelta | TextOutput


class Pipeline(Protocol):
    """One model on the device, seen through its components and phases."""

    @property
    def name(self) -> str: ...

    @property
    def components(self) -> Mapping[str, Component]:
        """By full name, e.g. ``sdxl.unet``."""

    def plan(self, request: Request) -> tuple[PhasePlan, ...]:
        """The phases of a request. Raises ``UnsupportedRequest``. Touches no weights."""

    def warnings(self, request: Request) -> tuple[str, ...]:
        """What will silently differ from what was asked, e.g. a prompt that will be cut."""

    def begin(self, request: Request) -> State:
        """The state before the first step of the first phase."""

    def step(self, state: State, token: CancelToken) -> tuple[Output, ...]:
        """Run one step of ``state.phase`` in place; the phase's components must be resident.

        At the phase's last step ``state.phase`` moves to the next phase (``"done"`` at the end)
        and ``state.step`` to 0. Raises ``RunCancelled`` within the step when the token says so;
        the state is then to be thrown away. After any other exception a state of a phase with
        ``sharing`` is as it was before the step; one without is to be thrown away too.
        """

    def step_together(
        self, states: Sequence[State], tokens: Sequence[CancelToken]
    ) -> list[tuple[Output, ...] | None]:
        """One ``step`` of each state, computed together; a token and an answer for each state.

        Several states must be in one phase with the same ``sharing.key`` (``ValueError``), and
        without ``mid_phase`` have done the same steps. ``None`` stands for a state whose token was
        cancelled, which is to be thrown away; all others have taken their step: only when every
        token says so is it broken off inside. Never raises ``RunCancelled``; any other exception
        means for every state what it means after ``step``. One state gets the bits of ``step``.
        """


def step_alone(
    pipeline: Pipeline, states: Sequence[State], tokens: Sequence[CancelToken]
) -> list[tuple[Output, ...] | None]:
    """``Pipeline.step_together`` of a phase that runs alone."""
    if len(states) != 1:
        raise ValueError(
            f"{pipeline.name}: {len(states)} runs in phase {states[0].phase!r}, which runs alone"
        )
    try:
        return [pipeline.step(states[0], tokens[0])]
    except RunCancelled:
        return [None]
