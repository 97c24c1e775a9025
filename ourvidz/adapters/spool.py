"""Rendered files go to the job's spool folder with what made them written inside."""

from __future__ import annotations

import hashlib
from collections.abc import Callable
from dataclasses import asdict
from pathlib import Path
from typing import Any, Literal

import anyio
import structlog

from ourvidz.adapters.atomic import Written
from ourvidz.adapters.media import (
    FileMeta,
    library_versions,
    write_mp4,
    write_png,
    write_thumbnail,
)
from ourvidz.jobs import Asset, ErrorCode, ImageWork, TextWork, VideoWork
from ourvidz.ports import DiskRefused, ImageProduced, Part, Picture, RenderFailed, VideoProduced
from ourvidz.wire import asset_key, asset_metadata, thumbnail_key

log = structlog.get_logger()

# Encoding is for the cores that inference leaves free.
_THREADS = 2
_SAMPLERS: dict[type, str] = {ImageWork: "Euler", VideoWork: "UniPC"}


class SpoolRenderer:
    """``ports.Renderer``."""

    def __init__(self) -> None:
        self._threads = anyio.CapacityLimiter(_THREADS)

    async def image(self, part: Part, produced: ImageProduced) -> Asset:
        return await self._run(lambda: self._image(part, produced))

    async def video(self, part: Part, produced: VideoProduced) -> Asset:
        return await self._run(lambda: self._video(part, produced))

    async def _run(self, render: Callable[[], Asset]) -> Asset:
        try:
            return await anyio.to_thread.run_sync(render, limiter=self._threads)
        except OSError as error:
            if error.errno is not None:
                raise DiskRefused.of(error) from error
            raise RenderFailed(str(error)) from error  # an encoder's
        except ValueError as error:
            raise RenderFailed(str(error)) from error

    def _image(self, part: Part, produced: ImageProduced) -> Asset:
        part.spool.mkdir(parents=True, exist_ok=True)  # somebody may have cleared the disk
        path = part.spool / f"{produced.index}.png"
        written = write_png(path, produced.pixels, self._meta(part, produced.index))
        height, width = produced.pixels.shape[:2]
        return self._asset(part, produced, written, (width, height), path)

    def _video(self, part: Part, produced: VideoProduced) -> Asset:
        assert isinstance(part.work, VideoWork), "only video work yields a video"
        part.spool.mkdir(parents=True, exist_ok=True)  # as above
        path = part.spool / "0.mp4"
        written = write_mp4(path, produced.frames, part.work.fps, self._meta(part, 0))
        height, width = produced.frames.shape[1:3]
        return self._asset(part, produced, written, (width, height), path)

    def _asset(
        self, part: Part, produced: Picture, written: Written, size: tuple[int, int], path: Path
    ) -> Asset:
        work = part.work
        assert not isinstance(work, TextWork), "text work yields no picture"
        video = isinstance(produced, VideoProduced)
        index = 0 if isinstance(produced, VideoProduced) else produced.index
        pixels = produced.frames if isinstance(produced, VideoProduced) else produced.pixels
        frames = len(pixels) if video else 1
        kind: Literal["image", "video"] = "video" if video else "image"
        thumbnail = _thumbnail(part.spool / f"{index}.thumb.webp", produced)
        user, job = part.spec.user_id, part.spec.id
        return Asset(
            index=index,
            kind=kind,
            key=asset_key(user, job, index, "mp4" if video else "png"),
            path=str(path),
            mime="video/mp4" if video else "image/png",
            sha256=written.sha256,
            size_bytes=written.size_bytes,
            width=size[0],
            height=size[1],
            frames=frames,
            metadata=asset_metadata(
                work,
                index,
                width=size[0],
                height=size[1],
                frames=frames,
                size_bytes=written.size_bytes,
            ),
            thumbnail_key=thumbnail_key(user, job, index) if thumbnail else None,
            thumbnail_path=str(thumbnail) if thumbnail else None,
        )

    def _meta(self, part: Part, index: int) -> FileMeta:
        """What the file says: parameters, seed and versions, no time, id, host or location."""
        work = part.work
        assert not isinstance(work, TextWork), "text work yields no picture"
        parameters: dict[str, Any] = {
            "Steps": work.steps,
            "Sampler": _SAMPLERS[type(work)],
            "CFG scale": work.guidance_scale,
            "Seed": work.seed + index,
            "Size": f"{work.width}x{work.height}",
            "Model": part.model,
        }
        if isinstance(work, ImageWork) and work.strength is not None:
            parameters["Denoising strength"] = work.strength
        if isinstance(work, VideoWork):
            parameters["Frames"] = work.frames
        asked = {name: value for name, value in asdict(work).items() if name != "references"}
        details = {
            "type": part.spec.type.value,
            "model": part.model,
            "index": index,
            "seed": work.seed + index,
            "parameters": asked,
            "references": {role: _sha256(path) for role, path in sorted(part.references.items())},
            "versions": dict(library_versions()),
        }
        return FileMeta(work.prompt, work.negative_prompt, parameters, details)


def _thumbnail(path: Path, produced: Picture) -> Path | None:
    """A missing thumbnail harms nobody."""
    pixels = produced.frames if isinstance(produced, VideoProduced) else produced.pixels
    try:
        write_thumbnail(path, pixels)
    except Exception as error:  # noqa: BLE001 - the file itself is good
        code = ErrorCode.THUMBNAIL.value
        log.warning("thumbnail_failed", code=code, reason=f"{type(error).__name__}: {error}")
        return None
    return path


def _sha256(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
