"""The files of a recording as they are written: ``<begun>-<random>-<number>.jsonl`` in one folder.

They are whole lines at any moment but that of a write. None is kept in buffers here, so that a
process that is killed loses nothing it wrote; what a power cut takes, only the recording misses.
"""

from __future__ import annotations

import os
import re
import secrets
from collections.abc import Callable, Sequence
from datetime import UTC, datetime
from io import FileIO
from pathlib import Path
from typing import Final, NamedTuple

_NAME: Final = re.compile(
    r"(?P<recording>\d{8}T\d{6}\.\d{3}Z-[0-9a-f]{4})-(?P<number>\d{6,})\.jsonl", re.ASCII
)
# How far back room is made for a last line.
_TAIL_BYTES: Final = 65_536


class Place(NamedTuple):
    """Where a file belongs: later recordings and later files of one sort behind."""

    recording: str
    number: int


def place_of(name: str) -> Place | None:
    """``None`` for a file of another kind."""
    match = _NAME.fullmatch(name)
    return match and Place(match["recording"], int(match["number"]))


def file_name(place: Place) -> str:
    return f"{place.recording}-{place.number:06}.jsonl"


def recording_name(wall: float) -> str:
    """A name for the recording that begins now (Unix seconds); those of several sort by time."""
    milliseconds = f"{datetime.fromtimestamp(wall, UTC):%Y%m%dT%H%M%S.%f}"[:-3]
    return f"{milliseconds}Z-{secrets.token_hex(2)}"


def open_new(path: Path) -> FileIO:
    """Open a file that does not exist yet, for the service's user alone."""
    return FileIO(path, "x+", opener=lambda name, flags: os.open(name, flags, 0o600))


class RecordingFiles:
    """Writes lines to one file after the other; a file that would grow beyond ``bytes_max`` is
    followed by the next, and of all recordings' files the newest ``files_max`` stay. Only a line
    that is longer than that by itself makes a larger file.

    ``first_line`` is what a file begins with, by its number. Every method raises ``OSError``.
    """

    def __init__(
        self,
        folder: Path,
        recording: str,
        first_line: Callable[[int], bytes],
        bytes_max: int,
        files_max: int,
        open_file: Callable[[Path], FileIO] = open_new,
    ) -> None:
        self._folder = folder
        self._recording = recording
        self._first_line = first_line
        self._bytes_max = bytes_max
        self._files_max = files_max
        self._open_file = open_file
        self._file: FileIO | None = None
        self._number = 0
        self._size = 0

    def begin(self) -> None:
        """Make the folder and the first file."""
        self._folder.mkdir(parents=True, exist_ok=True)
        self._next_file()

    def write(self, lines: Sequence[bytes]) -> None:
        chunk = bytearray()
        for line in lines:
            if self._size + len(chunk) + len(line) > self._bytes_max:
                self._append(chunk)
                chunk.clear()
                self._next_file()
            chunk += line
        self._append(chunk)

    def close(self) -> None:
        if self._file is not None:
            self._file.close()

    def give_up(self, line: bytes) -> None:
        """After a write that failed: leave whole lines, and ``line`` as the last of them, in the
        place of others if the disk gives no more room."""
        if self._file is None:
            return
        self._cut(self._size)
        try:
            self._append(line)
        except OSError:
            self._cut(self._boundary(len(line)))
            self._append(line)

    def _append(self, data: bytes | bytearray) -> None:
        """Whole lines. If it fails those that were written count."""
        assert self._file is not None, "begin comes first"
        written = 0
        try:
            while written < len(data):
                written += self._file.write(data[written:]) or 0
        finally:
            self._size += data.rfind(b"\n", 0, written) + 1

    def _cut(self, size: int) -> None:
        assert self._file is not None, "there is something to cut"
        self._file.truncate(size)
        self._file.seek(size)
        self._size = size

    def _boundary(self, room: int) -> int:
        """The end of the last line behind which there are ``room`` bytes, or of the file's last one
        if none is near."""
        assert self._file is not None, "there is a file"
        start = max(0, self._size - _TAIL_BYTES)
        self._cut(self._size)  # the write that failed may have left its beginning
        self._file.seek(start)
        tail = self._file.read(self._size - start)
        found = tail.rfind(b"\n", 0, max(0, len(tail) - room))
        return self._size if found < 0 else start + found + 1

    def _next_file(self) -> None:
        path = self._folder / file_name(Place(self._recording, self._number + 1))
        file = self._open_file(path)  # if it fails, the file before gets the last line
        self.close()
        self._file, self._size = file, 0
        self._number += 1
        self._prune(path)
        self._append(self._first_line(self._number))

    def _prune(self, current: Path) -> None:
        found = [(place_of(p.name), p) for p in self._folder.iterdir() if p != current]
        others = sorted((place, path) for place, path in found if place is not None)
        for _, path in others[: max(0, len(others) - self._files_max + 1)]:
            path.unlink(missing_ok=True)
