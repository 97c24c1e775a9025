"""What a phase and a move of weights will take, learned from what such things took before.

A step's seconds are those of steps that did the same, if there were any; else those of the same
kind of step at other sizes, in proportion; else the plan's. The seconds of a phase are its steps'
together; a text's steps are as many as texts of its purpose had, but not more than it may have.
How much slower steps are that several share is learned where a step alone is known.
Models are told apart by their components' names, bytes and number format, measurements by the
versions of software and device.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

import structlog

from ourvidz.jobs import Work
from ourvidz.ports import Measurements
from ourvidz.service.samples import Samples, quantile
from ourvidz.service.shapes import open_ended, shape_of
from ourvidz.service.signal import Signal
from scheduler.types import Phase, Sharing

log = structlog.get_logger()

Quantiles = tuple[float, float]

# A step of ours may have met somebody else's burst.
_EXPONENTS_MIN = 3


@dataclass(frozen=True, slots=True)
class Hardware:
    """What measurements depend on beside their shapes.

    ``versions`` names software and device, ``formats`` each model's number format; ``weights`` are
    the components' bytes, ``device_bytes`` what the ledger may give out.
    """

    versions: str
    formats: Mapping[str, str]
    weights: Mapping[str, int]
    device_bytes: int

    def describe(self, component: str) -> str:
        """The component as measurements know it."""
        number_format = self.formats.get(component.partition(".")[0], "")
        return f"{component} {number_format} {self.weights.get(component, 0)}"

    def room(self, phase: Phase) -> int:
        """The bytes on the device beside the phase's weights."""
        names = dict.fromkeys(phase.components)
        return self.device_bytes - sum(self.weights.get(name, 0) for name in names)


class Estimates:
    """Learns as it is told and is written down by ``keep``; memory only but for that."""

    def __init__(self, measurements: Measurements, hardware: Hardware) -> None:
        self._measurements = measurements
        self._hardware = hardware
        self._samples = Samples()
        self._learned = Signal()

    def phase(self, work: Work, phase: Phase) -> Phase:
        """A planned phase with its expected seconds, and with the bytes that it is known to need.

        Working bytes are only ever raised above the plan's, and not beyond what the device has
        beside the weights: what has run before is not refused for what was learned from it.
        """
        phase = replace(
            phase,
            working_bytes=self._working_bytes(work, phase),
            sharing=self._sharing(work, phase),
        )
        steps = self._step_seconds(work, phase)
        if not steps:
            return phase
        counts = self._step_counts(work, phase)
        totals = [count * seconds for count in counts for seconds in steps]
        return replace(
            phase,
            seconds=quantile(totals, 0.5),
            seconds_p90=quantile(totals, 0.9),
            steps_expected=math.ceil(quantile(counts, 0.5)) if open_ended(work) else None,
        )

    def stage_seconds(self, component: str) -> Quantiles | None:
        """Median and 90th percentile of reading the component from disk, if they are known."""
        return _quantiles(self._samples.values(self._move("stage", component)))

    def load_seconds(self, component: str) -> Quantiles | None:
        """Median and 90th percentile of copying the component to the device, if they are known."""
        return _quantiles(self._samples.values(self._move("load", component)))

    def ran(self, work: Work, phase: Phase, steps: int, seconds: float) -> None:
        """So many steps of the phase, with the device to themselves, took so long."""
        shape, each = shape_of(work, phase), seconds / steps
        self._samples.add(self._name("step", phase, shape.name), each)
        self._samples.add(self._name("pixel", phase, shape.kind), each / shape.size)
        self._learned.notify()

    def shared(self, work: Work, phase: Phase, units: int, step_seconds: float) -> None:
        """A step of so many units together, the phase's among them, took so long."""
        alone = self._samples.values(self._name("step", phase, shape_of(work, phase).name))
        if phase.sharing is None or not alone or step_seconds <= 0.0:
            return
        growth = step_seconds / quantile(alone, 0.5)
        exponent = math.log(growth) / math.log(units / phase.sharing.units)
        self._samples.add(self._exponent(work, phase), min(1.0, max(0.0, exponent)))
        self._learned.notify()

    def ended(self, work: Work, phase: Phase, steps: int) -> None:
        """The phase had so many steps, with whomever it shared the device."""
        if open_ended(work):
            name = self._name("steps", phase, shape_of(work, phase).name)
            self._samples.add(name, steps)
            self._learned.notify()

    def peaked(self, work: Work, planned: Phase, peak_bytes: int) -> None:
        """A run of the phase, alone on the device, was seen to need so many working bytes."""
        missing = peak_bytes - planned.working_bytes
        if missing > 0:
            self._samples.raise_to(self._missing(work, planned), missing)
            self._learned.notify()

    def staged(self, component: str, seconds: float) -> None:
        """Reading the component, and nothing beside it, took so long."""
        self._samples.add(self._move("stage", component), seconds)
        self._learned.notify()

    def loaded(self, component: str, seconds: float) -> None:
        """Copying the component, and nothing beside it, took so long."""
        self._samples.add(self._move("load", component), seconds)
        self._learned.notify()

    async def recall(self) -> None:
        """Take back what earlier processes learned."""
        self._samples.restore(await self._measurements.load(self._hardware.versions))

    async def keep(self) -> None:
        """Write down what is learned, for ever."""
        while True:
            learned = self._learned.ticket
            await self.flush()
            await learned.wait()

    async def flush(self) -> None:
        """Write down what is not written yet. What cannot be written is tried with the next."""
        changed = self._samples.changed()
        if not changed:
            return
        try:
            await self._measurements.save(self._hardware.versions, changed)
        except Exception as error:  # noqa: BLE001 - no job may be harmed by what only helps it
            log.warning("estimates_not_saved", reason=repr(error))
            self._samples.change_again(changed)

    def _step_seconds(self, work: Work, phase: Phase) -> Sequence[float]:
        shape = shape_of(work, phase)
        same = self._samples.values(self._name("step", phase, shape.name))
        pixels = self._samples.values(self._name("pixel", phase, shape.kind))
        return same or [seconds * shape.size for seconds in pixels]

    def _step_counts(self, work: Work, phase: Phase) -> Sequence[float]:
        name = self._name("steps", phase, shape_of(work, phase).name)
        bound = max(1, phase.steps)
        return [min(bound, count) for count in self._samples.values(name)] or [bound]

    def _sharing(self, work: Work, phase: Phase) -> Sharing | None:
        """As planned, with the exponent that was seen, once it was seen more than by chance."""
        seen = self._samples.values(self._exponent(work, phase))
        if phase.sharing is None or len(seen) < _EXPONENTS_MIN:
            return phase.sharing
        return replace(phase.sharing, exponent=quantile(seen, 0.5))

    def _exponent(self, work: Work, phase: Phase) -> str:
        return self._name("exponent", phase, shape_of(work, phase).kind)

    def _working_bytes(self, work: Work, phase: Phase) -> int:
        missing = self._samples.values(self._missing(work, phase))
        raised = phase.working_bytes + math.ceil(max(missing, default=0.0))
        return max(phase.working_bytes, min(raised, self._hardware.room(phase)))

    def _missing(self, work: Work, phase: Phase) -> str:
        """What plans of this shape fell short by. Bytes, not a share: what a plan misses is a
        device's fixed cost, out of all proportion for a small plan."""
        return self._name("missing bytes", phase, shape_of(work, phase).name)

    def _name(self, quantity: str, phase: Phase, what: str) -> str:
        components = " ".join(self._hardware.describe(name) for name in phase.components)
        return f"{quantity}: {components} {what}"

    def _move(self, quantity: str, component: str) -> str:
        return f"{quantity}: {self._hardware.describe(component)}"


def _quantiles(values: Sequence[float]) -> Quantiles | None:
    return (quantile(values, 0.5), quantile(values, 0.9)) if values else None
