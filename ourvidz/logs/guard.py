"""What may be written: no secrets, no text of users unless configured, nothing without bounds."""

from __future__ import annotations

import dataclasses
import datetime
import hashlib
import itertools
import math
import re
from collections.abc import Iterator, Mapping, Sequence, Set
from enum import Enum
from pathlib import PurePath
from typing import Any
from uuid import UUID

from structlog.typing import EventDict, WrappedLogger

from ourvidz.redact import REDACTED, names_secret, redact

# A line is for reading: enough for a traceback, not for a file.
_CHARACTERS_MAX = 16_000
_ITEMS_MAX = 100
_DEPTH_MAX = 6
_USER_TEXT = frozenset(
    {"body", "content", "input", "inputs", "messages", "output", "payload", "raw", "response"}
    | {"text"}
)
_SHOWN_AS_TEXT = (UUID, PurePath, datetime.date, datetime.time, datetime.timedelta)
_PROMPT = re.compile(r"(?:^|_)prompts?$")


@dataclasses.dataclass
class _Choice:
    """Whether users' texts are written. One per process, as logging is; ``configure`` sets it."""

    log_prompts: bool = False


choice = _Choice()


def guard(_logger: WrappedLogger, _method: str, event: EventDict) -> EventDict:
    """A structlog processor: the event with plain, bounded values that may be shown."""
    first = {key: event[key] for key in ("event", "level", "job") if key in event}
    return dict(_fields({**first, **event}, 0))


def _fields(fields: Mapping[Any, Any], depth: int) -> Iterator[tuple[str, Any]]:
    for index, (key, value) in enumerate(fields.items()):
        if index == _ITEMS_MAX:
            yield "left_out", len(fields) - _ITEMS_MAX
            return
        name = _text(key) if isinstance(key, str) else str(_plain(key, depth))
        if value is None or isinstance(value, bool | int | float):
            yield name, _plain(value, depth)
        elif names_secret(name):
            yield name, REDACTED
        elif not choice.log_prompts and _is_user_text(name):
            yield from _digest(name, value)
        else:
            yield name, _plain(value, depth)


def _is_user_text(name: str) -> bool:
    return name.lower() in _USER_TEXT or bool(_PROMPT.search(name.lower()))


def _digest(name: str, value: object) -> Iterator[tuple[str, str | int]]:
    text = value if isinstance(value, str | bytes) else repr(value)
    raw = text if isinstance(text, bytes) else text.encode("utf-8", "surrogatepass")
    yield f"{name}_sha256", hashlib.sha256(raw).hexdigest()[:12]
    yield f"{name}_chars", len(text)


def _plain(value: Any, depth: int) -> Any:
    """``value`` in JSON's types. An object of no known kind shows its type alone: its text might
    hold what must not be shown."""
    if isinstance(value, Enum):
        value = value.value
    if value is None or isinstance(value, bool):
        return value
    if isinstance(value, int | float):
        return _number(value)
    if isinstance(value, bytes | bytearray):
        value = f"<{len(value)} bytes>"
    elif isinstance(value, BaseException):
        value = f"{type(value).__name__}: {value}"
    elif isinstance(value, _SHOWN_AS_TEXT):
        value = str(value)
    return _text(value) if isinstance(value, str) else _nested(value, depth + 1)


def _number(value: float) -> float | str:
    if isinstance(value, int):
        return int(value) if value.bit_length() < 64 else f"<{value.bit_length()} bits>"
    return float(value) if math.isfinite(value) else str(value)


def _nested(value: Any, depth: int) -> Any:
    if depth <= _DEPTH_MAX:
        if isinstance(value, Mapping):
            return dict(_fields(value, depth))
        if dataclasses.is_dataclass(value) and not isinstance(value, type):
            names = [field.name for field in dataclasses.fields(value)]
            return dict(_fields({name: getattr(value, name, None) for name in names}, depth))
        if isinstance(value, Sequence | Set):
            return [_item(item, depth) for item in itertools.islice(value, _ITEMS_MAX)]
    return f"<{type(value).__qualname__}>"


def _item(item: Any, depth: int) -> Any:
    """One entry of a list; a pair like a header's name and value counts as a field."""
    if isinstance(item, tuple) and len(item) == 2 and isinstance(item[0], str | bytes):
        name = item[0].decode("latin-1") if isinstance(item[0], bytes) else item[0]
        return next(iter(dict(_fields({name: item[1]}, depth)).items()))
    return _plain(item, depth)


def _text(text: str) -> str:
    """Without secrets, at its longest bound and encodable as UTF-8."""
    if len(text) > _CHARACTERS_MAX:
        text = f"{text[:_CHARACTERS_MAX]}... ({len(text)} characters)"
    return redact(text).encode("utf-8", "backslashreplace").decode()
