"""The shapes of requests and answers, for the OpenAPI document.

Answers are written by ``ourvidz.service.views`` and requests are read by ``ourvidz.wire``; tests
hold them to what is written here.
"""

from __future__ import annotations

from typing import Any, Literal
from uuid import UUID

from pydantic import BaseModel, ConfigDict, Field

Status = Literal["queued", "processing", "completed", "failed", "cancelled"]


class JobRequest(BaseModel):
    """What is to be made. A key that the type has no use for is kept and named in a warning, a
    value outside the configured limits fails the request."""

    model_config = ConfigDict(
        extra="allow",
        json_schema_extra={
            "examples": [
                {"type": "sdxl_generate", "prompt": "a red bicycle", "batch_size": 3, "seed": 7},
                {"type": "wan_generate", "prompt": "waves", "frames": 17, "resolution": "832x480"},
                {"type": "enhance_instruct", "prompt": "a pear", "target_model": "sdxl"},
                {"type": "chat", "messages": [{"role": "user", "content": "Name three trees."}]},
            ]
        },
    )

    id: UUID | None = Field(None, description="Made by the service if left out.")
    type: str = Field(
        description="sdxl_generate, wan_generate, enhance_base, enhance_instruct, chat or one of "
        "the configured legacy types."
    )
    user_id: UUID | None = Field(None, description="Whose job it is; part of the files' keys.")
    job_class: str | None = Field(None, description="fast or normal, as configured.")
    deadline_seconds: float | None = None
    prompt: str | None = Field(None, description="Needed by every type but chat.")
    negative_prompt: str | None = None
    seed: int | None = Field(None, description="0 or left out: derived from the job's id.")
    steps: int | None = Field(None, description="Denoising steps.")
    guidance_scale: float | None = Field(None, description="1 and less turn guidance off.")
    batch_size: int | None = Field(None, description="sdxl_generate: images; image i has seed + i.")
    resolution: str | None = Field(None, examples=["1024x1024"])
    width: int | None = None
    height: int | None = None
    aspect_ratio: str | None = Field(None, examples=["16:9"])
    frames: int | None = Field(None, description="wan_generate: rounded down to 4k+1.")
    fps: int | None = None
    flow_shift: float | None = None
    reference_mode: str | None = Field(
        None, description="none, single, start, end or both (wan_generate); modify, copy (sdxl)."
    )
    reference_image: str | None = Field(None, description="A storage key or an https URL.")
    first_frame: str | None = Field(None, description="As reference_image.")
    last_frame: str | None = Field(None, description="As reference_image.")
    denoise_strength: float | None = Field(None, description="0 keeps the reference, 1 none of it.")
    exact_copy_mode: bool | None = None
    reproducible: bool | None = Field(
        None, description="Never computed together with other jobs, which changes the last bits."
    )
    enhance: str | None = Field(
        None, description="base, instruct or none: rewrite the prompt first."
    )
    target_model: str | None = Field(None, description="enhance types: sdxl or wan.")
    messages: list[dict[str, str]] | None = Field(
        None, description="chat: `role` system, user or assistant, and `content`."
    )
    model: str | None = Field(None, description="chat: qwen_instruct or qwen_base.")
    system_prompt: str | None = None
    max_tokens: int | None = None
    temperature: float | None = Field(None, description="0 always takes the likeliest token.")
    top_p: float | None = None


class Asset(BaseModel):
    index: int = Field(description="Its place in the batch and in its key.")
    type: Literal["image", "video"]
    url: str = Field(description="The key in the store's bucket.")
    thumbnail_url: str | None
    mime_type: str
    width: int
    height: int
    frames: int
    sha256: str
    file_size_bytes: int
    metadata: dict[str, Any]


class JobError(BaseModel):
    code: str
    message: str
    retryable: bool = Field(description="Whether the same job may succeed later.")
    hint: str | None


class AssetError(JobError):
    index: int


class Output(BaseModel):
    """What a completed job has made; ``text`` and what follows it for text jobs only."""

    assets: list[Asset]
    seed: int
    final_prompt: str | None
    warnings: list[str] = Field(description="Every rounding, cut and ignored field.")
    failed: list[AssetError]
    text: str | None = None
    tokens_generated: int | None = None
    finish_reason: str | None = None


class JobUrls(BaseModel):
    get: str
    cancel: str
    events: str


class Job(BaseModel):
    id: str
    type: str | None
    status: Status
    input: dict[str, Any] | None = Field(description="What is executed, defaults included.")
    output: Output | None
    error: JobError | None
    progress: float = Field(description="0 to 100.")
    queue_position: int | None = Field(description="From 1; 0 while it runs.")
    eta_seconds: float | None = Field(description="Until it is expected to end: the median.")
    eta_p90_seconds: float | None = Field(description="As above: nine of ten end before.")
    created_at: str | None
    started_at: str | None
    completed_at: str | None
    metrics: dict[str, Any] = Field(
        description="`attempts`; once it was planned `steps_done`, `steps_total`, `run_seconds` on "
        "the device and `estimated_run_seconds`, as expected before with the device to itself; and "
        "`estimate_ratio`, where it had the device to itself."
    )
    urls: JobUrls


class JobList(BaseModel):
    jobs: list[Job] = Field(description="The newest first.")
    next_before: str | None = Field(description="`before` of the next page, if there is one.")


class ParkedCallback(BaseModel):
    event_id: str = Field(description="The `webhook-id` of every attempt.")
    job_id: str
    attempts: int
    error: str = Field(description="How the last attempt ended.")
    created_at: str | None


class ParkedCallbacks(BaseModel):
    callbacks: list[ParkedCallback] = Field(description="The oldest first.")


class RetriedCallbacks(BaseModel):
    retried: int = Field(description="How many there were; the rest was not parked.")


class DeadLetter(BaseModel):
    queue: str = Field(description="Where it lay.")
    reason: str
    at: str | None = Field(description="When it was put aside.")
    bytes: int
    element: str = Field(description="Its beginning, 4,096 bytes at most.")


class DeadLetters(BaseModel):
    dead_letters: list[DeadLetter] = Field(description="The newest first.")


class Health(BaseModel):
    model_config = ConfigDict(extra="allow")

    status: Literal["starting", "ready", "draining"]
    endpoints: list[str]
    capabilities: dict[str, Any]
    alarms: list[str] = Field(description="What an operator has to look at.")
    eta_calibration: dict[str, Any] | None = Field(
        None,
        description="Of the last parts that ended: how many, the share that ended within the 90th "
        "percentile of the first ETA, and the median of actual to expected time.",
    )


class Processes(BaseModel):
    jobs: list[dict[str, Any]] = Field(description="Every job that this process holds.")
    scheduler: dict[str, Any] = Field(description="What is resident, what runs, what waits.")


class ProblemDetails(BaseModel):
    """RFC 9457."""

    type: str
    title: str
    status: int
    detail: str
    instance: str
    code: str = Field(description="Stable, for programs.")
    field: str | None = Field(None, description="The guilty field.")
    retryable: bool = Field(description="Whether the same request may succeed later.")
    hint: str | None = None
