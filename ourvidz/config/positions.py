"""Where each key of a TOML text stands; the standard library's parser does not say.

The text must be one that ``tomllib`` accepts: what is skipped here is not checked again.
"""

from __future__ import annotations

import bisect
import re
import tomllib

from ourvidz.config.schema import KeyPath

_BLANK = re.compile(r"(?:[ \t\n]|#[^\n]*)*")
_BARE_KEY = re.compile(r"[A-Za-z0-9_-]+")
# The triple-quoted forms come first: ``""`` is also an empty string. A triple-quoted string may
# end in up to two quotes of its own.
_STRING = re.compile(
    r'"""(?:\\.|[^\\])*?"{3,5}'
    r"|'''.*?'{3,5}"
    r'|"(?:\\.|[^"\\\n])*"'
    r"|'[^'\n]*'",
    re.DOTALL,
)
_SCALAR = re.compile(r"[^,\]}\n#]+")


def positions(text: str) -> dict[KeyPath, int]:
    """The line, counted from 1, of every key, table and list entry; a table's is its header's.

    A table that has no header of its own stands where it is first named.
    """
    return _Scanner(text.replace("\r\n", "\n")).scan()


class _Scanner:
    def __init__(self, text: str) -> None:
        self._text = text
        self._at = 0
        self._ends = [match.start() for match in re.finditer("\n", text)]
        self._lines: dict[KeyPath, int] = {}
        # The index of the latest entry of each array of tables.
        self._latest: dict[KeyPath, int] = {}

    def scan(self) -> dict[KeyPath, int]:
        table: KeyPath = ()
        while self._skip_blank():
            if self._text[self._at] == "[":
                table = self._header()
            else:
                self._pair(table)
        return self._lines

    def _skip_blank(self) -> bool:
        """Move past space, line ends and comments; whether there is anything left."""
        self._match(_BLANK)
        return self._at < len(self._text)

    def _match(self, pattern: re.Pattern[str]) -> str:
        match = pattern.match(self._text, self._at)
        if match is None:
            raise ValueError(f"no TOML at offset {self._at}")
        self._at = match.end()
        return match.group()

    def _line(self) -> int:
        return bisect.bisect_left(self._ends, self._at) + 1

    def _key(self) -> tuple[str, ...]:
        parts = []
        while True:
            self._skip_blank()
            if self._text[self._at] in "\"'":
                parts.append(tomllib.loads(f"key = {self._match(_STRING)}")["key"])
            else:
                parts.append(self._match(_BARE_KEY))
            self._skip_blank()
            if self._text[self._at] != ".":
                return tuple(parts)
            self._at += 1

    def _header(self) -> KeyPath:
        line = self._line()
        brackets = 2 if self._text.startswith("[[", self._at) else 1
        self._at += brackets
        *above, last = self._key()
        self._at += brackets
        path: KeyPath = ()
        for part in above:
            path = (*path, part)
            self._lines.setdefault(path, line)
            if path in self._latest:
                path = (*path, self._latest[path])
        path = (*path, last)
        if brackets == 1:
            self._lines[path] = line
            return path
        self._lines.setdefault(path, line)
        self._latest[path] = self._latest.get(path, -1) + 1
        path = (*path, self._latest[path])
        self._lines[path] = line
        return path

    def _pair(self, table: KeyPath) -> None:
        line = self._line()
        *above, last = self._key()
        self._at += 1
        path = table
        for part in above:
            path = (*path, part)
            self._lines.setdefault(path, line)
        path = (*path, last)
        self._lines[path] = line
        self._value(path)

    def _value(self, path: KeyPath) -> None:
        self._skip_blank()
        opening = self._text[self._at]
        if opening in "\"'":
            self._match(_STRING)
        elif opening == "[":
            self._list(path)
        elif opening == "{":
            self._inline_table(path)
        else:
            self._match(_SCALAR)

    def _list(self, path: KeyPath) -> None:
        self._at += 1
        index = 0
        while self._skip_blank() and self._text[self._at] != "]":
            self._lines[(*path, index)] = self._line()
            self._value((*path, index))
            self._skip_comma()
            index += 1
        self._at += 1

    def _inline_table(self, path: KeyPath) -> None:
        self._at += 1
        while self._skip_blank() and self._text[self._at] != "}":
            self._pair(path)
            self._skip_comma()
        self._at += 1

    def _skip_comma(self) -> None:
        self._skip_blank()
        if self._text[self._at] == ",":
            self._at += 1
