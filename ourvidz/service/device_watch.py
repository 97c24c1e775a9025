"""Whether the device still gets on: a run that takes no step any more, or a move that never ends.

A thread that is stuck in a driver can be neither interrupted nor joined, and a card that has lost
its context serves nobody. Both are the end of this process, never of a thread: the service goes
down with its leases recoverable, and a supervisor starts it anew.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import Final

import anyio

from ourvidz.errors import DeviceFailed
from ourvidz.ports import Clock
from ourvidz.service.signal import Signal
from scheduler.types import Lease, Phase

_LATE_SECONDS: Final = 1.0


@dataclass(slots=True)
class _Watched:
    """Something under way, its last sign of life, and how long it may give none."""

    what: str
    since: float
    limit_seconds: float

    @property
    def due(self) -> float:
        return self.since + self.limit_seconds


@dataclass(slots=True)
class DeviceWatch:
    """A run may take ``stall_seconds`` for a step, or ``stall_factor`` times what a step of its
    phase is expected to take, whichever is more; a move the same, as a whole."""

    clock: Clock
    stall_seconds: float
    stall_factor: float
    _watched: dict[Lease | str, _Watched] = field(default_factory=dict)
    _lost: DeviceFailed | None = None
    _changed: Signal = field(default_factory=Signal)

    def run_began(self, lease: Lease, phase: Phase | None) -> None:
        """``phase`` as it is expected to go, ``None`` where nobody knows."""
        name = "" if phase is None else f", phase {phase.name}"
        expected = 0.0 if phase is None else _step_seconds(phase)
        self._began(lease, f"a run of {lease.job}{name}, took no step", expected)

    def stepped(self, lease: Lease) -> None:
        if lease in self._watched:
            self._watched[lease].since = self.clock.monotonic()

    def move_began(self, component: str, expected_seconds: float) -> None:
        self._began(component, f"moving {component} did not end", expected_seconds)

    def run_ended(self, lease: Lease) -> None:
        self._watched.pop(lease, None)

    def move_ended(self, component: str) -> None:
        """Moves may wait for one another: the next one's time begins here."""
        self._watched.pop(component, None)
        now = self.clock.monotonic()
        for key, watched in self._watched.items():
            if isinstance(key, str):
                watched.since = now

    def lost(self, failure: DeviceFailed) -> None:
        """The device can serve nobody any more."""
        self._lost = self._lost or failure
        self._changed.notify()

    async def failure(self) -> DeviceFailed:
        """Return once the device has failed."""
        while self._lost is None:
            changed = self._changed.ticket
            now = self.clock.monotonic()
            stalled = _stalled(self._watched.values(), now)
            if stalled is not None:
                return stalled
            due = min((watched.due for watched in self._watched.values()), default=None)
            await self._pause(changed, None if due is None else due - now)
        return self._lost

    async def _pause(self, changed: anyio.Event, seconds: float | None) -> None:
        """Until something begins, or until ``seconds`` have passed.

        If that took longer, this loop did not run, as the process was suspended or the machine
        overrun. What the device did meanwhile has not been heard yet: everyone begins anew.
        """
        before = self.clock.monotonic()
        with anyio.move_on_after(seconds):
            await changed.wait()
        now = self.clock.monotonic()
        if seconds is not None and now - before - seconds > _LATE_SECONDS:
            for watched in self._watched.values():
                watched.since = now

    def _began(self, key: Lease | str, what: str, expected_seconds: float) -> None:
        limit = max(self.stall_seconds, self.stall_factor * expected_seconds)
        self._watched[key] = _Watched(what, self.clock.monotonic(), limit)
        self._changed.notify()


def _step_seconds(phase: Phase) -> float:
    """What one step is expected to take, at the slow end of the estimate."""
    steps = max(1, phase.steps if phase.steps_expected is None else phase.steps_expected)
    return max(phase.seconds, phase.seconds_p90 or 0.0) / steps


def _stalled(watched: Iterable[_Watched], now: float) -> DeviceFailed | None:
    late = [each for each in watched if each.due <= now]
    if not late:
        return None
    worst = max(late, key=lambda each: now - each.since)
    return DeviceFailed(
        f"the device is stuck: {worst.what} for {now - worst.since:.3g} s, "
        f"{worst.limit_seconds:.3g} are allowed"
    )
