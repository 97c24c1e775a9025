"""The lines of a recording: JSON tables.

==============================================================  ====================================
line                                                            means
==============================================================  ====================================
``{"header": {...}, "file": n}``                                how the scheduler was made; every
                                                                file of the recording begins with
                                                                it, ``n`` from 1
``{"turn": n, "at": s, "events": [...], "commands": [...]}``    what ``handle`` was given and
                                                                returned, ``n`` from 1 through all
                                                                files
``{"turn": n, "at": s, "events": [...], "commands": null}``     it raised, and there was no turn
                                                                after it
``{"end": why, "turns": n}``                                    nothing was written from here on,
                                                                after so many turns
==============================================================  ====================================

A message is a table of one entry, its name and its fields; fields that hold their default are left
out. No words are in it: the details of failures, which may quote what a library was given, are left
out too.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Annotated, Any, Final, NotRequired, Union, get_args

from pydantic import ConfigDict, Discriminator, Tag, TypeAdapter, ValidationError, with_config
from typing_extensions import TypedDict

from ourvidz.errors import OurVidzError
from scheduler import messages as m
from scheduler.recording import Header, Turn, wordless

# The ``end`` of a recording that ends because the service does.
CLOSED: Final = "closed"
_SHOWN_MAX: Final = 80
_STRICT: Final = ConfigDict(strict=True, extra="forbid", allow_inf_nan=False)


class RecordingUnusable(OurVidzError):
    """The recording cannot be read."""


@dataclass(frozen=True, slots=True)
class Beginning:
    """The first line of a file: ``file`` counts from 1."""

    header: Header
    file: int


@dataclass(frozen=True, slots=True)
class Numbered:
    """A turn: ``number`` counts from 1, through all files of a recording."""

    number: int
    turn: Turn


@dataclass(frozen=True, slots=True)
class End:
    """``turns`` were written; not said where the disk took no more."""

    reason: str
    turns: int | None = None


Line = Beginning | Numbered | End


def encode(line: Line) -> bytes:
    """One line, with its end."""
    match line:
        case Beginning(header, file):
            table: dict[str, Any] = {"header": header, "file": file}
        case Numbered(number, turn):
            commands = None if turn.commands is None else _named(turn.commands)
            events = _named(turn.events)
            table = {"turn": number, "at": turn.at, "events": events, "commands": commands}
        case End(reason, turns):
            table = {"end": reason} | ({} if turns is None else {"turns": turns})
    # Without warnings: an integer may stand where a float does.
    return _LINES.dump_json(table, exclude_defaults=True, warnings=False) + b"\n"


def decode(line: bytes, where: str) -> Line:
    """Raises ``RecordingUnusable``, which names ``where``."""
    if not line.strip():
        raise RecordingUnusable(f"{where} is empty")
    try:
        table = _LINES.validate_json(line)
    except ValidationError as error:
        raise RecordingUnusable(f"{where}: {_wrong(error)}") from error
    if "header" in table:
        return Beginning(**table)
    if "end" in table:
        return End(table["end"], table.get("turns"))
    commands = table["commands"]
    decided = None if commands is None else tuple(_unnamed(commands))
    return Numbered(table["turn"], Turn(table["at"], tuple(_unnamed(table["events"])), decided))


def _named(messages: Iterable[m.Event | m.Command]) -> list[dict[str, Any]]:
    return [{type(message).__name__: wordless(message)} for message in messages]


def _unnamed(tables: Iterable[dict[str, Any]]) -> Iterable[Any]:
    return (message for table in tables for message in table.values())


def _name_of(value: Any) -> str | None:
    return next(iter(value), None) if isinstance(value, dict) else None


def _line_of(value: Any) -> str:
    names = value if isinstance(value, dict) else ()
    return next((name for name in ("header", "end") if name in names), "turn")


def _table(name: str, fields: dict[str, Any]) -> Any:
    kind = TypedDict(name, fields)  # type: ignore[misc]  # types are made of values here
    return Annotated[with_config(_STRICT)(kind), Tag(name)]


def _message(kinds: Any) -> Any:
    named = {kind.__name__: kind for kind in get_args(kinds)}
    tables = tuple(_table(name, {name: kind}) for name, kind in named.items())
    unknown = Discriminator(
        _name_of,
        custom_error_type="message",
        custom_error_message=f"Input should be one of {', '.join(named)}, with its fields",
    )
    return Annotated[Union[tables], unknown]  # noqa: UP007 - a tuple


_TURN: Final = {
    "turn": int,
    "at": float,
    "events": list[_message(m.Event)],  # type: ignore[misc]
    "commands": list[_message(m.Command)] | None,  # type: ignore[misc]
}
_TABLES: Final = (
    _table("header", {"header": Header, "file": int}),
    _table("end", {"end": str, "turns": NotRequired[int]}),
    _table("turn", _TURN),
)
_LINE: Any = Annotated[Union[_TABLES], Discriminator(_line_of)]  # noqa: UP007 - a tuple
_LINES: Final[TypeAdapter[Any]] = TypeAdapter(_LINE)


def _wrong(error: ValidationError) -> str:
    """The first thing that is wrong, but that it is another format's before all else."""
    found = error.errors(include_url=False)
    first = next((e for e in found if e["loc"][-1:] == ("version",)), found[0])
    place = "".join(f"{part}: " for part in first["loc"][1:])
    shown = repr(first["input"])
    shown = shown if len(shown) <= _SHOWN_MAX else shown[: _SHOWN_MAX - 3] + "..."
    return f"{place}{first['msg'].removeprefix('Value error, ')}, not {shown}"
