"""A recorded scheduler once more: does it decide as it did?"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from scheduler.contest import CONTESTANTS
from scheduler.core import Scheduler
from scheduler.errors import InputError
from scheduler.messages import Command
from scheduler.recording import Header, Turn, wordless


def scheduler_of(header: Header) -> Scheduler:
    """The scheduler that a header describes, as the service makes it. Raises ``InputError`` for a
    policy that does not exist, and for masters on the host that cannot be there."""
    if header.policy not in CONTESTANTS:
        allowed = ", ".join(CONTESTANTS)
        raise InputError(f"header: policy is {header.policy!r}, allowed: {allowed}")
    _check_components(header)
    contestant = CONTESTANTS[header.policy](header.settings)
    return Scheduler(
        header.components,
        header.budget,
        header.links,
        header.settings,
        contestant.policy,
        staged=header.staged,
        eviction=contestant.eviction,
    )


def _check_components(header: Header) -> None:
    sizes = {component.name: component.weight_bytes for component in header.components}
    if len(sizes) < len(header.components) or len(set(header.staged)) < len(header.staged):
        raise InputError("header: a component comes twice")
    unknown = sorted(set(header.staged) - sizes.keys())
    if unknown:
        known = ", ".join(sorted(sizes)) or "none"
        raise InputError(f"header: staged has {unknown[0]!r}, known components: {known}")
    staged = sum(sizes[name] for name in header.staged)
    if staged > header.budget.host_bytes:
        raise InputError(
            f"header: staged has {staged} bytes, allowed: up to {header.budget.host_bytes}"
        )


@dataclass(frozen=True, slots=True)
class Difference:
    """A turn that ended otherwise: ``number`` counts from 1, ``place`` is that of the first command
    that differs, from 0. ``expected`` and ``got`` say in words what stands there."""

    number: int
    turn: Turn
    place: int
    expected: str
    got: str


@dataclass(slots=True)
class Replay:
    """Counts what has been compared. ``broke`` is what the scheduler raised in the last turn, as
    it is recorded that it did."""

    scheduler: Scheduler
    turns: int = 0
    events: int = 0
    commands: int = 0
    broke: str = ""

    def feed(self, turn: Turn) -> Difference | None:
        """Give the scheduler a turn; returns how what it decides differs from what was recorded."""
        self.turns += 1
        self.events += len(turn.events)
        try:
            commands = self.scheduler.handle(turn.events, turn.at)
        except Exception as error:  # noqa: BLE001 - whatever it is, it is what the turn came to
            self.broke = f"{type(error).__name__}: {error}"
            return None if turn.commands is None else self._difference(turn, None)
        got = tuple(wordless(command) for command in commands)
        if got != turn.commands:
            return self._difference(turn, got)
        self.commands += len(got)
        return None

    def _difference(self, turn: Turn, got: Sequence[Command] | None) -> Difference:
        expected = turn.commands
        pairs = zip(expected or (), got or (), strict=False)
        alike = min(len(expected or ()), len(got or ()))
        place = next((n for n, (one, other) in enumerate(pairs) if one != other), alike)
        said = (_said(expected, place, "it raised"), _said(got, place, self.broke))
        return Difference(self.turns, turn, place, *said)


def _said(commands: Sequence[Command] | None, place: int, raised: str) -> str:
    if commands is None:
        return raised
    return repr(commands[place]) if place < len(commands) else "nothing more"
