"""What the device that only pretends writes down of a part, for another process to go on with."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass, replace

import orjson

from ourvidz.adapters.atomic import write_atomically
from ourvidz.jobs import TextWork, may_share
from ourvidz.ports import Part
from scheduler.types import Phase

_PHASE = "denoise"
_FILE = "fake.json"


@dataclass(frozen=True, slots=True)
class FakeStates:
    """After each ``every`` denoising steps the number of them; never with 0."""

    every: int

    def keep(self, part: Part, phase: Phase, steps: int) -> bool:
        """So many steps of the phase are done; whether that is written down now."""
        if not self._kept(part) or phase.name != _PHASE or steps % self.every:
            return False
        data = orjson.dumps({"work": _digest(part), "steps": steps})
        try:
            part.state_folder.mkdir(exist_ok=True)
            write_atomically(part.state_folder / _FILE, lambda file: file.write_bytes(data))
        except FileNotFoundError:
            return False  # The job's folder is gone.
        return True

    def remaining(self, part: Part, phases: tuple[Phase, ...]) -> tuple[tuple[Phase, ...], int]:
        """The phases that are left, and how many steps of the first of them are done."""
        try:
            found = orjson.loads((part.state_folder / _FILE).read_bytes())
        except (OSError, orjson.JSONDecodeError):
            return phases, 0
        if not self._kept(part) or found["work"] != _digest(part):
            return phases, 0
        place = [phase.name for phase in phases].index(_PHASE)
        steps, whole = found["steps"], phases[place]
        if steps == whole.steps:
            return phases[place + 1 :], 0
        share = (whole.steps - steps) / whole.steps
        first = replace(whole, steps=whole.steps - steps, seconds=whole.seconds * share)
        return (first, *phases[place + 1 :]), steps

    def _kept(self, part: Part) -> bool:
        return bool(self.every) and not isinstance(part.work, TextWork) and not may_share(part.work)


def _digest(part: Part) -> str:
    return hashlib.sha256(repr(part.work).encode()).hexdigest()
