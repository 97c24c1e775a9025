"""What is written down of a scheduler's life: how it was made, then each of its turns.

No words are in it: the details of failures, which may quote what a library was given, are left out.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Final, Literal, TypeVar, cast

from scheduler import messages as m
from scheduler.types import Budget, Component, Links, SchedulerSettings

VERSION: Final = 1

Message = TypeVar("Message", bound=m.Event | m.Command)


@dataclass(frozen=True, slots=True)
class Header:
    """How the scheduler was made. ``policy`` is one of ``scheduler.contest.CONTESTANTS``;
    ``monotonic`` on the axis of the turns and ``wall`` (Unix seconds) name the same moment."""

    version: Literal[1]
    components: tuple[Component, ...]
    staged: tuple[str, ...]
    budget: Budget
    links: Links
    settings: SchedulerSettings
    policy: str
    wall: float
    monotonic: float


@dataclass(frozen=True, slots=True)
class Turn:
    """One call of ``handle``. ``commands`` are ``None`` if it raised."""

    at: float
    events: tuple[m.Event, ...]
    commands: tuple[m.Command, ...] | None


def wordless(message: Message) -> Message:
    """The message without its detail."""
    if getattr(message, "detail", ""):
        return cast("Message", dataclasses.replace(cast("Any", message), detail=""))
    return message


def anonymous(event: m.Event, alias: Callable[[str], str]) -> m.Event:
    """The event with the user's alias in place of the user."""
    if not isinstance(event, m.JobArrived):
        return event
    demand = event.demand
    return m.JobArrived(dataclasses.replace(demand, user=alias(demand.user)))
