"""MP4 files: frames, colours, tags, layout, and that the same job gives the same bytes."""

import json
from fractions import Fraction
from pathlib import Path

import av
import numpy as np
import pytest

from ourvidz.adapters.media import FileMeta, write_mp4

META = FileMeta(
    "a w\u00e4ve\nrolling", "blurry\0", {"Steps": 4, "Seed": 7}, {"seed": 7, "frames": 17}
)
COLOURS = [
    (255, 0, 0),
    (0, 255, 0),
    (0, 0, 255),
    (255, 255, 255),
    (0, 0, 0),
    (10, 200, 90),
    (128, 64, 32),
    (200, 180, 20),
]


def moving(frames: int, height: int = 32, width: int = 48) -> np.ndarray:
    """A grey ramp that grows brighter from frame to frame."""
    brightness = 20 + 2 * np.arange(frames)[:, None, None, None]
    ramp = np.arange(width)[None, None, :, None]
    return np.broadcast_to(brightness + ramp, (frames, height, width, 3)).astype(np.uint8)


def rgb_from_bt709(y: float, u: float, v: float) -> np.ndarray:
    """Limited-range BT.709 to RGB by the formula, not by the library under test."""
    luma, blue, red = (y - 16) / 219, (u - 128) / 224, (v - 128) / 224
    r, b = luma + 1.5748 * red, luma + 1.8556 * blue
    return 255 * np.array([r, (luma - 0.2126 * r - 0.0722 * b) / 0.7152, b])


@pytest.mark.parametrize("colour", COLOURS, ids=str)
def test_a_colour_comes_back_when_decoded_as_bt709(
    tmp_path: Path, colour: tuple[int, int, int]
) -> None:
    path = tmp_path / "0.mp4"
    write_mp4(path, np.full((2, 32, 32, 3), colour, np.uint8), 16, META)
    with av.open(str(path)) as container:
        yuv = next(container.decode(video=0)).to_ndarray(format="yuv420p")
    y, u, v = yuv[:32].mean(), yuv[32:40].mean(), yuv[40:].mean()
    assert np.abs(rgb_from_bt709(y, u, v) - colour).max() < 3


def test_bt709_is_tagged_in_the_stream(tmp_path: Path) -> None:
    path = tmp_path / "0.mp4"
    write_mp4(path, moving(2), 16, META)
    with av.open(str(path)) as container:
        codec = container.streams.video[0].codec_context
        frame = next(container.decode(video=0))
        assert codec.pix_fmt == "yuv420p"
        assert (codec.colorspace, codec.color_primaries, codec.color_trc) == (1, 1, 1)
        assert codec.color_range == 1
        assert (frame.colorspace, frame.color_range) == (1, 1)
    assert b"colrnclx\0\x01\0\x01\0\x01\0" in path.read_bytes()


@pytest.mark.parametrize("frames", [1, 2, 17, 81])
def test_every_frame_is_there_at_its_time(tmp_path: Path, frames: int) -> None:
    path = tmp_path / "0.mp4"
    pixels = moving(frames)
    written = write_mp4(path, pixels, 16, META)
    assert written.size_bytes == path.stat().st_size
    with av.open(str(path)) as container:
        stream = container.streams.video[0]
        assert (stream.frames, stream.average_rate) == (frames, 16)
        assert stream.duration * stream.time_base == Fraction(frames, 16)
        decoded = list(container.decode(stream))
    assert [frame.pts * frame.time_base for frame in decoded] == [
        Fraction(i, 16) for i in range(frames)
    ]
    shown = np.stack([frame.to_ndarray(format="rgb24") for frame in decoded])
    assert shown.shape == pixels.shape
    assert np.abs(shown.astype(int) - pixels).mean(axis=(1, 2, 3)).max() < 2


def test_the_tags_hold_what_a_png_holds(tmp_path: Path) -> None:
    path = tmp_path / "0.mp4"
    write_mp4(path, moving(2), 16, META)
    with av.open(str(path)) as container:
        tags = container.metadata
    assert tags["parameters"] == META.parameters_text
    assert "a w\u00e4ve\nrolling\nNegative prompt: blurry\ufffd\nSteps: 4" in tags["parameters"]
    assert json.loads(tags["ourvidz"]) == META.details
    assert tags["comment"] == tags["ourvidz"]
    assert set(tags) == {
        "comment",
        "ourvidz",
        "parameters",
        "major_brand",
        "minor_version",
        "compatible_brands",
    }


def test_the_index_comes_first(tmp_path: Path) -> None:
    path = tmp_path / "0.mp4"
    write_mp4(path, moving(3), 16, META)
    data = path.read_bytes()
    assert 0 < data.index(b"moov") < data.index(b"mdat")


def test_the_same_job_gives_the_same_bytes(tmp_path: Path) -> None:
    first = write_mp4(tmp_path / "a.mp4", moving(17), 16, META)
    assert first == write_mp4(tmp_path / "b.mp4", moving(17), 16, META)
    assert first != write_mp4(tmp_path / "c.mp4", moving(17), 16, FileMeta("other"))


def test_one_thread_encodes_whatever_the_machine_has(tmp_path: Path) -> None:
    path = tmp_path / "0.mp4"
    write_mp4(path, moving(2, 480, 64), 16, META)
    assert b" threads=1 lookahead_threads=1 " in path.read_bytes()


@pytest.mark.parametrize(("height", "width"), [(31, 48), (32, 47), (1, 1)])
def test_odd_sizes_are_refused(tmp_path: Path, height: int, width: int) -> None:
    with pytest.raises(ValueError, match=f"{width}x{height}: width and height must be even"):
        write_mp4(tmp_path / "0.mp4", moving(2, height, width), 16, META)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("fps", [0, -16])
def test_a_frame_rate_must_be_positive(tmp_path: Path, fps: int) -> None:
    with pytest.raises(ValueError, match="fps"):
        write_mp4(tmp_path / "0.mp4", moving(2), fps, META)


def test_an_image_is_no_video(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=r"expected uint8 \(frames, height, width, 3\)"):
        write_mp4(tmp_path / "0.mp4", moving(1)[0], 16, META)
    with pytest.raises(ValueError, match="expected"):
        write_mp4(tmp_path / "0.mp4", moving(1)[:0], 16, META)


def test_frames_in_any_memory_layout(tmp_path: Path) -> None:
    frames = moving(3, 48, 32).transpose(0, 2, 1, 3)[:, ::-1]
    assert not frames.flags.c_contiguous
    turned = write_mp4(tmp_path / "a.mp4", frames, 16, META)
    assert turned == write_mp4(tmp_path / "b.mp4", np.ascontiguousarray(frames), 16, META)
