"""Pixels come in upright, RGB and resized, and go out as whole numbers or not at all."""

from pathlib import Path

import numpy as np
import pytest
import torch
from diffusers.image_processor import VaeImageProcessor
from PIL import Image

from pipelines.base import UnsupportedRequest
from pipelines.images import NotFinite, load_reference, to_pixels


def picture(width: int, height: int, mode: str = "RGB") -> Image.Image:
    bands = len(mode)
    shape = (height, width, bands) if bands > 1 else (height, width)
    pixels = np.random.default_rng(5).integers(0, 256, shape, dtype=np.uint8)
    return Image.fromarray(pixels, mode=mode) if mode != "RGB" else Image.fromarray(pixels)


def test_a_reference_is_what_the_library_makes_of_it(tmp_path: Path) -> None:
    image = picture(24, 16)
    image.save(tmp_path / "a.png")
    ours = load_reference(tmp_path / "a.png", 24, 16, "image_path")
    theirs = VaeImageProcessor().preprocess(image)
    assert torch.equal(ours, theirs)
    assert ours.stride() == theirs.stride()


def test_a_reference_is_resized_to_what_is_asked(tmp_path: Path) -> None:
    image = picture(50, 70)
    image.save(tmp_path / "a.png")
    ours = load_reference(tmp_path / "a.png", 24, 16, "image_path")
    expected = VaeImageProcessor().preprocess(image.resize((24, 16), Image.Resampling.LANCZOS))
    assert torch.equal(ours, expected)


@pytest.mark.parametrize("mode", ["L", "RGBA", "P", "1", "CMYK", "LA"])
def test_every_mode_becomes_rgb(tmp_path: Path, mode: str) -> None:
    image = picture(24, 16).convert(mode)
    path = tmp_path / ("a.tif" if mode == "CMYK" else "a.png")
    image.save(path)
    ours = load_reference(path, 24, 16, "image_path")
    assert torch.equal(ours, VaeImageProcessor().preprocess(image.convert("RGB")))


def test_a_turned_photograph_is_set_upright(tmp_path: Path) -> None:
    image = picture(24, 16)
    exif = Image.Exif()
    exif[0x0112] = 6  # to be turned by 90 degrees clockwise
    image.save(tmp_path / "a.png", exif=exif)
    ours = load_reference(tmp_path / "a.png", 16, 24, "image_path")
    turned = image.transpose(Image.Transpose.ROTATE_270)
    assert torch.equal(ours, VaeImageProcessor().preprocess(turned))


def test_what_cannot_be_read_is_refused_by_field(tmp_path: Path) -> None:
    (tmp_path / "text.png").write_text("no image")
    picture(64, 64).save(tmp_path / "cut.png")
    data = (tmp_path / "cut.png").read_bytes()
    (tmp_path / "cut.png").write_bytes(data[: len(data) // 2])
    for name in ("text.png", "cut.png", "absent.png", "."):
        with pytest.raises(UnsupportedRequest, match=r"^start_path: ") as caught:
            load_reference(tmp_path / name, 16, 16, "start_path")
        assert caught.value.field == "start_path"


def test_a_bomb_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    picture(64, 64).save(tmp_path / "large.png")
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 1000)
    with pytest.raises(UnsupportedRequest, match="decompression bomb"):
        load_reference(tmp_path / "large.png", 16, 16, "image_path")


def test_pixels_are_the_librarys() -> None:
    decoded = torch.randn(1, 3, 16, 24, generator=torch.Generator().manual_seed(1)) * 1.5
    (theirs,) = VaeImageProcessor().postprocess(decoded, output_type="pil")
    ours = to_pixels(decoded)
    assert ours.shape == (16, 24, 3)
    assert ours.dtype == np.uint8
    assert np.array_equal(ours, np.asarray(theirs))


@pytest.mark.parametrize("value", [float("nan"), float("inf"), float("-inf")])
def test_pixels_that_are_no_numbers_are_refused(value: float) -> None:
    decoded = torch.zeros(1, 3, 8, 8)
    decoded[0, 1, 2, 3] = value
    with pytest.raises(NotFinite):
        to_pixels(decoded)
