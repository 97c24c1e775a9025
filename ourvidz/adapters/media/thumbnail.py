"""Thumbnails: WEBP, at most 256 pixels at the longest edge."""

from __future__ import annotations

import functools
from pathlib import Path

from PIL import Image

from ourvidz.adapters.atomic import Written, write_atomically
from ourvidz.adapters.media.pixels import Pixels, check_image, check_video

EDGE_PIXELS = 256
QUALITY = 85


def write_thumbnail(path: Path, pixels: Pixels) -> Written:
    """Write an image's (height, width, 3) thumbnail, or that of a video's middle frame.

    A small image keeps its size. Raises ``ValueError`` for another shape and ``OSError``.
    """
    if pixels.ndim == 4:
        check_video(pixels)
        pixels = pixels[len(pixels) // 2]
    check_image(pixels)
    image = Image.fromarray(pixels)
    image.thumbnail((EDGE_PIXELS, EDGE_PIXELS), Image.Resampling.LANCZOS)
    save = functools.partial(image.save, format="WEBP", quality=QUALITY)
    return write_atomically(path, save)
