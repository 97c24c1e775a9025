"""Jobs that are sure to arrive at once, because the one they follow has finished.

Without them the device would be given to somebody else for one step, and a step may take seconds.
"""

from __future__ import annotations

from scheduler.types import Demand


class Followers:
    def __init__(self, seconds: float) -> None:
        self._seconds = seconds
        self._until: dict[str, float] = {}

    def expect(self, finished: Demand, now: float) -> None:
        if finished.followed:
            self._until[finished.job] = now + self._seconds

    def arrived(self, demand: Demand) -> None:
        if demand.follows is not None:
            self._until.pop(demand.follows, None)

    def advance(self, now: float) -> None:
        """Give up on those that are late."""
        for job in [job for job, until in self._until.items() if until <= now]:
            del self._until[job]

    @property
    def until(self) -> float | None:
        """Until when the device waits at most; ``None`` if nobody is expected."""
        return max(self._until.values(), default=None)
