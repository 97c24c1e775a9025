"""Rendered files: what is in them, what is said of them, and what may go wrong."""

from __future__ import annotations

import errno
import hashlib
import os
from dataclasses import replace
from pathlib import Path
from typing import Any
from uuid import UUID

import av
import numpy as np
import orjson
import pytest
from PIL import Image

from ourvidz.adapters import spool as module
from ourvidz.adapters.spool import SpoolRenderer
from ourvidz.jobs import Asset, ImageWork, JobSpec, JobType, TextWork, VideoWork, Work
from ourvidz.ports import DiskRefused, ImageProduced, Part, RenderFailed, VideoProduced

pytestmark = pytest.mark.anyio

JOB, USER = UUID(int=7), UUID(int=8)
IMAGES = ImageWork("a pear, (ripe)", "fog", 64, 48, 3, 12, 6.5, 100)
VIDEO = VideoWork("waves", "", 64, 32, 5, 16, 9, 5.0, 3.0, 200)
SEED = 11


@pytest.fixture
def renderer() -> SpoolRenderer:
    return SpoolRenderer()


def part_of(spool: Path, work: Work, **references: Path) -> Part:
    spec = JobSpec(
        id=JOB,
        type=JobType.SDXL_GENERATE,
        requested_type="sdxl_image_fast",
        user_id=USER,
        job_class="fast",
        works=(work,),
        digest="d",
        original_prompt="what the user wrote",
    )
    return Part(str(JOB), spec, work, references, spool, model="the one")


def pixels(*shape: int) -> Any:
    return np.random.default_rng(SEED).integers(0, 256, (*shape, 3), dtype=np.uint8)


def read(asset: Asset) -> bytes:
    return Path(asset.path).read_bytes()


def names(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir())


async def test_an_image_with_what_made_it(renderer: SpoolRenderer, tmp_path: Path) -> None:
    given = pixels(48, 64)
    reference = tmp_path / "reference-image"
    reference.write_bytes(b"reference")
    work = replace(IMAGES, strength=0.4)
    part = part_of(tmp_path, work, image=reference)
    asset = await renderer.image(part, ImageProduced(part.id, 2, given))
    raw = read(asset)
    assert (asset.index, asset.kind, asset.mime, asset.frames) == (2, "image", "image/png", 1)
    assert (asset.width, asset.height) == (64, 48)
    assert (asset.sha256, asset.size_bytes) == (hashlib.sha256(raw).hexdigest(), len(raw))
    assert asset.key == f"{USER}/{JOB}/2.png"
    assert asset.thumbnail_key == f"{USER}/{JOB}/2.thumb.webp"
    assert asset.metadata["seed"] == 102
    assert asset.metadata["denoise_strength"] == 0.4
    with Image.open(asset.path) as image:
        assert np.array_equal(np.asarray(image), given)
        lines = image.text["parameters"].split("\n")
        details = orjson.loads(str(image.text["ourvidz"]))
    assert lines[0] == "a pear, (ripe)"
    assert lines[1] == "Negative prompt: fog"
    assert "Steps: 12" in lines[2]
    assert "Seed: 102" in lines[2]
    assert "Size: 64x48" in lines[2]
    assert "Model: the one" in lines[2]
    assert "Denoising strength: 0.4" in lines[2]
    assert (details["seed"], details["index"], details["model"]) == (102, 2, "the one")
    assert details["references"] == {"image": hashlib.sha256(b"reference").hexdigest()}
    assert details["parameters"]["guidance_scale"] == 6.5
    said = "\n".join([*lines, str(details)])
    for hidden in (str(JOB), str(USER), str(tmp_path), os.uname().nodename, "what the user wrote"):
        assert hidden not in said, "no id, host or place, and no text that was not executed"
    assert asset.thumbnail_path is not None
    with Image.open(asset.thumbnail_path) as thumbnail:
        assert thumbnail.format == "WEBP"


async def test_a_video_with_what_made_it(renderer: SpoolRenderer, tmp_path: Path) -> None:
    part = part_of(tmp_path, VIDEO)
    asset = await renderer.video(part, VideoProduced(part.id, pixels(5, 32, 64)))
    raw = read(asset)
    assert (asset.kind, asset.mime, asset.frames) == ("video", "video/mp4", 5)
    assert (asset.width, asset.height, asset.key) == (64, 32, f"{USER}/{JOB}/0.mp4")
    assert (asset.sha256, asset.size_bytes) == (hashlib.sha256(raw).hexdigest(), len(raw))
    assert (asset.metadata["seed"], asset.metadata["fps"]) == (200, 16)
    with av.open(asset.path) as file:
        assert sum(1 for _ in file.decode(video=0)) == 5
        said = " ".join(file.metadata.values())
    assert "Frames: 5" in said
    assert "the one" in said


async def test_one_frame_of_a_video_model_is_an_image(
    renderer: SpoolRenderer, tmp_path: Path
) -> None:
    part = part_of(tmp_path, replace(VIDEO, frames=1))
    asset = await renderer.image(part, ImageProduced(part.id, 0, pixels(32, 64)))
    assert (asset.kind, asset.key[-6:]) == ("image", "/0.png")
    assert "fps" not in asset.metadata
    with Image.open(asset.path) as image:
        assert "Model: the one" in image.text["parameters"]


async def test_the_same_pixels_give_the_same_bytes(renderer: SpoolRenderer, tmp_path: Path) -> None:
    sums = set()
    for name in "ab":
        (tmp_path / name).mkdir()
        part = part_of(tmp_path / name, IMAGES)
        image = await renderer.image(part, ImageProduced(part.id, 1, pixels(48, 64)))
        part = part_of(tmp_path / name, VIDEO)
        video = await renderer.video(part, VideoProduced(part.id, pixels(5, 32, 64)))
        sums.add((image.sha256, video.sha256))
    assert len(sums) == 1


async def test_a_folder_that_is_gone_is_made_again(renderer: SpoolRenderer, tmp_path: Path) -> None:
    part = part_of(tmp_path / "gone", IMAGES)
    await renderer.image(part, ImageProduced(part.id, 0, pixels(48, 64)))
    assert names(tmp_path / "gone") == ["0.png", "0.thumb.webp"]


@pytest.mark.parametrize(
    ("code", "full"),
    [
        (errno.ENOSPC, True),
        (errno.EDQUOT, True),
        (errno.EROFS, False),
        (errno.EIO, False),
        (errno.EACCES, False),
    ],
)
async def test_a_disk_that_does_not_take_it(
    renderer: SpoolRenderer,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    code: int,
    full: bool,
) -> None:
    def refused(*_: object) -> None:
        raise OSError(code, os.strerror(code), str(tmp_path))

    monkeypatch.setattr(module, "write_png", refused)
    part = part_of(tmp_path, IMAGES)
    with pytest.raises(DiskRefused, match=rf"^spool: {errno.errorcode[code]}$") as caught:
        await renderer.image(part, ImageProduced(part.id, 0, pixels(48, 64)))
    assert caught.value.full == full
    assert names(tmp_path) == []


async def test_an_encoder_that_gives_up_is_no_matter_of_the_disk(
    renderer: SpoolRenderer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def broken(*_: object) -> None:
        raise OSError("encoder error -2")

    monkeypatch.setattr(module, "write_png", broken)
    part = part_of(tmp_path, IMAGES)
    with pytest.raises(RenderFailed, match="encoder error"):
        await renderer.image(part, ImageProduced(part.id, 0, pixels(48, 64)))


async def test_pixels_that_no_file_can_hold(renderer: SpoolRenderer, tmp_path: Path) -> None:
    part = part_of(tmp_path, VIDEO)
    with pytest.raises(RenderFailed):
        await renderer.video(part, VideoProduced(part.id, pixels(5, 31, 63)))
    assert names(tmp_path) == []


@pytest.mark.parametrize("error", [OSError(errno.ENOSPC, "full"), RuntimeError("encoder")])
async def test_a_thumbnail_that_fails_harms_nobody(
    renderer: SpoolRenderer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, error: Exception
) -> None:
    def failing(*_: object) -> None:
        raise error

    monkeypatch.setattr(module, "write_thumbnail", failing)
    part = part_of(tmp_path, IMAGES)
    asset = await renderer.image(part, ImageProduced(part.id, 0, pixels(48, 64)))
    assert (asset.thumbnail_key, asset.thumbnail_path) == (None, None)
    assert len(read(asset)) == asset.size_bytes


async def test_text_is_no_picture(renderer: SpoolRenderer, tmp_path: Path) -> None:
    part = part_of(tmp_path, TextWork("chat", "base", (), 1, 0.0, 1.0, 1))
    with pytest.raises(AssertionError, match="text work yields no picture"):
        await renderer.image(part, ImageProduced(part.id, 0, pixels(48, 64)))
