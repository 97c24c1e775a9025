"""Check a stranger's image before anything else opens it.

PNG, JPEG and WEBP are told apart by content. The size in the header is checked before a pixel is
decoded, then everything is decoded once, so that what comes out opens without surprise.
"""

from __future__ import annotations

import io
from pathlib import Path

import numpy as np
from PIL import Image, ImageOps
from PIL.ImageFile import ImageFile
from PIL.JpegImagePlugin import JpegImageFile
from PIL.PngImagePlugin import PngImageFile
from PIL.WebPImagePlugin import WebPImageFile

from ourvidz.adapters.atomic import write_atomically

# A progressive JPEG may hold as many passes over the whole image as fit in its bytes; usual ones
# have about ten. The marker cannot occur within pixel data, and by chance hardly elsewhere.
JPEG_SCANS_MAX = 500

_EXIF_ORIENTATION = 0x0112
_ALLOWED = "PNG, JPEG and WEBP images are allowed"


class NotAnImage(ValueError):
    """The bytes are no acceptable image; the message says why, without the bytes."""


def write_checked_image(content: bytes, path: Path, pixels_max: int) -> None:
    """Check ``content`` and write it to ``path``: an upright, opaque still image.

    RGB and grey images without an EXIF rotation keep their bytes. Others are written as PNG:
    rotated upright, transparency laid over white, 16-bit grey and CMYK turned into 8-bit. Takes up
    to seconds of CPU: call it in a worker thread. Raises ``NotAnImage`` and ``OSError``.
    """
    checked = _check(content, pixels_max)
    write_atomically(path, lambda temporary: temporary.write_bytes(checked))


def _check(content: bytes, pixels_max: int) -> bytes:
    try:
        with _open(content) as image:
            _check_header(image, pixels_max)
            image.load()
            orientation = image.getexif().get(_EXIF_ORIENTATION, 1)
            plain = image.mode in {"RGB", "L"} and not image.has_transparency_data
            if plain and orientation not in range(2, 9):
                return content
            return _as_png(image)
    except NotAnImage:
        raise
    except Exception as error:  # decoders fed with hostile bytes raise anything
        raise NotAnImage(f"the image is broken or truncated ({type(error).__name__})") from error


def _open(content: bytes) -> ImageFile:
    """Read the header. The plugins are called directly: ``Image.open`` would warn of large images
    on stderr, and would follow a JPEG's pointers to further pictures."""
    file = io.BytesIO(content)
    if content.startswith(b"\x89PNG\r\n\x1a\n"):
        return PngImageFile(file)
    if content.startswith(b"\xff\xd8\xff"):
        if content.count(b"\xff\xda") > JPEG_SCANS_MAX:
            raise NotAnImage(f"a JPEG of more than {JPEG_SCANS_MAX} scans is not allowed")
        return JpegImageFile(file)
    if content.startswith(b"RIFF") and content[8:12] == b"WEBP":
        return WebPImageFile(file)
    raise NotAnImage(f"the file is no known image; {_ALLOWED}")


def _check_header(image: ImageFile, pixels_max: int) -> None:
    if image.width * image.height > pixels_max:
        raise NotAnImage(
            f"the image has {image.width}x{image.height} pixels; at most {pixels_max} are allowed"
        )
    if getattr(image, "is_animated", False):
        raise NotAnImage("animated images are not allowed")


def _as_png(image: Image.Image) -> bytes:
    upright = ImageOps.exif_transpose(image)
    if upright.mode.startswith("I;16"):
        upright = Image.fromarray((np.asarray(upright) >> 8).astype(np.uint8))
    if upright.has_transparency_data:
        upright = upright.convert("RGBA")
        white = Image.new("RGB", upright.size, (255, 255, 255))
        white.paste(upright, mask=upright.getchannel("A"))
        upright = white
    file = io.BytesIO()
    Image.fromarray(np.asarray(upright.convert("RGB"))).save(file, format="PNG", compress_level=1)
    return file.getvalue()
