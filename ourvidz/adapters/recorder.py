"""Recordings of the scheduler's life: JSON lines in numbered files of a folder.

The event loop hands turns over and goes on; a thread of the recorder's own encodes and writes them.
What waits for the disk is bounded, and so are the files. Where the disk is too slow or takes no
more, the recording ends, with a last line that says why wherever there is room for one: after a gap
nothing could be replayed.
"""

from __future__ import annotations

import asyncio
import contextlib
import dataclasses
import hashlib
import itertools
import queue
import secrets
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import Future
from io import FileIO
from pathlib import Path
from typing import Final

import anyio
import structlog

from ourvidz.adapters.atomic import errno_name
from ourvidz.adapters.recording_files import RecordingFiles, open_new, recording_name
from ourvidz.adapters.recording_lines import CLOSED, Beginning, End, Numbered, encode
from ourvidz.config.settings import Recorder
from scheduler.recording import Header, Turn, anonymous

log = structlog.get_logger()

# A turn takes about a kilobyte of memory; a healthy disk never lets a hundred wait.
TURNS_MAX: Final = 10_000
# So many lines at most share a write.
_BATCH_MAX: Final = 256
# What the service's end waits for the last lines.
_CLOSE_SECONDS: Final = 5.0


class FileRecorder:
    """``ports.Recorder``. ``turns_max`` may wait for the disk. ``aclose`` it, begun or not."""

    def __init__(
        self,
        folder: Path,
        settings: Recorder,
        turns_max: int = TURNS_MAX,
        open_file: Callable[[Path], FileIO] = open_new,
    ) -> None:
        self._folder = folder
        self._settings = settings
        self._turns_max = turns_max
        self._open_file = open_file
        # It is written nowhere: whoever knows all users cannot find them in a recording either.
        self._key = secrets.token_bytes(32)
        self._lines: queue.SimpleQueue[Turn | End] = queue.SimpleQueue()
        self._running = False
        self._stopped: Callable[[], None] | None = None
        self._thread: Future[None] = Future()

    def begin(self, header: Header, stopped: Callable[[], None]) -> None:
        self._stopped = stopped
        self._running = True
        self._thread.set_running_or_notify_cancel()  # whoever waits may give up
        loop = asyncio.get_running_loop()

        def tell(reason: str) -> None:
            with contextlib.suppress(RuntimeError):  # the service has ended meanwhile
                loop.call_soon_threadsafe(self._stop, reason)

        # A write that hangs cannot be interrupted, and must not hold the process.
        threading.Thread(
            target=self._main, args=(header, tell), name="recorder", daemon=True
        ).start()

    def turn(self, turn: Turn) -> None:
        if not self._running:
            return
        if self._lines.qsize() < self._turns_max:
            self._lines.put(turn)
        else:
            reason = f"the disk is too slow: {self._turns_max} turns wait for it"
            self._lines.put(End(reason))
            self._stop(reason)

    async def aclose(self) -> None:
        """Write what waits; a disk that hangs is not waited for."""
        if self._stopped is None:
            return
        if self._running:
            self._running = False
            self._lines.put(End(CLOSED))
        with anyio.move_on_after(_CLOSE_SECONDS, shield=True):
            await asyncio.wrap_future(self._thread)

    def _stop(self, reason: str) -> None:
        if self._running:
            self._running = False
            log.error("recording_stopped", reason=reason)
            assert self._stopped is not None, "it has begun"
            self._stopped()

    # What follows is done in the thread that writes.

    def _main(self, header: Header, tell: Callable[[str], None]) -> None:
        files = RecordingFiles(
            self._folder,
            recording_name(header.wall),
            lambda number: encode(Beginning(header, number)),
            self._settings.bytes_max,
            self._settings.files_max,
            self._open_file,
        )
        try:
            files.begin()
            self._write_all(files)
        except Exception as error:  # noqa: BLE001 - whatever it is, only the recording ends
            reason = errno_name(error) if isinstance(error, OSError) else type(error).__name__
            with contextlib.suppress(OSError):
                files.give_up(encode(End(reason)))
            tell(reason)
        finally:
            with contextlib.suppress(OSError):
                files.close()
            self._thread.set_result(None)

    def _write_all(self, files: RecordingFiles) -> None:
        lines: list[Turn | End] = []
        written = itertools.count(0)
        while not (lines and isinstance(lines[-1], End)):
            lines = [self._lines.get()]
            while len(lines) < _BATCH_MAX and not self._lines.empty():
                lines.append(self._lines.get())
            files.write([self._encoded(line, written) for line in lines])

    def _encoded(self, line: Turn | End, written: Iterator[int]) -> bytes:
        if isinstance(line, End):
            return encode(End(line.reason, next(written)))
        turn = self._without_users(line) if self._settings.hash_users else line
        return encode(Numbered(next(written) + 1, turn))

    def _without_users(self, turn: Turn) -> Turn:
        events = tuple(anonymous(event, self._alias) for event in turn.events)
        return dataclasses.replace(turn, events=events)

    def _alias(self, user: str) -> str:
        return hashlib.blake2b(user.encode(), key=self._key, digest_size=8).hexdigest()
