"""How long each kind of job has gone without its share of the device."""

from __future__ import annotations

import math
from collections.abc import Collection, Iterable
from dataclasses import dataclass


@dataclass(slots=True)
class _Claim:
    """A kind that waits: when it was ``served`` last, for how many ``seconds`` its jobs ran since,
    and since when they are ``running``, which comes on top."""

    served: float
    seconds: float = 0.0
    running: float | None = None


class Shares:
    """A kind is served once its jobs have run for ``quantum`` seconds since they were last. No sum
    depends on how often it is looked at."""

    def __init__(self, quantum: float) -> None:
        self._quantum = quantum
        self._now = -math.inf
        self._claims: dict[str, _Claim] = {}

    def advance(self, now: float, running: Collection[str]) -> None:
        """Time passes; these kinds ran meanwhile."""
        for kind, claim in self._claims.items():
            if kind not in running:
                if claim.running is not None:
                    claim.seconds += self._now - claim.running
                claim.running = None
                continue
            if claim.running is None:
                claim.running = self._now
            full = self._full_at(claim)
            if full <= now:
                full += math.floor((now - full) / self._quantum) * self._quantum
                claim.served = claim.running = full
                claim.seconds = 0.0
        self._now = now

    def enter(self, kind: str) -> None:
        """A job of this kind waits, perhaps the first."""
        self._claims.setdefault(kind, _Claim(self._now))

    def leave(self, kind: str) -> None:
        """No job of this kind waits any more."""
        self._claims.pop(kind, None)

    def since(self, kind: str) -> float | None:
        claim = self._claims.get(kind)
        return None if claim is None else claim.served

    def next_served(self, running: Iterable[str]) -> float:
        """When the first of these kinds will have been served, if they run on."""
        claims = (self._claims[kind] for kind in running if kind in self._claims)
        return min((self._full_at(claim) for claim in claims), default=math.inf)

    @property
    def kinds(self) -> Collection[str]:
        return self._claims.keys()

    def _full_at(self, claim: _Claim) -> float:
        since = self._now if claim.running is None else claim.running
        return since + self._quantum - claim.seconds
