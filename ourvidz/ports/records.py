"""What is written down about runs: decisions, and how long things took."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Protocol

from scheduler.recording import Header, Turn


class Recorder(Protocol):
    """Writes down what the scheduler is told and what it decides, for a replay. Neither method
    waits or raises: a recording that cannot go on ends, the service does not."""

    def begin(self, header: Header, stopped: Callable[[], None]) -> None:
        """Before the first turn. ``stopped`` is called in the event loop if the recording ends
        before the service does."""

    def turn(self, turn: Turn) -> None: ...


@dataclass(frozen=True, slots=True)
class Series:
    """The last values of something measured, the oldest first."""

    name: str
    values: Sequence[float]


class Measurements(Protocol):
    """What was measured, for the next start. Bounded: the longest unseen is forgotten.

    ``versions`` names the software and the device that it was measured with; other versions' values
    are kept apart.
    """

    async def load(self, versions: str) -> Sequence[Series]:
        """What was saved, that which was saved last at the end."""

    async def save(self, versions: str, changed: Sequence[Series]) -> None:
        """Put these in the place of what was saved under their names; returns once it is
        durable."""
