"""Messages and nouns as JSON values and back.

The dataclasses' own fields say how, so that a new field or message needs no word here: a dataclass
is a table without the fields that hold their default, a message a table of one entry, its name and
its fields. What is decoded equals what was encoded; a number that is not finite is its name.
"""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Callable, Mapping
from enum import Enum
from typing import Any, get_args, get_origin, get_type_hints

from scheduler import messages as m
from scheduler.errors import InputError

EVENTS: Mapping[str, type] = {kind.__name__: kind for kind in get_args(m.Event)}
COMMANDS: Mapping[str, type] = {kind.__name__: kind for kind in get_args(m.Command)}

_NOT_FINITE = ("inf", "-inf", "nan")


def encode(value: Any) -> Any:
    """A noun, or what is inside of one, as a JSON value."""
    if dataclasses.is_dataclass(value):
        fields = ((f, getattr(value, f.name)) for f in dataclasses.fields(value))
        return {f.name: encode(held) for f, held in fields if not _is_default(f, held)}
    if isinstance(value, Enum):
        return value.value
    if isinstance(value, tuple | list):
        return [encode(item) for item in value]
    if isinstance(value, Mapping):
        return {encode(key): encode(held) for key, held in value.items()}
    if isinstance(value, float) and not math.isfinite(value):
        return str(value)
    return value


def encode_message(message: m.Event | m.Command) -> dict[str, Any]:
    return {type(message).__name__: encode(message)}


def decode(hint: Any, value: Any, where: str) -> Any:
    """What ``encode`` made of a value with this annotation. Raises ``InputError``, which names
    ``where``."""
    try:
        return _reader(hint)(value)
    except _Misfit as misfit:
        raise InputError(f"{where}{misfit.path}{misfit.said}") from misfit


def decode_message(kinds: Mapping[str, type], value: Any, where: str) -> Any:
    """What ``encode_message`` made of a message of one of these kinds. Raises ``InputError``."""
    if not isinstance(value, dict) or len(value) != 1 or next(iter(value)) not in kinds:
        raise InputError(f"{where} is {_shown(value)}, allowed: one of {', '.join(kinds)}")
    (name,) = value
    return decode(kinds[name], value[name], f"{where}: {name}")


def _is_default(field: dataclasses.Field[Any], value: Any) -> bool:
    return field.default is not dataclasses.MISSING and bool(value == field.default)


class _Misfit(Exception):
    """A value that is not what was asked for. ``path`` leads to it, ``said`` is what is wrong."""

    def __init__(self, said: str) -> None:
        super().__init__(said)
        self.said = said
        self.path = ""


_Reader = Callable[[Any], Any]
# Readers are made once for each annotation: a recording has millions of values.
_READERS: dict[Any, _Reader] = {}


def _reader(hint: Any) -> _Reader:
    if hint not in _READERS:
        _READERS[hint] = _make_reader(hint)
    return _READERS[hint]


def _make_reader(hint: Any) -> _Reader:
    origin, inner = get_origin(hint), get_args(hint)
    if origin is tuple:
        return _tuple_reader(inner)
    if isinstance(origin, type) and issubclass(origin, Mapping):
        return _table_reader(*inner)
    if inner:
        return _choice_reader(inner)
    return _class_reader(hint)


def _class_reader(kind: Any) -> _Reader:
    if dataclasses.is_dataclass(kind):
        return _noun_reader(kind)
    if issubclass(kind, Enum):
        return _enum_reader(kind)
    if kind is float:
        return _read_float
    return lambda value: _checked(value, kind, kind.__name__)


def _noun_reader(kind: Any) -> _Reader:
    readers = {name: _reader(hint) for name, hint in get_type_hints(kind).items()}

    def read(value: Any) -> Any:
        fields = {}
        for name, held in _checked(value, dict, "a table").items():
            if name not in readers:
                raise _Misfit(f": {name}, allowed: {', '.join(readers) or 'nothing'}")
            fields[name] = _read_at(f".{name}", readers[name], held)
        try:
            return kind(**fields)
        except (TypeError, ValueError) as error:  # a field is missing, or out of its bounds
            raise _Misfit(f": {error}") from error

    return read


def _table_reader(key_hint: Any, held_hint: Any) -> _Reader:
    read_key, read_held = _reader(key_hint), _reader(held_hint)

    def read(value: Any) -> Any:
        table = _checked(value, dict, "a table").items()
        return {read_key(k): _read_at(f".{k}", read_held, held) for k, held in table}

    return read


def _tuple_reader(hints: tuple[Any, ...]) -> _Reader:
    readers = [_reader(hint) for hint in hints if hint is not Ellipsis]
    endless = hints[-1] is Ellipsis

    def read(value: Any) -> Any:
        items = _checked(value, list, "a list")
        each = readers * len(items) if endless else readers
        if len(items) != len(each):
            raise _Misfit(f" has {len(items)} entries, allowed: {len(each)}")
        pairs = enumerate(zip(each, items, strict=True))
        return tuple(_read_at(f"[{n}]", one, item) for n, (one, item) in pairs)

    return read


def _choice_reader(hints: tuple[Any, ...]) -> _Reader:
    """The first that fits; what is wrong is said of the last."""
    *first, last = (_reader(hint) for hint in hints if hint is not type(None))
    nothing = type(None) in hints

    def read(value: Any) -> Any:
        if value is None and nothing:
            return None
        for one in first:
            try:
                return one(value)
            except _Misfit:
                continue
        return last(value)

    return read


def _enum_reader(kind: type[Enum]) -> _Reader:
    members = {member.value: member for member in kind}

    def read(value: Any) -> Any:
        if not isinstance(value, str | int) or value not in members:
            raise _Misfit(f" is {_shown(value)}, allowed: {', '.join(map(repr, members))}")
        return members[value]

    return read


def _read_float(value: Any) -> float:
    """A whole number stays one: it is what was given, and as good."""
    if isinstance(value, str) and value in _NOT_FINITE:
        return float(value)
    found: float = _checked(value, float | int, "a number")
    return found


def _read_at(place: str, reader: _Reader, value: Any) -> Any:
    try:
        return reader(value)
    except _Misfit as misfit:
        misfit.path = place + misfit.path
        raise


def _checked(value: Any, kind: Any, called: str) -> Any:
    """``True`` is no number here."""
    if not isinstance(value, kind) or (value is True or value is False) is not (kind is bool):
        raise _Misfit(f" is {_shown(value)}, allowed: {called}")
    return value


def _shown(value: Any) -> str:
    shown = repr(value)
    return shown if len(shown) <= 80 else shown[:77] + "..."
