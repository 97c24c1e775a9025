"""A part that may be run, and its membership in one run of the device."""

from __future__ import annotations

import asyncio
from dataclasses import dataclass, field
from typing import Final

import anyio

from ourvidz.adapters.requests import request_of
from ourvidz.adapters.saved_states import SavedStates, Saving
from ourvidz.errors import DeviceFailed
from ourvidz.ports import (
    ImageProduced,
    Part,
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
    TextDelta,
    TextOutput,
    VideoOutput,
)
from pipelines.device import Device
from pipelines.state import State
from scheduler import messages as m
from scheduler.types import Fault, Lease

_SAVED_PHASE: Final = "denoise"


@dataclass(slots=True)
class Runnable:
    """One part that the scheduler may run: what is asked, and its state once begun.

    ``left`` is the state, in host memory, in which an earlier process left it, ``skipped`` are the
    steps of its first phase that are done there. ``saving`` where its state is to be written down.
    ``said`` counts the characters of text up to the state, ``told`` those that followers have had:
    a run that has to be repeated after an out-of-memory error tells them nothing twice.
    """

    part: Part
    pipeline: Pipeline
    plans: tuple[PhasePlan, ...]
    sink: RunSink
    left: State | None = None
    skipped: int = 0
    saving: Saving | None = None
    state: State | None = None
    said: int = 0
    told: int = 0

    def begun(self, device: Device) -> State:
        """The state, before the first step of the first phase, or as it was left, where there is
        none yet."""
        if self.state is None and self.left is not None:
            self.state, self.left = self.left.to(device.torch), None
        if self.state is None:
            part = self.part
            self.state = self.pipeline.begin(request_of(part.work, part.references, part.wanted))
        return self.state

    def notice(self, output: Output) -> RunNotice:
        part = self.part.id
        match output:
            case ImageOutput(index, pixels):
                return ImageProduced(part, index, pixels)
            case VideoOutput(frames):
                return VideoProduced(part, frames)
            case TextDelta(text):
                return TextChunk(part, self._untold(text))
            case TextOutput(text, prompt_tokens, tokens, finish_reason):
                return TextDone(part, text, prompt_tokens, tokens, finish_reason)

    def _untold(self, text: str) -> str:
        """What of a delta followers have not had yet."""
        begin = self.said
        self.said += len(text)
        new = text[max(0, self.told - begin) :]
        self.told = max(self.told, self.said)
        return new


@dataclass(slots=True)
class Control:
    """The stop signs of one lease; a request may come before its run has begun."""

    token: CancelToken = field(default_factory=CancelToken)
    pause: bool = False


class Member:
    """One lease in a run. The event loop makes it and waits for its end; the run's thread alone
    calls the methods of the second group, at step boundaries. ``peak_bytes`` is the most that was
    allocated meanwhile beside what was there and is not the run's own, where that is counted; it
    says something of this lease only if it was alone."""

    def __init__(
        self,
        runnable: Runnable,
        lease: Lease,
        control: Control,
        device: Device,
        states: SavedStates,
    ) -> None:
        self.runnable = runnable
        self.peak_bytes: int | None = None
        self._device = device
        self._states = states
        self._beside: int | None = None
        self.lease = lease
        self.control = control
        self.running = False
        self._phase = runnable.plans[lease.phase]
        self._loop = asyncio.get_running_loop()
        self._told = anyio.Event()
        self._event: m.Event | DeviceFailed | None = None
        self._back: tuple[State, int] | None = None

    async def end(self) -> m.Event:
        """The lease's terminal event. Raises ``DeviceFailed``. Cancelling the surrounding scope
        calls the lease off, and waits until the thread is done with it."""
        try:
            await self._told.wait()
        except anyio.get_cancelled_exc_class():
            self.control.token.cancel()
            if self.running:
                with anyio.CancelScope(shield=True):
                    await self._told.wait()
            raise
        assert self._event is not None
        if isinstance(self._event, DeviceFailed):
            raise self._event
        return self._event

    # What follows is done in the run's thread.

    @property
    def state(self) -> State:
        assert self.runnable.state is not None, "it has started"
        return self.runnable.state

    def start(self) -> None:
        """Before its first step. Raises what the pipeline's ``begin`` raises."""
        if self.control.token.cancelled:
            return
        state = self.runnable.begun(self._device)
        if self.runnable.saving is not None:
            self._states.begin(self.runnable.saving)
        allocated = self._device.measure()
        self._beside = None if allocated is None else allocated - state.device_bytes
        if self._phase.sharing is None:
            # A phase that may be shared keeps its state whole by itself. Of any other the tensors
            # of this moment are kept: steps make new ones, so that costs nothing until then.
            self._back = (state.copy(), self.runnable.said)

    def goes_on(self) -> bool:
        """Whether it takes the next step; else it has ended."""
        if self._event is None:
            self._event = self._ending()
            if self._event is not None and self._beside is not None:
                self.peak_bytes = self._device.peak() - self._beside
        return self._event is None

    def took_step(self, step: int, outputs: tuple[Output, ...] | None) -> None:
        """``outputs`` as ``Pipeline.step_together`` gives them."""
        if outputs is None:
            self._event = m.RunCancelled(self.lease)
            return
        for output in outputs:
            self._report(self.runnable.notice(output))
        self._report(m.StepReached(self.lease, self._counted(step)))
        self._save()

    def fail(self, fault: Fault, detail: str) -> None:
        """After a fault that lets the run be repeated, the state is one to go on from."""
        if fault is not Fault.RUN and self._back is not None:
            self.runnable.state, self.runnable.said = self._back
        cancelled = self.control.token.cancelled
        self._event = (
            m.RunCancelled(self.lease) if cancelled else m.RunFailed(self.lease, fault, detail)
        )

    def lose(self, failure: DeviceFailed) -> None:
        """The device is lost: there is no terminal event."""
        self._event = failure

    def tell(self) -> None:
        """It has ended: wake who waits for that."""
        self._loop.call_soon_threadsafe(self._told.set)

    def _ending(self) -> m.Event | None:
        if self.control.token.cancelled:
            return m.RunCancelled(self.lease)
        if self.state.phase != self._phase.name:
            return m.PhaseFinished(self.lease, self.state.device_bytes)
        if self.control.pause:
            done = self._counted(self.state.step)
            return m.Paused(self.lease, done, self.state.device_bytes)
        return None

    def _counted(self, step: int) -> int:
        """The phase's steps as they are planned: without those that an earlier process did."""
        return step - self.runnable.skipped if self.lease.phase == 0 else step

    def _save(self) -> None:
        """States between two denoising steps are small, and are hours of work on a slow device. The
        one after the last stays for the case that some of several images get lost."""
        saving = self.runnable.saving
        if saving is not None and self._phase.name == _SAVED_PHASE:
            ended = self.state.phase != _SAVED_PHASE
            several = len(self.runnable.part.pictures) > 1
            self._states.offer(self.state, saving, at_once=ended and several)

    def _report(self, notice: RunNotice) -> None:
        self._loop.call_soon_threadsafe(self.runnable.sink, notice)
