"""Results become callback bodies, in the shape that the receiver wants.

Every function is pure and its bytes depend on its arguments alone: keys are sorted, and the time
of a failure is an argument. The receiver takes an asset's position as its ``asset_index``: the
successes of a batch are sent in order without gaps, their keys keep the original index, and
``metadata.failed_indices`` names the rest.

The shapes differ in their assets alone. ``generation-complete`` says everything that
``job-callback`` says, and beside it the flat fields of the later backend under each of their names:
a receiver that reads either is served.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Literal
from uuid import UUID

import orjson

from ourvidz.jobs import (
    Asset,
    ImageWork,
    InvalidJob,
    JobError,
    JobResult,
    JobSpec,
    TextWork,
    VideoWork,
)

Shape = Literal["job-callback", "generation-complete"]

_MILLISECONDS = 3
_MICROSECONDS = 6


def callback_completed(spec: JobSpec, result: JobResult, shape: Shape = "job-callback") -> bytes:
    """The body for a job that made something, all of it or in part.

    Raises ``ValueError`` for a result that is not ``completed``.
    """
    if result.status != "completed":
        raise ValueError(f"result.status: {result.status}, only completed is rendered here")
    assets = sorted(result.assets, key=lambda asset: asset.index)
    return _body(
        spec.id,
        "completed",
        [_asset(asset, position, shape) for position, asset in enumerate(assets)],
        {
            **_common(spec),
            **_text(spec, result),
            "generation_time": round(result.generation_seconds, _MILLISECONDS),
            "num_images": len(assets),
            "final_prompt": _final_prompt(spec, result),
            "warnings": _warnings(spec, result),
            **_video(spec, result),
            **_failed_indices(result),
        },
    )


def callback_failed(spec: JobSpec, result: JobResult, timestamp: float | str) -> bytes:
    """The body for a job that failed or that was cancelled through our own API: ``failed`` both
    times, the second with the code CANCELLED in ``result.error``.

    ``timestamp`` is Unix time or ISO 8601, as given. Raises ``ValueError`` for a completed result.
    """
    if result.status == "completed" or result.error is None:
        raise ValueError(f"result.status: {result.status}, an error is rendered here")
    metadata = {
        **_common(spec),
        **_failure(result.error, timestamp),
        "generation_time": round(result.generation_seconds, _MILLISECONDS),
        "warnings": _warnings(spec, result),
        **_failed_indices(result),
    }
    return _body(spec.id, "failed", [], metadata, error_message=result.error.message)


def callback_invalid(job: InvalidJob, timestamp: float | str) -> bytes:
    """The body for a payload that could not be run.

    Raises ``ValueError`` where its id is not known: then nobody can be told.
    """
    if job.id is None:
        raise ValueError("job.id: unknown, a payload without an id cannot be answered")
    metadata = _failure(job.error, timestamp)
    if job.requested_type is not None:
        metadata["job_type"] = job.requested_type
    return _body(job.id, "failed", [], metadata, error_message=job.error.message)


def callback_processing(spec: JobSpec, progress: Mapping[str, Any]) -> bytes:
    """The body that reports progress: ``progress`` in per cent, cut to a whole number within 0 to
    100, and what else the caller knows of the run (part, phase, steps)."""
    share = int(min(100.0, max(0.0, float(progress["progress"]))))
    metadata = {"job_type": spec.requested_type, **progress, "progress": share}
    return _body(spec.id, "processing", [], metadata)


def asset_metadata(
    work: ImageWork | VideoWork,
    index: int,
    *,
    width: int,
    height: int,
    frames: int,
    size_bytes: int,
) -> dict[str, Any]:
    """What the callback says of one file, measured on the file; ``index`` is its place in the
    batch (the callback puts its own position over ``asset_index``)."""
    metadata: dict[str, Any] = {
        "width": width,
        "height": height,
        "format": "png",
        "batch_size": 1,
        "steps": work.steps,
        "guidance_scale": work.guidance_scale,
        "seed": work.seed + index,
        "file_size_bytes": size_bytes,
        "asset_index": index,
        "negative_prompt_used": bool(work.negative_prompt.strip()),
    }
    if isinstance(work, ImageWork):
        metadata["batch_size"] = work.images
        metadata["pipeline"] = "txt2img" if work.strength is None else "img2img"
        if work.strength is not None:
            metadata["denoise_strength"] = work.strength
        return metadata
    metadata["pipeline"] = "video"
    metadata["frame_num"] = frames
    if frames > 1:
        metadata["format"] = "mp4"
        metadata["fps"] = work.fps
        metadata["duration_seconds"] = round(frames / work.fps, _MICROSECONDS)
    return metadata


def _asset(asset: Asset, position: int, shape: Shape) -> dict[str, Any]:
    body: dict[str, Any] = {
        "type": asset.kind,
        "url": asset.key,
        "metadata": {**asset.metadata, "asset_index": position},
    }
    if asset.thumbnail_key is not None:
        body["thumbnail_url"] = asset.thumbnail_key
    if shape == "generation-complete":
        body |= _flat(asset, position)
    return body


def _flat(asset: Asset, position: int) -> dict[str, Any]:
    """What ``generation-complete`` says of an asset beside the rest."""
    flat = {
        "asset_type": asset.kind,
        "temp_storage_path": asset.key,
        "file_size_bytes": asset.size_bytes,
        "mime_type": asset.mime,
        "generation_seed": asset.metadata["seed"],
        "asset_index": position,
    }
    if "duration_seconds" in asset.metadata:
        flat["duration_seconds"] = asset.metadata["duration_seconds"]
    return flat


def _common(spec: JobSpec) -> dict[str, Any]:
    return {
        "job_type": spec.requested_type,
        "original_prompt": spec.original_prompt,
        "seed": spec.final.seed,
    }


def _failure(error: JobError, timestamp: float | str) -> dict[str, Any]:
    code = error.code.value
    return {
        "error_type": code,
        "timestamp": timestamp,
        "error": {"code": code, "message": error.message, "retryable": error.retryable},
    }


def _warnings(spec: JobSpec, result: JobResult) -> list[str]:
    """The border's and the run's, each once; a result may repeat the border's."""
    return list(dict.fromkeys((*spec.warnings, *result.warnings)))


def _failed_indices(result: JobResult) -> dict[str, Any]:
    return {"failed_indices": sorted(result.failed)} if result.failed else {}


def _text(spec: JobSpec, result: JobResult) -> dict[str, Any]:
    """A text job's result under both its names; in a chain, the prompt that was executed."""
    if result.text is not None and isinstance(spec.final, TextWork):
        text = _storable(result.text.text)
        name = "enhanced_prompt" if spec.final.purpose == "enhance" else "response"
        return {"text": text, name: text, "tokens_generated": result.text.tokens}
    return {"enhanced_prompt": _final_prompt(spec, result)} if spec.chained else {}


def _final_prompt(spec: JobSpec, result: JobResult) -> str:
    return _storable(spec.original_prompt if result.final_prompt is None else result.final_prompt)


def _video(spec: JobSpec, result: JobResult) -> dict[str, Any]:
    if not isinstance(spec.final, VideoWork):
        return {}
    return {"frame_num": result.assets[0].frames if result.assets else spec.final.frames}


def _storable(text: str) -> str:
    """Without NUL, which the backend's database refuses together with the whole callback."""
    return text.replace("\0", "")


def _body(
    job_id: UUID | str,
    status: str,
    assets: list[dict[str, Any]],
    metadata: Mapping[str, Any],
    *,
    error_message: str | None = None,
) -> bytes:
    body: dict[str, Any] = {
        "job_id": str(job_id),
        "status": status,
        "assets": assets,
        "metadata": dict(metadata),
    }
    if error_message is not None:
        body["error_message"] = error_message
    return orjson.dumps(body, option=orjson.OPT_SORT_KEYS)
