"""Reading one TOML file with the line of every key, or with the problem that prevents it."""

from __future__ import annotations

import math
import re
import tomllib
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ourvidz.config.positions import positions
from ourvidz.config.schema import KeyPath
from ourvidz.errors import Problem

# Far above any real configuration; a device file or a log given by mistake stops here.
_BYTES_MAX = 1 << 20
_DEPTH_MAX = 32
_AT_LINE = re.compile(r" \(at line (\d+), column \d+\)$")
_AT_END = " (at end of document)"


class Unreadable(Exception):
    """The file as a whole cannot be used."""

    def __init__(self, problem: Problem) -> None:
        super().__init__(str(problem))
        self.problem = problem


@dataclass(frozen=True, slots=True)
class TomlFile:
    """What a file holds and where; integers that no key could allow appear as infinite."""

    path: Path
    data: dict[str, Any]
    lines: dict[KeyPath, int]

    def line(self, path: KeyPath) -> int | None:
        """The line of the key, or of the nearest table round it that the file names."""
        for end in range(len(path), 0, -1):
            if path[:end] in self.lines:
                return self.lines[path[:end]]
        return None


def read_toml(path: Path) -> TomlFile:
    """Raises ``Unreadable``."""

    def unreadable(message: str, line: int | None = None) -> Unreadable:
        return Unreadable(Problem(str(path), line, "", None, message))

    try:
        with path.open("rb") as file:
            raw = file.read(_BYTES_MAX + 1)
    except (OSError, ValueError) as error:
        reason = getattr(error, "strerror", None) or error
        raise unreadable(f"cannot be read: {reason}") from error
    if len(raw) > _BYTES_MAX:
        raise unreadable(f"must be at most {_BYTES_MAX} bytes; this is no configuration")
    try:
        text = raw.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        bad_line = raw.count(b"\n", 0, error.start) + 1
        raise unreadable("must be UTF-8 text", bad_line) from error
    try:
        data = _bounded(tomllib.loads(text), 0)
        return TomlFile(path, data, positions(text))
    except RecursionError:
        raise unreadable(f"must not nest deeper than {_DEPTH_MAX} levels") from None
    except ValueError as error:
        message, line = _explained(str(error), text)
        raise unreadable(f"is no valid TOML: {message}", line) from error


def _explained(message: str, text: str) -> tuple[str, int | None]:
    """The parser's message without its position, and the position's line."""
    if at := _AT_LINE.search(message):
        return message[: at.start()], int(at.group(1))
    if message.endswith(_AT_END):
        return message.removesuffix(_AT_END), text.rstrip("\n").count("\n") + 1
    return message, None


def _bounded(value: Any, depth: int) -> Any:
    if depth > _DEPTH_MAX:
        raise RecursionError
    if isinstance(value, dict):
        return {key: _bounded(item, depth + 1) for key, item in value.items()}
    if isinstance(value, list):
        return [_bounded(item, depth + 1) for item in value]
    if isinstance(value, int) and value.bit_length() > 64:
        return math.inf
    return value
