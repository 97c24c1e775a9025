"""What is written down of a scheduler's life: how it was made, then each of its turns.

A recording is a sequence of JSON tables, one a line:

====================================================  =============================================
line                                                  means
====================================================  =============================================
``{"header": {...}, "file": n}``                      how the scheduler was made; every file of the
                                                      recording begins with it, ``n`` from 1
``{"at": s, "events": [...], "commands": [...]}``     what ``handle_all`` was given and returned
``{"at": s, "events": [...], "commands": null}``      it raised, and there was no turn after it
``{"end": why}``                                      nothing was written from here on
====================================================  =============================================

No words are in it: the details of failures, which may quote what a library was given, are left out.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, TypeVar, cast

from scheduler import codec
from scheduler import messages as m
from scheduler.errors import InputError
from scheduler.types import Budget, Component, Links, SchedulerSettings

VERSION = 1
# The ``end`` of a recording that ends because the service does.
CLOSED = "closed"

Message = TypeVar("Message", bound=m.Event | m.Command)


@dataclass(frozen=True, slots=True)
class Header:
    """How the scheduler was made. ``policy`` is one of ``scheduler.contest.CONTESTANTS``;
    ``monotonic`` on the axis of the turns and ``wall`` (Unix seconds) name the same moment."""

    version: int
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
    """One call of ``handle_all``. ``commands`` are ``None`` if it raised."""

    at: float
    events: tuple[m.Event, ...]
    commands: tuple[m.Command, ...] | None


@dataclass(frozen=True, slots=True)
class Beginning:
    """The first line of a file: ``file`` counts from 1."""

    header: Header
    file: int


@dataclass(frozen=True, slots=True)
class End:
    reason: str


Line = Beginning | Turn | End


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


def encode(line: Line) -> dict[str, Any]:
    match line:
        case Beginning(header, file):
            return {"header": codec.encode(header), "file": file}
        case Turn(at, events, commands):
            return {
                "at": at,
                "events": [codec.encode_message(wordless(event)) for event in events],
                "commands": None
                if commands is None
                else [codec.encode_message(wordless(command)) for command in commands],
            }
        case End(reason):
            return {"end": reason}


def decode(value: object, where: str) -> Line:
    """Raises ``InputError``, which names ``where``."""
    if not isinstance(value, Mapping):
        raise InputError(f"{where} is no table")
    if "header" in value:
        header = _header(value["header"], where)
        return Beginning(header, codec.decode(int, value.get("file"), f"{where}: file"))
    if "end" in value:
        return End(codec.decode(str, value["end"], f"{where}: end"))
    for name in ("at", "events", "commands"):
        if name not in value:
            raise InputError(f"{where}: {name} is missing")
    commands = value["commands"]
    return Turn(
        codec.decode(float, value["at"], f"{where}: at"),
        _messages(codec.EVENTS, value["events"], where),
        None if commands is None else _messages(codec.COMMANDS, commands, where),
    )


def _header(value: Any, where: str) -> Header:
    version = value.get("version") if isinstance(value, Mapping) else None
    if version != VERSION:
        raise InputError(f"{where}: the format's version is {version!r}, allowed: {VERSION}")
    header: Header = codec.decode(Header, value, f"{where}: header")
    return header


def _messages(kinds: Mapping[str, type], values: Any, where: str) -> tuple[Any, ...]:
    if not isinstance(values, list):
        raise InputError(f"{where} has no list of messages")
    return tuple(codec.decode_message(kinds, value, where) for value in values)
