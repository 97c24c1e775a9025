"""Pixels in and out: reference images to tensors, decoded tensors to pixels."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image, ImageOps

from pipelines.base import UnsupportedRequest


class NotFinite(ArithmeticError):
    """The model computed NaN or infinity where pixels were due."""


def load_reference(path: Path, width: int, height: int, field: str) -> torch.Tensor:
    """An image file as float32 of shape (1, 3, height, width) in [-1, 1], upright, RGB, resized.

    Raises ``UnsupportedRequest`` naming ``field`` if it is no image that Pillow can read.
    """
    try:
        with Image.open(path) as image:
            upright = ImageOps.exif_transpose(image).convert("RGB")
    except (OSError, ValueError, Image.DecompressionBombError) as error:
        raise UnsupportedRequest(field, f"{field}: {path.name} cannot be read: {error}") from error
    if upright.size != (width, height):
        upright = upright.resize((width, height), Image.Resampling.LANCZOS)
    values = np.asarray(upright, dtype=np.float32)[None] / 255.0
    # Channels stay innermost in memory, as the library has them: convolutions choose by it.
    return 2.0 * torch.from_numpy(values.transpose(0, 3, 1, 2)) - 1.0


def to_pixels(decoded: torch.Tensor) -> NDArray[np.uint8]:
    """One decoded image of shape (1, 3, height, width), nominally in [-1, 1], as uint8 of shape
    (height, width, 3). Raises ``NotFinite``."""
    if not bool(decoded.isfinite().all()):
        raise NotFinite("the decoded image holds NaN or infinite values")
    values = (decoded[0] * 0.5 + 0.5).clamp(0, 1).permute(1, 2, 0).float().cpu().numpy()
    pixels: NDArray[np.uint8] = (values * 255).round().astype(np.uint8)
    return pixels
