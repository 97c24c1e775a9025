"""One value of a payload: read as a number, a choice or a flag, and shown in messages."""

from __future__ import annotations

import math
import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from ourvidz.config.jobs import Range
from ourvidz.jobs import ErrorCode, JobError
from ourvidz.wire.unwrap import describe

_SHOWN_MAX = 60
_NUMBER = re.compile(
    r"[+-]?(?:[0-9]{1,30}(?:\.[0-9]{0,30})?|\.[0-9]{1,30})(?:[eE][+-]?[0-9]{1,3})?"
)
_FLAGS = {"true": True, "false": False, "1": True, "0": False}


class FieldError(Exception):
    """A field that cannot be executed. Caught at one place, where the payload becomes a job."""

    def __init__(
        self,
        field: str,
        problem: str,
        code: ErrorCode = ErrorCode.INVALID_PARAMETER,
        hint: str | None = None,
    ) -> None:
        super().__init__(f"{field}: {problem}")
        self.error = JobError(code, str(self), retryable=False, hint=hint, field=field)


@dataclass(frozen=True, slots=True)
class Found:
    """A value with its path in the payload; ``group`` is the object it is in, empty for the top
    level."""

    group: str
    key: str
    value: Any

    @property
    def field(self) -> str:
        return f"{self.group}.{self.key}" if self.group else self.key


def number(found: Found) -> float:
    """A finite number, also written as text; a boolean is none. Raises ``FieldError``."""
    value = found.value
    if isinstance(value, str) and _NUMBER.fullmatch(value.strip()):
        value = float(value)
    if isinstance(value, bool) or not isinstance(value, (int, float)) or not math.isfinite(value):
        raise FieldError(found.field, f"must be a number, got {shown(found.value)}")
    return value


def whole(found: Found) -> int:
    """A whole number of any size, also written as 25.0. Raises ``FieldError``."""
    value = number(found)
    if value != int(value):
        raise FieldError(found.field, f"must be a whole number, got {shown(found.value)}")
    return int(value)


def flag(found: Found) -> bool:
    """True or false, also written as text or as 1 and 0. Raises ``FieldError``."""
    value = found.value
    key = str(value).lower() if isinstance(value, (bool, int, str)) else ""
    if key not in _FLAGS:
        raise FieldError(found.field, f"must be true or false, got {shown(value)}")
    return _FLAGS[key]


def choose(found: Found, allowed: Mapping[str, str]) -> str:
    """What ``allowed`` maps a text to. Raises ``FieldError`` that names what is allowed."""
    if isinstance(found.value, str) and found.value in allowed:
        return allowed[found.value]
    raise FieldError(found.field, f"{shown(found.value)}, allowed {', '.join(allowed)}")


def check_range(field: str, value: float, bounds: Range) -> None:
    """Raise ``FieldError`` unless ``value`` is within ``bounds``, both included."""
    if not bounds.min <= value <= bounds.max:
        allowed = f"allowed {plain(bounds.min)} to {plain(bounds.max)}"
        raise FieldError(field, f"{plain(value)} is out of range, {allowed}")


def plain(value: float) -> str:
    """A finite number without an exponent or a needless fraction, as far as that goes."""
    return str(int(value)) if value == int(value) and abs(value) < 1e16 else f"{value:g}"


def shown(value: object) -> str:
    """A value for a message: short, on one line, containers by their kind alone."""
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, (int, float)):
        return plain(value)
    if isinstance(value, str):
        return f'"{cut(value)}"'
    return describe(value)


def cut(text: str) -> str:
    """At most sixty printable characters of a text."""
    line = "".join(c if c.isprintable() else " " for c in text[: _SHOWN_MAX + 1])
    return line if len(text) <= _SHOWN_MAX else line[: _SHOWN_MAX - 3] + "..."
