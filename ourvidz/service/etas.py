"""What is told of when a part will end: never later than told before, unless something happened.

The scheduler's plan is made anew whenever it is asked for, and drifts: a step that takes longer
than was estimated moves everything behind it, every second a little. Nobody is helped by watching
that. So what is told of a part, the time at which it is expected to end, may move to later only if
since it was last told

- the part itself came further or fell back: its phase or its step is another;
- a running part did, or another one runs;
- the parts ahead of it are others: one came in between, or left.

As long as all three are unchanged, the earlier of the last time and the plan's is told. Once that
time has passed, what is told is "now". Earlier is always allowed.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from itertools import groupby

from ourvidz.service.engine import Place

# How far a part has come: its phase and the steps done in it.
Step = tuple[int, int]


@dataclass(frozen=True, slots=True)
class _Situation:
    """What a time that was told rests on. ``ahead`` stands for the set of parts ahead, see below;
    ``running`` holds every running part with its step."""

    step: Step | None
    running: frozenset[tuple[str, Step | None]]
    ahead: int


@dataclass(frozen=True, slots=True)
class _Told:
    """Times on the clock's axis."""

    situation: _Situation
    end: float | None
    end_p90: float | None


class Etas:
    """What was told of every part that the scheduler holds."""

    def __init__(self) -> None:
        self._told: dict[str, _Told] = {}

    def tell(
        self, plan: Mapping[str, Place], steps: Mapping[str, Step], now: float
    ) -> Mapping[str, Place]:
        """The places of all parts with the times that may be told, in seconds from ``now``.

        ``plan`` holds every part, with both its times and its position; ``steps`` how far each has
        come, where that is known. Parts that are not in the plan any more are forgotten.
        """
        situations = _situations(plan, steps)
        self._told = {
            part: self._tell(part, place, situations[part], now) for part, place in plan.items()
        }
        return {
            part: replace(
                place,
                eta_seconds=_from_now(self._told[part].end, now),
                eta_p90_seconds=_from_now(self._told[part].end_p90, now),
            )
            for part, place in plan.items()
        }

    def _tell(self, part: str, place: Place, situation: _Situation, now: float) -> _Told:
        end, end_p90 = _at(place.eta_seconds, now), _at(place.eta_p90_seconds, now)
        last = self._told.get(part)
        if last is None or last.situation != situation:
            return _Told(situation, end, end_p90)
        return _Told(situation, _earlier(last.end, end), _earlier(last.end_p90, end_p90))


def _situations(plan: Mapping[str, Place], steps: Mapping[str, Step]) -> Mapping[str, _Situation]:
    def position(part: str) -> int:
        return plan[part].queue_position or 0

    running = frozenset((part, steps.get(part)) for part in plan if position(part) == 0)
    found: dict[str, _Situation] = {}
    ahead = 0
    for _, together in groupby(sorted(plan, key=position), key=position):
        parts = list(together)
        for part in parts:
            found[part] = _Situation(steps.get(part), running, ahead)
        for part in parts:
            # A fingerprint of the set, whatever its order: the sets themselves would take quadratic
            # time and room, and that two differ and are taken for equal once in 2**61 harms nobody.
            ahead ^= hash(part)
    return found


def _at(seconds: float | None, now: float) -> float | None:
    return None if seconds is None else now + seconds


def _from_now(time: float | None, now: float) -> float | None:
    return None if time is None else round(max(0.0, time - now), 3)


def _earlier(last: float | None, new: float | None) -> float | None:
    return new if last is None or new is None else min(last, new)
