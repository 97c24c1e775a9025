"""Fields of a parsed file, checked: each error names where, the value and what is allowed."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from scheduler.errors import InputError

# No count in a workload comes near; beyond it, a number is a mistake and its work never ends.
COUNT_MAX = 1_000_000
# Thirty thousand years: much beyond it a float does not tell one second from the next any more.
NUMBER_MAX = 1e12
BYTES_MAX = 1e18
# Names stand in errors, one line each.
TEXT_CHARACTERS_MAX = 200
_TEXT = f"up to {TEXT_CHARACTERS_MAX} printable characters"
_REQUIRED = object()


def table(value: object, where: str) -> Mapping[str, Any]:
    if not isinstance(value, Mapping):
        raise InputError(f"{where} is {_shown(value)}, allowed: a table")
    return value


def text(fields: Mapping[str, Any], name: str, where: str, default: object = _REQUIRED) -> str:
    value = _get(fields, name, where, default)
    if not _is_text(value) or (not value and default is _REQUIRED):
        raise InputError(f"{where}: {name} is {_shown(value)}, allowed: a text of {_TEXT}")
    return str(value)


def name(key: str, where: str) -> str:
    """A table's key that is a name."""
    if not key or not _is_text(key):
        raise InputError(f"{where}: key {_shown(key)}, allowed: a text of {_TEXT}")
    return key


def texts(fields: Mapping[str, Any], name: str, where: str) -> tuple[str, ...]:
    value = _get(fields, name, where, _REQUIRED)
    if not isinstance(value, list) or not all(_is_text(item) for item in value):
        allowed = f"a list of texts of {_TEXT}"
        raise InputError(f"{where}: {name} is {_shown(value)}, allowed: {allowed}")
    return tuple(value)


def number(
    fields: Mapping[str, Any],
    name: str,
    where: str,
    default: object = _REQUIRED,
    *,
    low: float = 0.0,
    high: float = NUMBER_MAX,
) -> float:
    """A number from ``low`` to ``high``."""
    value = _get(fields, name, where, default)
    sound = isinstance(value, int | float) and not isinstance(value, bool)
    if not sound or not low <= value <= high:
        allowed = f"a number from {low:g} to {high:g}"
        raise InputError(f"{where}: {name} is {_shown(value)}, allowed: {allowed}")
    return float(value)


def count(
    fields: Mapping[str, Any], name: str, where: str, default: object = _REQUIRED, *, low: int = 1
) -> int:
    value = _get(fields, name, where, default)
    if not isinstance(value, int) or isinstance(value, bool) or not low <= value <= COUNT_MAX:
        allowed = f"a whole number from {low} to {COUNT_MAX}"
        raise InputError(f"{where}: {name} is {_shown(value)}, allowed: {allowed}")
    return value


def flag(fields: Mapping[str, Any], name: str, where: str, *, default: bool) -> bool:
    value = _get(fields, name, where, default)
    if not isinstance(value, bool):
        raise InputError(f"{where}: {name} is {_shown(value)}, allowed: true or false")
    return value


def size(fields: Mapping[str, Any], name: str, where: str, default: object = _REQUIRED) -> int:
    """Bytes; a float is taken if it is whole (``1e9``)."""
    value = number(fields, name, where, default, high=BYTES_MAX)
    if not value.is_integer():
        raise InputError(f"{where}: {name} is {_shown(value)}, allowed: a whole number of bytes")
    return int(value)


def _get(fields: Mapping[str, Any], name: str, where: str, default: object) -> Any:
    value = fields.get(name, default)
    if value is None:
        value = default
    if value is _REQUIRED:
        raise InputError(f"{where}: {name} is missing")
    return value


def _is_text(value: object) -> bool:
    return isinstance(value, str) and value.isprintable() and len(value) <= TEXT_CHARACTERS_MAX


def _shown(value: object) -> str:
    try:
        shown = repr(value)
    except ValueError:
        return "a number with too many digits"
    return shown if len(shown) <= 80 else shown[:77] + "..."
