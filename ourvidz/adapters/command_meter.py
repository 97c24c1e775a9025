"""What a server's use costs: commands a minute."""

from __future__ import annotations

from collections import deque
from typing import Final

from ourvidz.ports import Clock

_WINDOW_SECONDS: Final = 60.0
# Commands of a busy minute are counted by tenths of a second.
_GRAIN_SECONDS: Final = 0.1


class CommandMeter:
    """Counts what was sent in the last minute."""

    def __init__(self, clock: Clock) -> None:
        self._clock = clock
        self._counts: deque[tuple[float, int]] = deque()

    def count(self) -> None:
        """One more was sent."""
        now = self._clock.monotonic()
        self._forget(now)
        if self._counts and now - self._counts[-1][0] < _GRAIN_SECONDS:
            at, before = self._counts[-1]
            self._counts[-1] = (at, before + 1)
        else:
            self._counts.append((now, 1))

    def per_minute(self) -> int:
        self._forget(self._clock.monotonic())
        return sum(count for _, count in self._counts)

    def _forget(self, now: float) -> None:
        while self._counts and self._counts[0][0] <= now - _WINDOW_SECONDS:
            self._counts.popleft()
