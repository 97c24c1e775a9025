"""Time, as the service sees it."""

from __future__ import annotations

from typing import Protocol


class Clock(Protocol):
    """Time for the scheduler and the timers. ``monotonic`` in seconds; ``wall`` is Unix time."""

    def monotonic(self) -> float: ...

    def wall(self) -> float: ...
