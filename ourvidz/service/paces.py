"""How long a step takes that several jobs share: from one change of company to the next."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field

from scheduler.types import Lease

# A change finds the run inside a step, and the notices of the last one may not all have come: of
# fewer steps that would be too large a part.
_STEPS_MIN = 8


@dataclass(frozen=True, slots=True)
class Pace:
    """What a step of ``units`` together took, in seconds, and whose it was."""

    leases: tuple[Lease, ...]
    units: int
    seconds: float


@dataclass(slots=True)
class _Member:
    units: int
    step: int


@dataclass(slots=True)
class Paces:
    """The books of the run that lasts; the engine's loop alone writes them. ``step`` tells how many
    steps of its phase a lease's job has done."""

    step: Callable[[Lease], int]
    _members: dict[Lease, _Member] = field(default_factory=dict)
    _moves: int = 0
    _since: float = 0.0
    _disturbed: bool = False

    def run_began(self, lease: Lease, units: int, now: float) -> Pace | None:
        """A job begins or joins a run. Returns the pace until now, where it can be told."""
        pace = self._pace(now)
        self._members[lease] = _Member(units, self.step(lease))
        return pace

    def run_ended(self, lease: Lease, now: float) -> Pace | None:
        """As ``run_began``, of a job that leaves its run."""
        pace = self._pace(now)
        self._members.pop(lease, None)
        return pace

    def move_began(self) -> None:
        """Weights that move slow the steps down."""
        self._moves += 1
        self._disturbed = True

    def move_ended(self) -> None:
        self._moves -= 1

    def _pace(self, now: float) -> Pace | None:
        done = []
        for lease, member in self._members.items():
            step = self.step(lease)
            done.append(step - member.step)
            member.step = step
        seconds, self._since = now - self._since, now
        disturbed, self._disturbed = self._disturbed, self._moves > 0
        if disturbed or len(done) < 2 or max(done) < _STEPS_MIN or max(done) > min(done) + 1:
            return None
        units = sum(member.units for member in self._members.values())
        return Pace(tuple(self._members), units, seconds / max(done))
