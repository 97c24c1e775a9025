"""Rendered pixels to files: deterministic bytes, metadata inside, written atomically."""

from ourvidz.adapters.media.metadata import FileMeta, library_versions
from ourvidz.adapters.media.mp4 import write_mp4
from ourvidz.adapters.media.png import write_png
from ourvidz.adapters.media.thumbnail import write_thumbnail

__all__ = ["FileMeta", "library_versions", "write_mp4", "write_png", "write_thumbnail"]
