"""How full the spool and its disk are: beyond a limit nothing more is claimed, and nothing dropped.

A limit is soft. What is claimed already goes on; a file that the disk does not take is kept in
memory and written when it does.
"""

from __future__ import annotations

import os
import shutil
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final, TypeVar

import anyio
import anyio.to_thread
import structlog

from ourvidz.config.settings import Spool as SpoolSettings
from ourvidz.ports import DiskRefused
from ourvidz.service.health import DISK_FAILED, DISK_FULL, SPOOL_FULL, Alarms
from ourvidz.service.metrics import Metrics
from ourvidz.service.signal import Signal

log = structlog.get_logger()

# So often it is looked even if nobody asks: others may fill the disk, or make room on it. Longer
# than a file waits for its next attempt.
_LOOK_SECONDS: Final = 2.0
# Not more often than this, however much is written: every file is looked at.
_APART_SECONDS: Final = 0.1
# How long a file waits before a disk that did not take it is tried again.
_FULL_SECONDS: Final = 1.0

T = TypeVar("T")


@dataclass(slots=True)
class Disk:
    """``full`` while no more jobs are to be claimed; ``room`` is notified when that changes."""

    folder: Path
    settings: SpoolSettings
    room: Signal
    alarms: Alarms
    metrics: Metrics
    full: bool = False
    _spool_bytes: int = 0
    _free_bytes: int | None = None
    _refused: str | None = None
    _refused_lately: str | None = None
    _asked: Signal = field(default_factory=Signal)

    async def watch(self) -> None:
        """For ever."""
        while True:
            asked = self._asked.ticket
            await self.measure()
            await anyio.sleep(_APART_SECONDS)
            with anyio.move_on_after(_LOOK_SECONDS) as pause:
                await asked.wait()
            if pause.cancelled_caught:
                # Whoever waits with a file has tried again by now, or does not want it any more.
                self._refused, self._refused_lately = self._refused_lately, None

    async def measure(self) -> None:
        try:
            found = await anyio.to_thread.run_sync(_measured, self.folder)
        except OSError as error:
            log.warning("disk_not_measured", reason=repr(error))  # what was known still holds
        else:
            self._spool_bytes, self._free_bytes = found
            self.metrics.spool_bytes.set(self._spool_bytes)
            self.metrics.disk_free.set(self._free_bytes)
        self._judge()

    def look(self) -> None:
        """Something was written or deleted."""
        self._asked.notify()

    async def keep(self, write: Callable[[], Awaitable[T]], wanted: Callable[[], bool]) -> T:
        """What ``write`` returns. A disk that does not take it is waited for as long as it is
        ``wanted``. Raises ``DiskRefused`` then, and whatever else ``write`` does."""
        while True:
            try:
                written = await write()
            except (DiskRefused, OSError) as error:
                refused = DiskRefused.of(error) if isinstance(error, OSError) else error
                self._refused = self._refused_lately = DISK_FULL if refused.full else DISK_FAILED
                self._judge()
                if not wanted():
                    raise refused from error
                await anyio.sleep(_FULL_SECONDS)
            else:
                self._refused = None
                self.look()
                return written

    def _judge(self) -> None:
        over = self._spool_bytes >= self.settings.bytes_max
        short = self._free_bytes is not None and self._free_bytes < self.settings.free_bytes_min
        self._say(SPOOL_FULL, over)
        self._say(DISK_FULL, short or self._refused == DISK_FULL)
        self._say(DISK_FAILED, self._refused == DISK_FAILED)
        full = over or short or self._refused is not None
        if full is not self.full:
            facts = {"spool_bytes": self._spool_bytes, "free_bytes": self._free_bytes}
            (log.error if full else log.info)("disk_full" if full else "disk_has_room", **facts)
            self.full = full
            self.room.notify()

    def _say(self, alarm: str, rings: bool) -> None:
        (self.alarms.ring if rings else self.alarms.silence)(alarm)


def _measured(folder: Path) -> tuple[int, int]:
    """Bytes of every file below the folder, which may change meanwhile, and bytes that are free."""
    total = 0
    for parent, _, names in os.walk(folder):
        for name in names:
            try:
                total += (Path(parent) / name).lstat().st_size
            except FileNotFoundError:
                continue
    return total, shutil.disk_usage(folder.parent).free
