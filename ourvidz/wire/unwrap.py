"""From the bytes of a queue element to the one JSON object it holds, and that object's digest.

Producers write four forms: a JSON object; an array holding one JSON string; a JSON string holding
JSON; ``{"data": "<json>"}``. They nest, to ``FORMS_MAX`` levels.
"""

from __future__ import annotations

import hashlib
import json
import math
from collections.abc import Mapping
from typing import Any

import orjson

FORMS_MAX = 8
_DIGEST_HEAD = 65_536
# What the strict decoder keeps as integers; it reads others as floating-point numbers.
_INTEGERS = range(-(2**63), 2**64)
_INT_DIGITS = 20
_SHOWN_DIGITS = 18
# An object with one of these is the job itself, whatever its ``data`` may be.
_JOB_KEYS = ("id", "job_id", "type", "job_type")
SURROGATES = "payload: lone surrogates were replaced by U+FFFD"


class PayloadError(Exception):
    """The payload holds no JSON object that could be read. The message starts with ``payload:``."""

    def __init__(self, message: str) -> None:
        super().__init__(f"payload: {message}")


def unwrap(raw: bytes | str, bytes_max: int) -> tuple[dict[str, Any], tuple[str, ...]]:
    """The object and the warnings met on the way. Raises ``PayloadError``.

    A payload over ``bytes_max`` is refused before a byte of it is decoded. Of a key that occurs
    twice the last one counts, as in every JSON parser that the producers use.
    """
    size = len(raw) if isinstance(raw, bytes) else _utf8_size(raw, bytes_max)
    if size > bytes_max:
        raise PayloadError(f"too large, {size} bytes or more, allowed at most {bytes_max}")
    warnings: list[str] = []
    value: Any = raw
    for _ in range(FORMS_MAX):
        if isinstance(value, (bytes, str)):
            value = _decode(value, warnings)
        if isinstance(value, list):
            if len(value) != 1:
                raise PayloadError(f"an array must hold exactly one job, got {len(value)}")
            value = value[0]
        elif isinstance(value, dict):
            if not _is_envelope(value):
                return value, tuple(dict.fromkeys(warnings))
            value = value["data"]
        elif not isinstance(value, str):
            raise PayloadError(f"must be a JSON object, got {describe(value)}")
    raise PayloadError(f"wrapped more than {FORMS_MAX} times")


def body_digest(body: Mapping[str, Any]) -> str:
    """sha256 of the object in canonical JSON, in hex: key order and element form do not matter.

    Raises ``PayloadError`` for a body nested more deeply than the encoder goes.
    """
    try:
        canonical = orjson.dumps(body, option=orjson.OPT_SORT_KEYS)
    except orjson.JSONEncodeError as exc:
        raise PayloadError("nested too deeply, allowed about 250 levels") from exc
    return hashlib.sha256(canonical).hexdigest()


def raw_digest(raw: bytes | str) -> str:
    """A digest for what could not be decoded: of its length and its first 64 KiB, so that its
    cost is bounded."""
    head = raw[:_DIGEST_HEAD]
    data = head if isinstance(head, bytes) else head.encode("utf-8", "surrogatepass")
    return hashlib.sha256(b"%d:" % len(raw) + data).hexdigest()


def describe(value: object) -> str:
    """A JSON value's kind, never its content."""
    if value is None:
        return "null"
    if isinstance(value, bool):
        return "a boolean"
    if isinstance(value, (int, float)):
        return "a number"
    if isinstance(value, str):
        return "a text"
    return "an array" if isinstance(value, list) else "an object"


def _utf8_size(text: str, bytes_max: int) -> int:
    if len(text) > bytes_max:
        return len(text)
    return len(text.encode("utf-8", "surrogatepass"))


def _is_envelope(value: dict[str, Any]) -> bool:
    return isinstance(value.get("data"), (str, dict, list)) and not any(
        key in value for key in _JOB_KEYS
    )


def _decode(data: bytes | str, warnings: list[str]) -> Any:
    try:
        return orjson.loads(data)
    except orjson.JSONDecodeError as exc:
        problem = str(exc)
    try:
        text = data.decode("utf-8") if isinstance(data, bytes) else data
    except UnicodeDecodeError as exc:
        raise PayloadError(f"not UTF-8, byte {exc.start}") from exc
    return _decode_leniently(text.removeprefix("\ufeff"), problem, warnings)


def _decode_leniently(text: str, problem: str, warnings: list[str]) -> Any:
    """Read what strict JSON refuses but producers write: NaN, numbers of any length, a byte order
    mark, and the half of a surrogate pair that is left where a script cut a text inside an emoji.

    A number that has no finite value becomes its own text, so that the field it stands in is
    named and the job's id is still known.
    """
    try:
        value = json.loads(text, parse_constant=str, parse_int=_parse_int, parse_float=_parse_float)
        written = json.dumps(value, ensure_ascii=False)
    except (ValueError, RecursionError) as exc:
        raise PayloadError(f"not JSON, {problem}") from exc
    clean = written.encode("utf-16-le", "surrogatepass").decode("utf-16-le", "replace")
    if clean != written:
        warnings.append(SURROGATES)
    try:
        return orjson.loads(clean)
    except orjson.JSONDecodeError as exc:
        raise PayloadError(f"not JSON, {exc}") from exc


def _parse_int(digits: str) -> int | float | str:
    value = int(digits) if len(digits) <= _INT_DIGITS else None
    return _parse_float(digits) if value is None or value not in _INTEGERS else value


def _parse_float(digits: str) -> float | str:
    value = float(digits)
    return value if math.isfinite(value) else digits[:_SHOWN_DIGITS]
