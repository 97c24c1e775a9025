"""The service's work, said in the pipelines' own request types."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

from ourvidz.jobs import ImageWork, TextWork, VideoWork, Work, may_share
from pipelines.request import ImageRequest, Message, Request, TextRequest, VideoRequest


def request_of(work: Work, references: Mapping[str, Path], wanted: tuple[int, ...] = ()) -> Request:
    """``references`` are the fetched files by role; ``wanted`` as in ``Part``."""
    match work:
        case ImageWork():
            return _image(work, references, wanted)
        case VideoWork():
            return _video(work, references)
        case TextWork():
            return TextRequest(
                messages=tuple(Message(m.role, m.content) for m in work.messages),
                max_tokens=work.max_tokens,
                temperature=work.temperature,
                top_p=work.top_p,
                seed=work.seed,
                shareable=may_share(work),
            )


def _image(
    work: ImageWork, references: Mapping[str, Path], wanted: tuple[int, ...]
) -> ImageRequest:
    return ImageRequest(
        prompt=work.prompt,
        negative_prompt=work.negative_prompt,
        width=work.width,
        height=work.height,
        images=work.images,
        steps=work.steps,
        guidance_scale=work.guidance_scale,
        seed=work.seed,
        strength=work.strength,
        image_path=_path(references, "image"),
        bitwise=work.reproducible,
        shareable=may_share(work),
        only=() if len(wanted) == work.images else wanted,
    )


def _video(work: VideoWork, references: Mapping[str, Path]) -> VideoRequest:
    return VideoRequest(
        prompt=work.prompt,
        negative_prompt=work.negative_prompt,
        width=work.width,
        height=work.height,
        frames=work.frames,
        steps=work.steps,
        guidance_scale=work.guidance_scale,
        flow_shift=work.flow_shift,
        seed=work.seed,
        mode=work.mode,
        start_path=_path(references, "start") or _path(references, "image"),
        end_path=_path(references, "end"),
    )


def _path(references: Mapping[str, Path], role: str) -> str | None:
    return str(references[role]) if role in references else None
