"""Files from what a run yields."""

from __future__ import annotations

from typing import Protocol

from ourvidz.jobs import Asset
from ourvidz.ports.device import ImageProduced, Part, VideoProduced


class RenderFailed(Exception):
    """A file could not be written; ``retryable`` where the disk, not the pixels, is to blame."""

    def __init__(self, message: str, retryable: bool) -> None:
        super().__init__(message)
        self.retryable = retryable


class DiskFull(Exception):
    """The spool's disk has no room; once it has, the same file can be written."""


class Renderer(Protocol):
    """Turns what a run yields into files with their metadata, in the job's spool folder."""

    async def image(self, part: Part, produced: ImageProduced) -> Asset:
        """Write one PNG and its thumbnail. Raises ``RenderFailed``, ``DiskFull``."""

    async def video(self, part: Part, produced: VideoProduced) -> Asset:
        """Write one MP4 and its thumbnail. Raises ``RenderFailed``, ``DiskFull``."""
