"""A job as callers see it: the one place that joins the journal's row with what is live."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import UTC, datetime
from typing import Any

from ourvidz.jobs import (
    Asset,
    ErrorCode,
    ImageWork,
    InvalidJob,
    JobError,
    JobSpec,
    JobState,
    TextWork,
    VideoWork,
)
from ourvidz.ports import DeadLetter, JobRecord, ParkedAnswer
from ourvidz.service.active import ActiveJob
from ourvidz.service.engine import Place

_HINTS = {
    ErrorCode.OUT_OF_MEMORY: "ask for fewer images, fewer frames or a smaller size",
    ErrorCode.MODEL_LOAD: "the operator should run `ourvidz models verify`",
    ErrorCode.INVALID_PROMPT: "give a prompt within the limits",
    ErrorCode.REFERENCE_FRAME: "the reference must be a PNG, JPEG or WEBP within reach",
    ErrorCode.INVALID_PARAMETER: "correct the named field and submit again under a new id",
}


def error_data(error: JobError) -> Mapping[str, Any]:
    return {
        "code": error.code.value,
        "message": error.message,
        "retryable": error.retryable,
        "hint": error.hint or _HINTS.get(error.code),
    }


def asset_data(asset: Asset) -> Mapping[str, Any]:
    return {
        "index": asset.index,
        "type": asset.kind,
        "url": asset.key,
        "thumbnail_url": asset.thumbnail_key,
        "mime_type": asset.mime,
        "width": asset.width,
        "height": asset.height,
        "frames": asset.frames,
        "sha256": asset.sha256,
        "file_size_bytes": asset.size_bytes,
        "metadata": dict(asset.metadata),
    }


def output_data(record: JobRecord) -> Mapping[str, Any] | None:
    """What came out, once the store holds it."""
    result = record.result
    if result is None or record.state.status != "completed":
        return None
    output: dict[str, Any] = {
        "assets": [asset_data(asset) for asset in result.assets],
        "seed": record.spec.final.seed,
        "final_prompt": result.final_prompt,
        "warnings": list(result.warnings),
        "failed": [{"index": index, **error_data(error)} for index, error in result.failed.items()],
    }
    if result.text is not None:
        output["text"] = result.text.text
        output["tokens_generated"] = result.text.tokens
        output["finish_reason"] = result.text.finish_reason
    return output


def input_data(spec: JobSpec) -> Mapping[str, Any]:
    """What is being executed, after defaults and roundings."""
    work = spec.final
    fields: tuple[str, ...]
    match work:
        case ImageWork():
            fields = ("width", "height", "images", "steps", "guidance_scale", "strength")
        case VideoWork():
            fields = ("width", "height", "frames", "fps", "steps", "guidance_scale", "mode")
        case TextWork():
            fields = ("model", "max_tokens", "temperature", "top_p")
    return {
        "prompt": spec.original_prompt,
        **{name: getattr(work, name) for name in fields},
        "seed": work.seed,
        "warnings": list(spec.warnings),
    }


def job_data(
    record: JobRecord, active: ActiveJob | None, place: Place, base_url: str
) -> Mapping[str, Any]:
    """The job resource."""
    status = record.state.status if active is None else active.state.status
    error = record.result.error if record.result is not None else None
    return {
        "id": str(record.spec.id),
        "type": record.spec.requested_type,
        "status": status,
        "input": input_data(record.spec),
        "output": output_data(record),
        "error": error_data(error) if error is not None and record.state.terminal else None,
        "progress": _progress(record, active),
        "queue_position": place.queue_position,
        "eta_seconds": place.eta_seconds,
        "eta_p90_seconds": place.eta_p90_seconds,
        "created_at": iso(record.created_at),
        "started_at": iso(record.started_at),
        "completed_at": iso(record.completed_at),
        "metrics": _metrics(record, active),
        "urls": _urls(str(record.spec.id), base_url),
    }


def rejected_data(invalid: InvalidJob, base_url: str) -> Mapping[str, Any]:
    """The resource of a payload that never became a job."""
    return {
        "id": invalid.id,
        "type": invalid.requested_type,
        "status": "failed",
        "input": None,
        "output": None,
        "error": error_data(invalid.error),
        "progress": 0,
        "queue_position": None,
        "eta_seconds": None,
        "eta_p90_seconds": None,
        "created_at": None,
        "started_at": None,
        "completed_at": None,
        "metrics": {},
        "urls": _urls(str(invalid.id), base_url),
    }


def ended_data(record: JobRecord) -> Mapping[str, Any]:
    """The data of a job's last event."""
    error = record.result.error if record.result is not None else None
    return {
        "status": record.state.status,
        "output": output_data(record),
        "error": None if error is None else error_data(error),
    }


def parked_data(parked: ParkedAnswer) -> Mapping[str, Any]:
    """A terminal callback that was given up."""
    return {
        "event_id": parked.event_id,
        "job_id": parked.job_id,
        "attempts": parked.attempts,
        "error": parked.error,
        "created_at": iso(parked.created_at),
    }


def letter_data(letter: DeadLetter) -> Mapping[str, Any]:
    """A dead letter, of whose element the beginning is shown."""
    return {
        "queue": letter.queue,
        "reason": letter.reason,
        "at": iso(letter.at),
        "bytes": letter.size_bytes,
        "element": letter.beginning.decode(errors="replace"),
    }


def iso(unix_seconds: float | None) -> str | None:
    """RFC 3339 in UTC, to the millisecond."""
    if unix_seconds is None:
        return None
    return datetime.fromtimestamp(unix_seconds, UTC).isoformat(timespec="milliseconds")


def _progress(record: JobRecord, active: ActiveJob | None) -> float:
    """Per cent; of a job that ended early, how far it came."""
    if active is not None:
        return float(active.progress()["progress"])
    if record.state in (JobState.RENDERED, JobState.COMPLETED):
        return 100.0
    metrics = record.result.metrics if record.result is not None else {}
    total = metrics.get("steps_total", 0)
    return round(100 * metrics["steps_done"] / total, 1) if total else 0.0


def _metrics(record: JobRecord, active: ActiveJob | None) -> Mapping[str, Any]:
    result = record.result
    metrics: dict[str, Any] = {"attempts": record.attempts}
    if result is not None:
        metrics.update(result.metrics)
    if active is not None:
        metrics.update(active.metrics())
    return metrics


def _urls(job_id: str, base_url: str) -> Mapping[str, str]:
    url = f"{base_url}/jobs/{job_id}"
    return {"get": url, "cancel": f"{url}/cancel", "events": f"{url}/events"}
