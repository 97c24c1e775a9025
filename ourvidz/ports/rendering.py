"""Files from what a run yields."""

from __future__ import annotations

import errno
from typing import Protocol

from ourvidz.jobs import Asset
from ourvidz.ports.device import ImageProduced, Part, VideoProduced


class RenderFailed(Exception):
    """No file can be made of these pixels, now or later."""


class DiskRefused(Exception):
    """The spool's disk does not take a file, as it is ``full``, read-only or failing: once that is
    put right, the same file can be written."""

    def __init__(self, message: str, *, full: bool) -> None:
        super().__init__(message)
        self.full = full

    @classmethod
    def of(cls, error: OSError) -> DiskRefused:
        """Without the paths that the system's message names."""
        name = errno.errorcode.get(error.errno or 0, type(error).__name__)
        return cls(f"spool: {name}", full=error.errno in (errno.ENOSPC, errno.EDQUOT))


class Renderer(Protocol):
    """Turns what a run yields into files with their metadata, in the job's spool folder."""

    async def image(self, part: Part, produced: ImageProduced) -> Asset:
        """Write one PNG and its thumbnail. Raises ``RenderFailed``, ``DiskRefused``."""

    async def video(self, part: Part, produced: VideoProduced) -> Asset:
        """Write one MP4 and its thumbnail. Raises ``RenderFailed``, ``DiskRefused``."""
