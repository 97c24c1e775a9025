"""Thumbnails: WEBP, bounded, never enlarged, of a video the middle frame."""

from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from ourvidz.adapters.media import write_thumbnail


@pytest.mark.parametrize(
    ("size", "expected"),
    [
        ((1024, 1024), (256, 256)),
        ((480, 832), (148, 256)),
        ((832, 480), (256, 148)),
        ((257, 10), (256, 10)),
        ((256, 256), (256, 256)),
        ((64, 32), (64, 32)),
        ((2048, 1), (256, 1)),
        ((1, 1), (1, 1)),
    ],
)
def test_sizes(tmp_path: Path, size: tuple[int, int], expected: tuple[int, int]) -> None:
    width, height = size
    written = write_thumbnail(tmp_path / "0.webp", np.full((height, width, 3), 99, np.uint8))
    assert written.size_bytes == (tmp_path / "0.webp").stat().st_size
    with Image.open(tmp_path / "0.webp") as image:
        assert (image.format, image.size) == ("WEBP", expected)


@pytest.mark.parametrize(("frames", "middle"), [(1, 0), (2, 1), (17, 8)])
def test_a_video_shows_its_middle_frame(tmp_path: Path, frames: int, middle: int) -> None:
    video = np.zeros((frames, 32, 32, 3), np.uint8)
    video[middle] = 200
    write_thumbnail(tmp_path / "0.webp", video)
    with Image.open(tmp_path / "0.webp") as image:
        assert np.asarray(image.convert("RGB")).min() > 190


def test_the_same_pixels_give_the_same_bytes(tmp_path: Path) -> None:
    pixels = np.random.default_rng(1).integers(0, 256, (300, 200, 3), dtype=np.uint8)
    first = write_thumbnail(tmp_path / "a.webp", pixels)
    assert first == write_thumbnail(tmp_path / "b.webp", pixels)


def test_other_arrays_are_refused(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="expected uint8"):
        write_thumbnail(tmp_path / "0.webp", np.zeros((4, 4), np.uint8))
    with pytest.raises(ValueError, match="expected uint8"):
        write_thumbnail(tmp_path / "0.webp", np.zeros((0, 4, 4, 3), np.uint8))
