"""What a stranger's image must be, and in what form it is kept."""

import io
import re
import struct
import warnings
import zlib
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from PIL import Image, ImageFile
from PIL.WebPImagePlugin import WebPImageFile

from ourvidz.adapters.reference_image import NotAnImage, write_checked_image

PIXELS_MAX = 33_554_432
SIZE = (20, 12)


def chunk(kind: bytes, body: bytes) -> bytes:
    return struct.pack(">I", len(body)) + kind + body + struct.pack(">I", zlib.crc32(kind + body))


def png(width: int, height: int, *extra: bytes) -> bytes:
    """A black 8-bit grey PNG; its pixels cost no memory here either."""
    packer = zlib.compressobj(1)
    rows = [packer.compress(b"\0" * (width + 1)) for _ in range(height)]
    header = struct.pack(">IIBBBBB", width, height, 8, 0, 0, 0, 0)
    parts = [chunk(b"IHDR", header), *extra, chunk(b"IDAT", b"".join(rows) + packer.flush())]
    return b"\x89PNG\r\n\x1a\n" + b"".join(parts) + chunk(b"IEND", b"")


def image(mode: str = "RGB", size: tuple[int, int] = SIZE) -> Image.Image:
    """A gradient, so that rotation shows."""
    grey = np.linspace(0, 255, size[0] * size[1]).astype(np.uint8).reshape(size[::-1])
    return Image.fromarray(grey).convert(mode)


def saved(picture: Image.Image, kind: str, **options: object) -> bytes:
    file = io.BytesIO()
    picture.save(file, kind, **options)
    return file.getvalue()


def check(tmp_path: Path, content: bytes, pixels_max: int = PIXELS_MAX) -> Path:
    path = tmp_path / "reference"
    write_checked_image(content, path, pixels_max)
    return path


def refused(tmp_path: Path, content: bytes, reason: str) -> None:
    with pytest.raises(NotAnImage, match=reason):
        check(tmp_path, content)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("kind", ["PNG", "JPEG", "WEBP"])
def test_plain_images_keep_their_bytes(tmp_path: Path, kind: str) -> None:
    content = saved(image(), kind)
    path = check(tmp_path, content)
    assert path.read_bytes() == content
    assert list(tmp_path.iterdir()) == [path]


def test_grey_keeps_its_bytes(tmp_path: Path) -> None:
    content = saved(image("L"), "PNG")
    assert check(tmp_path, content).read_bytes() == content


def test_progressive_jpegs_are_fine(tmp_path: Path) -> None:
    content = saved(image(), "JPEG", progressive=True)
    assert check(tmp_path, content).read_bytes() == content


@pytest.mark.parametrize("orientation", range(1, 9))
@pytest.mark.parametrize("kind", ["JPEG", "PNG", "WEBP"])
def test_exif_rotation_is_applied(tmp_path: Path, kind: str, orientation: int) -> None:
    turns: dict[int, Callable[[np.ndarray], np.ndarray]] = {
        1: lambda a: a,
        2: lambda a: a[:, ::-1],
        3: lambda a: a[::-1, ::-1],
        4: lambda a: a[::-1],
        5: lambda a: a.swapaxes(0, 1),
        6: lambda a: np.rot90(a, -1),
        7: lambda a: a[::-1, ::-1].swapaxes(0, 1),
        8: np.rot90,
    }
    exif = Image.Exif()
    exif[0x0112] = orientation
    content = saved(image(), kind, exif=exif, **({"quality": 95} if kind == "JPEG" else {}))
    with Image.open(io.BytesIO(content)) as stored:
        expected = turns[orientation](np.asarray(stored.convert("RGB")))
    with Image.open(check(tmp_path, content)) as upright:
        assert upright.getexif().get(0x0112, 1) == 1
        assert np.array_equal(np.asarray(upright), expected)


@pytest.mark.parametrize("orientation", [0, 9, 65535])
def test_a_rotation_that_says_nothing_is_ignored(tmp_path: Path, orientation: int) -> None:
    exif = Image.Exif()
    exif[0x0112] = orientation
    content = saved(image(), "JPEG", exif=exif)
    assert check(tmp_path, content).read_bytes() == content


def test_transparency_lies_on_white(tmp_path: Path) -> None:
    picture = Image.new("RGBA", (4, 4), (255, 0, 0, 0))
    picture.putpixel((0, 0), (0, 0, 255, 255))
    with Image.open(check(tmp_path, saved(picture, "PNG"))) as kept:
        assert kept.mode == "RGB"
        assert kept.getpixel((0, 0)) == (0, 0, 255)
        assert kept.getpixel((3, 3)) == (255, 255, 255)


def test_a_transparent_colour_lies_on_white(tmp_path: Path) -> None:
    with Image.open(check(tmp_path, png(4, 4, chunk(b"tRNS", b"\0\0")))) as kept:
        assert kept.getpixel((0, 0)) == (255, 255, 255)


@pytest.mark.parametrize("mode", ["1", "P", "LA", "CMYK"])
def test_other_modes_become_rgb(tmp_path: Path, mode: str) -> None:
    content = saved(image(mode), "JPEG" if mode == "CMYK" else "PNG")
    with Image.open(check(tmp_path, content)) as kept:
        assert (kept.mode, kept.size) == ("RGB", SIZE)


def test_16_bit_grey_is_scaled_not_clipped(tmp_path: Path) -> None:
    deep = np.linspace(0, 65535, 240).astype(np.uint16).reshape(12, 20)
    content = saved(Image.fromarray(deep), "PNG")
    with Image.open(check(tmp_path, content)) as kept:
        assert np.array_equal(np.asarray(kept)[..., 0], deep >> 8)


@pytest.mark.parametrize("kind", ["GIF", "BMP", "TIFF", "PPM", "ICO", "PDF", "EPS", "JPEG2000"])
def test_other_formats_are_refused(tmp_path: Path, kind: str) -> None:
    refused(tmp_path, saved(image(), kind), "PNG, JPEG and WEBP")


@pytest.mark.parametrize(
    "content",
    [b"", b"\0", b"<svg/>", b"<html>Not found</html>", b"RIFF\0\0\0\0WAVE", b"\x89PNG", b"{}"],
)
def test_what_is_no_image_is_refused(tmp_path: Path, content: bytes) -> None:
    refused(tmp_path, content, "no known image")


@pytest.mark.parametrize("kind", ["PNG", "JPEG", "WEBP"])
@pytest.mark.parametrize("share", [0.1, 0.5, 0.9])
def test_truncated_images_are_refused(tmp_path: Path, kind: str, share: float) -> None:
    noise = np.random.default_rng(5).integers(0, 256, (64, 64, 3), dtype=np.uint8)
    content = saved(Image.fromarray(noise), kind)
    refused(tmp_path, content[: int(len(content) * share)], "broken or truncated")


def test_a_wrong_checksum_is_refused(tmp_path: Path) -> None:
    content = bytearray(saved(image(), "PNG"))
    content[content.index(b"IDAT") + 6] ^= 0xFF
    refused(tmp_path, bytes(content), "broken or truncated")


@pytest.mark.parametrize("kind", ["PNG", "JPEG", "WEBP"])
def test_no_damage_escapes_as_another_error(tmp_path: Path, kind: str) -> None:
    rng = np.random.default_rng(11)
    good = saved(image(), kind)
    for _ in range(200):
        content = bytearray(good)
        for at in rng.integers(4, len(content), 6):
            content[at] = rng.integers(0, 256)
        try:
            check(tmp_path, bytes(content), 10_000)
        except NotAnImage:
            continue
        with Image.open(tmp_path / "reference") as kept:
            assert kept.width * kept.height <= 10_000


def test_leniency_towards_truncation_stays_off() -> None:
    assert ImageFile.LOAD_TRUNCATED_IMAGES is False


@pytest.fixture
def no_decoding(monkeypatch: pytest.MonkeyPatch) -> None:
    """Fail where a pixel would be decoded."""

    def load(_self: object) -> None:
        pytest.fail("pixels were decoded")

    for plugin in (ImageFile.ImageFile, WebPImageFile):
        monkeypatch.setattr(plugin, "load", load)


@pytest.mark.usefixtures("no_decoding")
def test_a_bomb_is_not_decoded_and_causes_no_warning(tmp_path: Path) -> None:
    content = png(13_000, 13_000)
    assert len(content) < 1024 * 1024
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        refused(tmp_path, content, f"13000x13000 pixels; at most {PIXELS_MAX} are allowed")


@pytest.mark.usefixtures("no_decoding")
def test_a_large_webp_is_not_decoded(tmp_path: Path) -> None:
    content = saved(Image.new("RGB", (2_000, 2_000)), "WEBP")
    with pytest.raises(NotAnImage, match="2000x2000 pixels"):
        check(tmp_path, content, 3_999_999)


@pytest.mark.usefixtures("no_decoding")
def test_a_webp_whose_header_lies_is_refused(tmp_path: Path) -> None:
    body = saved(image(), "WEBP")[12:]
    canvas = struct.pack("<I", 16_383)[:3] * 2
    parts = b"WEBP" + b"VP8X" + struct.pack("<I", 10) + b"\0\0\0\0" + canvas + body
    refused(tmp_path, b"RIFF" + struct.pack("<I", len(parts)) + parts, "broken or truncated")


def test_the_largest_size_in_a_header_is_refused(tmp_path: Path) -> None:
    content = bytearray(png(1, 1))
    content[16:24] = struct.pack(">II", 2**31 - 1, 2**31 - 1)
    content[29:33] = struct.pack(">I", zlib.crc32(bytes(content[12:29])))
    refused(tmp_path, bytes(content), "2147483647x2147483647 pixels")


def test_the_limit_itself_is_allowed(tmp_path: Path) -> None:
    content = png(10, 10)
    assert check(tmp_path, content, 100).read_bytes() == content
    with pytest.raises(NotAnImage, match="10x10 pixels; at most 99"):
        check(tmp_path, content, 99)


@pytest.mark.parametrize(
    ("kind", "prefix"), [(b"zTXt", b"k\0\0"), (b"iCCP", b"k\0\0"), (b"iTXt", b"k\0\1\0\0\0")]
)
def test_a_bomb_in_a_text_chunk_is_refused(tmp_path: Path, kind: bytes, prefix: bytes) -> None:
    packer = zlib.compressobj(9)
    packed = b"".join(packer.compress(b"a" * 1_000_000) for _ in range(5)) + packer.flush()
    refused(tmp_path, png(8, 8, chunk(kind, prefix + packed)), "broken or truncated")


def test_a_jpeg_of_endless_scans_is_refused(tmp_path: Path) -> None:
    content = saved(image("L"), "JPEG", progressive=True)
    marker = b"\xff\xda"
    last = content.rindex(marker)
    refused(tmp_path, content[:last] + content[last:-2] * 600 + b"\xff\xd9", "scans")


@pytest.mark.parametrize("kind", ["PNG", "WEBP"])
def test_animations_are_refused(tmp_path: Path, kind: str) -> None:
    frames = [image(), image().transpose(Image.Transpose.ROTATE_180)]
    content = saved(frames[0], kind, save_all=True, append_images=frames[1:], duration=100)
    refused(tmp_path, content, "animated")


def test_a_phones_picture_of_several_parts_is_its_first(tmp_path: Path) -> None:
    second = Image.new("RGB", (5, 5))
    content = saved(image(), "MPO", save_all=True, append_images=[second])
    path = check(tmp_path, content)
    with Image.open(path) as kept:
        assert kept.size == SIZE


def test_messages_do_not_repeat_the_content(tmp_path: Path) -> None:
    with pytest.raises(NotAnImage) as caught:
        check(tmp_path, b"top secret answer of some other server")
    assert not re.search("secret", str(caught.value))
