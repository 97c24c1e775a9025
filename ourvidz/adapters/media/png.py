"""PNG with the parameters of its making."""

from __future__ import annotations

import functools
from pathlib import Path

from PIL import Image
from PIL.PngImagePlugin import PngInfo

from ourvidz.adapters.atomic import Written, write_atomically
from ourvidz.adapters.media.metadata import FileMeta
from ourvidz.adapters.media.pixels import Pixels, check_image

COMPRESS_LEVEL = 6  # part of the bytes that a job gives: a change shows in every digest


def write_png(path: Path, pixels: Pixels, meta: FileMeta) -> Written:
    """Write (height, width, 3) RGB with a ``parameters`` and an ``ourvidz`` text chunk.

    ``parameters`` is a tEXt chunk where Latin-1 can hold it, else iTXt; ``ourvidz`` is iTXt.
    Raises ``ValueError`` for another shape and ``OSError``.
    """
    check_image(pixels)
    chunks = PngInfo()
    chunks.add_text("parameters", meta.parameters_text)
    chunks.add_itxt("ourvidz", meta.details_json)
    save = functools.partial(
        Image.fromarray(pixels).save,
        format="PNG",
        pnginfo=chunks,
        compress_level=COMPRESS_LEVEL,
    )
    return write_atomically(path, save)
