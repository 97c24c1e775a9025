"""Reading a recording: its files in order, line by line, also while it is being written."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from itertools import pairwise
from pathlib import Path
from typing import Final

from ourvidz.adapters.recording_files import Place, place_of
from ourvidz.adapters.recording_lines import (
    CLOSED,
    Beginning,
    End,
    Numbered,
    RecordingUnusable,
    decode,
)
from scheduler.recording import Header, Turn

# A turn of the largest demands takes a hundredth of it. A line beyond it is cut, and no JSON.
_LINE_BYTES_MAX: Final = 16 * 1024 * 1024
_NO_END = "it has no last line: the service was killed, or goes on"
_TORN = "its last line is cut off: the service was killed, or is writing it"


class RecordingReader:
    """One recording as it lies there now: the newest of a folder, or all of the one that a file
    belongs to; a file by another name is one by itself. Raises ``RecordingUnusable``."""

    def __init__(self, path: Path) -> None:
        self._files = _files(path)
        line, where = next(_lines(self._files[0]), (b"", f"{self._files[0]}: line 1"))
        first = decode(line, where)
        if not isinstance(first, Beginning):
            raise RecordingUnusable(f"{where} is no recording's header")
        self._header = first.header
        self._first = first.file
        self._ending = _NO_END

    @property
    def header(self) -> Header:
        return self._header

    @property
    def first(self) -> tuple[Path, int]:
        """Its first file that is still there, and the number of that."""
        return self._files[0], self._first

    @property
    def ending(self) -> str:
        """In words how it ends, once all turns have been read."""
        return self._ending

    def turns(self) -> Iterator[Turn]:
        """A last line that cannot be read was being written when the process was killed, or is
        now; anywhere else it is damage, and raises ``RecordingUnusable``. So does a turn that is
        missing, or there twice."""
        done = 0 if self._first == 1 else None
        for line, where, last in self._all_lines():
            try:
                parsed = decode(line, where)
            except RecordingUnusable:
                if not last:
                    raise
                self._ending = _TORN
                return
            if isinstance(parsed, Numbered):
                if done is not None and parsed.number != done + 1:
                    raise RecordingUnusable(f"{where} is turn {parsed.number}, not turn {done + 1}")
                done = parsed.number
                yield parsed.turn
            elif isinstance(parsed, End):
                if done is not None and parsed.turns not in (None, done):
                    raise RecordingUnusable(f"{where} ends after {parsed.turns} turns, not {done}")
                closed = parsed.reason == CLOSED
                self._ending = "the service ended" if closed else f"it ends: {parsed.reason}"

    def _all_lines(self) -> Iterator[tuple[bytes, str, bool]]:
        """Each line, where it stands and whether it is the last."""
        held: tuple[bytes, str] | None = None
        for path in self._files:
            for line in _lines(path):
                if held is not None:
                    yield *held, False
                held = line
        if held is not None:
            yield *held, True


def _files(path: Path) -> Sequence[Path]:
    if path.is_dir():
        found = _recordings(path)
        if not found:
            raise RecordingUnusable(f"{path} holds no recording")
        wanted = max(found).recording
    else:
        place = place_of(path.name)
        if place is None or not path.exists():
            return [path]
        found, wanted = _recordings(path.parent), place.recording
    files = [(place.number, found[place]) for place in sorted(found) if place.recording == wanted]
    for (number, before), (following, _) in pairwise(files):
        if following != number + 1:
            raise RecordingUnusable(f"{before}: the file after it is missing")
    return [file for _, file in files]


def _recordings(folder: Path) -> dict[Place, Path]:
    try:
        found = [(place_of(path.name), path) for path in folder.iterdir()]
    except OSError as error:
        raise RecordingUnusable(f"{folder} cannot be read: {error.strerror}") from error
    return {place: path for place, path in found if place is not None}


def _lines(path: Path) -> Iterator[tuple[bytes, str]]:
    try:
        with path.open("rb") as file:
            number = 0
            while line := file.readline(_LINE_BYTES_MAX):
                number += 1
                yield line, f"{path}: line {number}"
    except OSError as error:
        raise RecordingUnusable(f"{path} cannot be read: {error.strerror}") from error
