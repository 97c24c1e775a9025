"""MP4: H.264 in BT.709, faststart, with the parameters of its making."""

from __future__ import annotations

from fractions import Fraction
from pathlib import Path

import av
from av.video.reformatter import ColorPrimaries, ColorRange, Colorspace, ColorTrc, Interpolation
from av.video.stream import VideoStream

from ourvidz.adapters.atomic import Written, write_atomically
from ourvidz.adapters.media.metadata import FileMeta
from ourvidz.adapters.media.pixels import Pixels, check_video

# No B-frames: in their analysis x264 reads memory that it never wrote (valgrind shows it), and once
# in thousands of files the same frames gave other bytes. It costs two per cent of a file.
CODEC_OPTIONS = {"crf": "18", "preset": "medium", "bf": "0"}
_MATRIX_BT709 = 1  # the matrix_coefficients of H.264 annex E, which Colorspace does not number
# Without these swscale's result depends on the processor it runs on.
_EXACT = Interpolation.BICUBIC | Interpolation.ACCURATE_RND | Interpolation.BITEXACT


def write_mp4(path: Path, frames: Pixels, fps: int | Fraction, meta: FileMeta) -> Written:
    """Write (frames, height, width, 3) RGB as yuv420p, limited range.

    The container's tags ``parameters`` and ``ourvidz`` are those of a PNG; ``comment`` repeats the
    JSON for readers that know the usual tags only. Raises ``ValueError`` for another shape, an odd
    width or height or a frame rate that is not positive, and ``OSError``.
    """
    check_video(frames)
    _, height, width, _ = frames.shape
    if height % 2 or width % 2:
        raise ValueError(f"video of {width}x{height}: width and height must be even")
    if fps <= 0:
        raise ValueError(f"fps is {fps}; it must be positive")
    tags = {
        "comment": meta.details_json,
        "ourvidz": meta.details_json,
        "parameters": meta.parameters_text,
    }
    return write_atomically(path, lambda file: _mux(file, frames, Fraction(fps), tags))


def _mux(file: Path, frames: Pixels, fps: Fraction, tags: dict[str, str]) -> None:
    options = {"movflags": "+faststart+use_metadata_tags", "fflags": "+bitexact"}
    with av.open(str(file), "w", format="mp4", container_options=options) as container:
        container.metadata.update(tags)
        stream = container.add_stream("libx264", rate=fps, options=CODEC_OPTIONS)
        _configure(stream, frames.shape[2], frames.shape[1], fps)
        for index, pixels in enumerate(frames):
            frame = _convert(av.VideoFrame.from_ndarray(pixels, format="rgb24"))
            frame.pts = index
            frame.time_base = 1 / fps
            container.mux(stream.encode(frame))
        container.mux(stream.encode(None))


def _configure(stream: VideoStream, width: int, height: int, fps: Fraction) -> None:
    stream.width, stream.height, stream.pix_fmt = width, height, "yuv420p"
    codec = stream.codec_context
    codec.time_base = 1 / fps
    codec.thread_count = 1  # the number of threads changes the bytes
    codec.flags |= av.codec.context.Flags.bitexact
    codec.colorspace = _MATRIX_BT709
    codec.color_primaries = ColorPrimaries.BT709
    codec.color_trc = ColorTrc.BT709
    codec.color_range = ColorRange.MPEG


def _convert(frame: av.VideoFrame) -> av.VideoFrame:
    """RGB to BT.709; swscale's own default would be BT.601. The transfer is tagged only."""
    converted = frame.reformat(
        format="yuv420p",
        dst_colorspace=Colorspace.ITU709,
        src_color_range=ColorRange.JPEG,
        dst_color_range=ColorRange.MPEG,
        interpolation=_EXACT,
        threads=1,
    )
    converted.color_primaries = ColorPrimaries.BT709
    converted.color_trc = ColorTrc.BT709
    return converted
