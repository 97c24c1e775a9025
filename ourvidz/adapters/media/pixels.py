"""The pixel arrays that the writers take."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

Pixels = NDArray[np.uint8]


def check_image(pixels: Pixels) -> None:
    """Raise ``ValueError`` unless ``pixels`` is uint8 of shape (height, width, 3)."""
    _check(pixels, 3, "(height, width, 3)")


def check_video(frames: Pixels) -> None:
    """Raise ``ValueError`` unless ``frames`` is uint8 of shape (frames, height, width, 3)."""
    _check(frames, 4, "(frames, height, width, 3)")


def _check(array: Pixels, dimensions: int, shape: str) -> None:
    right = array.ndim == dimensions and array.shape[-1] == 3 and array.size > 0
    if array.dtype != np.uint8 or not right:
        raise ValueError(f"pixels are {array.dtype} {array.shape}; expected uint8 {shape}")
