"""Who was on the device beside whom: only what had it to itself shows what it takes.

A run is *alone* if no other run was under way at any of its moments, nor were weights moved. Jobs
that share a run have a lease each, so their runs are not alone. A move is alone if no other move
was under way: moves wait for each other.
"""

from __future__ import annotations

from dataclasses import dataclass, field

from scheduler.messages import Event, Paused, PhaseFinished
from scheduler.types import Lease


@dataclass(frozen=True, slots=True)
class Stretch:
    """What a run did. ``steps`` are those it did of its phase, 0 where nobody knows;
    ``undisturbed`` if it was alone and did not fail; ``whole`` is the seconds of the phase, where
    it has ended and every one of its runs was undisturbed."""

    steps: int
    undisturbed: bool
    whole: float | None


@dataclass(slots=True)
class _Course:
    """How far a part's phase has come. ``step`` is ``None`` after a run that failed, since nobody
    knows where the next one goes on."""

    phase: int
    step: int | None = 0
    seconds: float = 0.0
    undisturbed: bool = True


@dataclass(slots=True)
class Company:
    """The books of one device; the engine's loop alone writes them."""

    _runs: dict[Lease, bool] = field(default_factory=dict)
    _moves: dict[str, bool] = field(default_factory=dict)
    _courses: dict[str, _Course] = field(default_factory=dict)

    def run_began(self, lease: Lease) -> None:
        alone = not self._runs and not self._moves
        self._runs = {**dict.fromkeys(self._runs, False), lease: alone}
        course = self._courses.get(lease.job)
        if course is None or course.phase != lease.phase:
            self._courses[lease.job] = _Course(lease.phase)

    def run_ended(self, lease: Lease, event: Event, seconds: float, reached: int) -> Stretch:
        """``reached``: how many steps of the phase are done now, as far as the event is one that
        leaves them done."""
        alone = self._runs.pop(lease, False)
        course = self._courses.get(lease.job) or _Course(lease.phase, None)
        before = course.step
        course.seconds += seconds
        if not isinstance(event, Paused | PhaseFinished):
            course.step, course.undisturbed = None, False
            return Stretch(0, undisturbed=False, whole=None)
        course.step = reached
        course.undisturbed = course.undisturbed and alone
        ended = isinstance(event, PhaseFinished) and course.undisturbed
        whole = course.seconds if ended else None
        return Stretch(0 if before is None else max(0, reached - before), alone, whole)

    def move_began(self, component: str) -> None:
        alone = not self._moves
        self._moves = {**dict.fromkeys(self._moves, False), component: alone}
        self._runs = dict.fromkeys(self._runs, False)

    def move_ended(self, component: str) -> bool:
        """Whether it was alone."""
        return self._moves.pop(component, False)

    def forget(self, part: str) -> None:
        """The part has left; its runs, of which one may have ended without a word, too."""
        self._courses.pop(part, None)
        self._runs = {lease: alone for lease, alone in self._runs.items() if lease.job != part}
