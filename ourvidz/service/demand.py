"""What the scheduler is told of a job, and how long its steps are expected to take."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace

from ourvidz.jobs import ImageWork, TextWork, VideoWork, Work
from ourvidz.ports import Clock, Part
from scheduler.types import Demand, Phase

# How much one more observation counts; the rest is what was learned before.
_WEIGHT = 0.3
# Callers choose sizes freely; the shapes that were not seen for longest are forgotten.
_SHAPES_MAX = 4096

Shape = tuple[str, str, int]


@dataclass(slots=True)
class Demands:
    """Builds demands; learns seconds a step for each (type, phase, shape) from finished phases."""

    clock: Clock
    _learned: dict[Shape, float] = field(default_factory=dict)

    def demand(self, part: Part, phases: tuple[Phase, ...]) -> Demand:
        """The part's demand, with expected seconds from what was learned."""
        now = self.clock.monotonic()
        limit = part.spec.deadline_seconds
        return Demand(
            job=part.id,
            phases=tuple(replace(p, seconds=self._seconds(part.work, p)) for p in phases),
            job_class=part.spec.job_class,
            user=str(part.spec.user_id),
            arrival=now,
            deadline=None if limit is None else now + limit,
        )

    def observe(self, work: Work, phase: Phase, seconds: float) -> None:
        """A phase that ran from its beginning to its end took so long."""
        key = _shape(work, phase)
        new = seconds / max(1, phase.steps)
        old = self._learned.pop(key, new)
        self._learned[key] = old + _WEIGHT * (new - old)
        if len(self._learned) > _SHAPES_MAX:
            del self._learned[next(iter(self._learned))]

    def snapshot(self) -> Mapping[str, float]:
        """Seconds a step by type, phase and shape."""
        return {f"{a} {b} {c}": s for (a, b, c), s in sorted(self._learned.items())}

    def _seconds(self, work: Work, phase: Phase) -> float:
        learned = self._learned.get(_shape(work, phase))
        return phase.seconds if learned is None else learned * phase.steps


def _shape(work: Work, phase: Phase) -> Shape:
    """Jobs of one shape take the same time a step: size in pixels over all images or frames."""
    match work:
        case ImageWork():
            return ("sdxl", phase.name, work.width * work.height * work.images)
        case VideoWork():
            return ("wan", phase.name, work.width * work.height * work.frames)
        case TextWork():
            return (f"qwen_{work.model}", phase.name, 0)
