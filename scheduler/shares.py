"""How long each kind of job has gone without its share of the device."""

from __future__ import annotations

import math
from collections.abc import Collection, Iterable


class Shares:
    """A kind is served once its jobs have run for ``quantum`` seconds since they were last."""

    def __init__(self, quantum: float) -> None:
        self._quantum = quantum
        self._now = -math.inf
        self._since: dict[str, float] = {}
        self._served: dict[str, float] = {}

    def advance(self, now: float, running: Iterable[str]) -> None:
        """Time passes; these kinds ran meanwhile."""
        for kind in dict.fromkeys(running):
            if kind in self._since:
                slices, self._served[kind] = divmod(
                    self._served[kind] + now - self._now, self._quantum
                )
                if slices:
                    self._since[kind] = now - self._served[kind]
        self._now = now

    def enter(self, kind: str) -> None:
        """A job of this kind waits, perhaps the first."""
        if kind not in self._since:
            self._since[kind], self._served[kind] = self._now, 0.0

    def leave(self, kind: str) -> None:
        """No job of this kind waits any more."""
        self._since.pop(kind, None)
        self._served.pop(kind, None)

    def next_served(self, running: Iterable[str]) -> float:
        """When the first of these kinds will have been served, if they run on."""
        waiting = (kind for kind in running if kind in self._since)
        left = (self._quantum - self._served[kind] for kind in waiting)
        return self._now + min(left, default=math.inf)

    def since(self, kind: str) -> float | None:
        return self._since.get(kind)

    @property
    def kinds(self) -> Collection[str]:
        return self._since.keys()
