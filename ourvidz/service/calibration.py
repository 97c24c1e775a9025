"""Whether parts end when it was foretold: the first ETA of each against its end."""

from __future__ import annotations

from collections import deque
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from ourvidz.ports import Clock
from ourvidz.service.active import Roster
from ourvidz.service.engine import Engine, Place
from ourvidz.service.etas import Etas, Step
from ourvidz.service.metrics import Metrics
from ourvidz.service.samples import quantile
from ourvidz.service.signal import Signal
from scheduler.messages import Settle
from scheduler.types import Outcome

# The parts that the short answer is about: enough for a share, and few enough to show a change.
_PARTS_MAX = 200


@dataclass(frozen=True, slots=True)
class _Foretold:
    at: float
    seconds: float
    seconds_p90: float


@dataclass(frozen=True, slots=True)
class _Outcome:
    ratio: float
    within: bool


@dataclass(slots=True)
class Calibration:
    """``outcomes`` are the last parts that ended; a part is on the books from its arrival at the
    scheduler until it is settled."""

    clock: Clock
    metrics: Metrics
    _foretold: dict[str, _Foretold] = field(default_factory=dict)
    _outcomes: deque[_Outcome] = field(default_factory=lambda: deque(maxlen=_PARTS_MAX))

    def knows(self, part: str) -> bool:
        return part in self._foretold

    def arrived(self, part: str, place: Place) -> None:
        """What was first told of the part."""
        seconds, seconds_p90 = place.eta_seconds or 0.0, place.eta_p90_seconds or 0.0
        self._foretold[part] = _Foretold(self.clock.monotonic(), seconds, seconds_p90)

    def settled(self, settle: Settle) -> None:
        """A part has left the scheduler. One that did not finish says nothing of its ETA."""
        foretold = self._foretold.pop(settle.job, None)
        if foretold is None or settle.outcome is not Outcome.FINISHED or not foretold.seconds:
            return
        seconds = self.clock.monotonic() - foretold.at
        outcome = _Outcome(seconds / foretold.seconds, seconds <= foretold.seconds_p90)
        self._outcomes.append(outcome)
        self.metrics.eta_ratio.observe(outcome.ratio)
        self.metrics.etas.inc()
        self.metrics.etas_within_p90.inc(outcome.within)

    def summary(self) -> Mapping[str, Any]:
        """Of the last parts: how many, the share that ended within the 90th percentile, and the
        median of actual to expected time; ``None`` before the first."""
        outcomes = self._outcomes
        if not outcomes:
            return {"parts": 0, "within_p90": None, "ratio_p50": None}
        return {
            "parts": len(outcomes),
            "within_p90": round(sum(o.within for o in outcomes) / len(outcomes), 3),
            "ratio_p50": round(quantile([o.ratio for o in outcomes], 0.5), 3),
        }


@dataclass(slots=True)
class Forecasts:
    """What callers are told of when jobs will end, from the engine's plan.

    ``room`` is notified after every event that the engine has handled.
    """

    engine: Engine
    roster: Roster
    clock: Clock
    calibration: Calibration
    room: Signal
    _etas: Etas = field(default_factory=Etas)

    def places(self) -> Mapping[str, Place]:
        """Where every part that the scheduler holds stands, by its id."""
        steps: dict[str, Step] = {job.part_id: (job.phase, job.step) for job in self.roster}
        return self._etas.tell(self.engine.places(), steps, self.clock.monotonic())

    async def watch(self) -> None:
        """Note what is first told of each part that has arrived at the scheduler, for ever."""
        while True:
            handled = self.room.ticket
            new = [job.part_id for job in self.roster if job.scheduled]
            new = [part for part in new if not self.calibration.knows(part)]
            places = self.places() if new else {}
            for part in new:
                if part in places:
                    self.calibration.arrived(part, places[part])
            await handled.wait()
