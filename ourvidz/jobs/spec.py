"""What is asked for, parsed once at the border and immutable from there on."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import StrEnum
from typing import Any, Literal
from uuid import UUID

ReferenceMode = Literal["none", "single", "start", "end", "both"]
TextModel = Literal["base", "instruct"]
TargetModel = Literal["sdxl", "wan"]


class JobType(StrEnum):
    """The current job types; legacy types are a table in configuration that maps onto these."""

    SDXL_GENERATE = "sdxl_generate"
    WAN_GENERATE = "wan_generate"
    ENHANCE_BASE = "enhance_base"
    ENHANCE_INSTRUCT = "enhance_instruct"
    CHAT = "chat"


@dataclass(frozen=True, slots=True)
class Reference:
    """Where a reference image lies: an https URL or a storage key; ``role`` says what it is for."""

    role: Literal["image", "start", "end"]
    location: str


@dataclass(frozen=True, slots=True)
class ImageWork:
    """SDXL. ``strength`` is the denoising strength where there is a reference, else ``None``.

    In every work: ``seeded`` where the caller gave the seed, as is taken of a work that does not
    say it; ``reproducible`` where the caller asked for bits that depend on nothing else.
    """

    prompt: str
    negative_prompt: str
    width: int
    height: int
    images: int
    steps: int
    guidance_scale: float
    seed: int
    strength: float | None = None
    references: tuple[Reference, ...] = ()
    seeded: bool = True
    reproducible: bool = False


@dataclass(frozen=True, slots=True)
class VideoWork:
    """WAN. ``frames`` is 4k+1; one frame is delivered as an image."""

    prompt: str
    negative_prompt: str
    width: int
    height: int
    frames: int
    fps: int
    steps: int
    guidance_scale: float
    flow_shift: float
    seed: int
    mode: ReferenceMode = "none"
    references: tuple[Reference, ...] = ()
    seeded: bool = True
    reproducible: bool = False


@dataclass(frozen=True, slots=True)
class ChatMessage:
    role: Literal["system", "user", "assistant"]
    content: str


@dataclass(frozen=True, slots=True)
class TextWork:
    """Qwen. ``purpose`` decides how the result is reported: ``enhanced_prompt`` or ``response``."""

    purpose: Literal["enhance", "chat"]
    model: TextModel
    messages: tuple[ChatMessage, ...]
    max_tokens: int
    temperature: float
    top_p: float
    seed: int
    seeded: bool = True
    reproducible: bool = False


Work = ImageWork | VideoWork | TextWork


def pictures_of(work: Work) -> int:
    """How many pictures the work yields; a video is one."""
    if isinstance(work, TextWork):
        return 0
    return work.images if isinstance(work, ImageWork) else 1


def may_share(work: Work) -> bool:
    """Whether its steps may be computed together with others', which changes its last bits: not
    where the caller can expect the same bits again."""
    return not (work.seeded or work.reproducible)


@dataclass(frozen=True, slots=True)
class JobSpec:
    """One job on the wire; ``works`` are its linked parts, in order (enhance, then generate).

    ``requested_type`` is the type as the caller wrote it. ``warnings`` name every rounding, cut
    and ignored field. ``extras`` are the payload's unknown keys, kept. ``digest`` is the sha256 of
    the normalised payload: the same id with another digest is another body. ``original_prompt`` is
    what the user wrote.
    """

    id: UUID
    type: JobType
    requested_type: str
    user_id: UUID
    job_class: str
    works: tuple[Work, ...]
    digest: str
    original_prompt: str
    warnings: tuple[str, ...] = ()
    extras: Mapping[str, Any] = field(default_factory=dict)
    deadline_seconds: float | None = None

    @property
    def final(self) -> Work:
        """The part whose result is the job's result."""
        return self.works[-1]

    @property
    def chained(self) -> bool:
        return len(self.works) > 1


@dataclass(frozen=True, slots=True)
class InvalidJob:
    """A payload that cannot be run: answered ``failed`` where the job is known, never dropped.

    ``id`` is the job's id as far as it could be read (text, for the callback), or ``None``.
    """

    id: str | None
    requested_type: str | None
    user_id: str | None
    digest: str
    error: JobError


class ErrorCode(StrEnum):
    """The codes that the wire knows."""

    OUT_OF_MEMORY = "OOM_ERROR"
    MODEL_LOAD = "MODEL_LOAD_ERROR"
    INVALID_PROMPT = "INVALID_PROMPT"
    WORKER_UNAVAILABLE = "WORKER_UNAVAILABLE"
    TIMEOUT = "TIMEOUT_ERROR"
    REFERENCE_FRAME = "REFERENCE_FRAME_ERROR"
    I2I_PIPELINE = "I2I_PIPELINE_ERROR"
    THUMBNAIL = "THUMBNAIL_GENERATION_ERROR"
    INVALID_PARAMETER = "INVALID_PARAMETER"
    CANCELLED = "CANCELLED"
    REJECTED = "REJECTED"


@dataclass(frozen=True, slots=True)
class JobError:
    """Why a job failed. ``retryable``: the same job may succeed later. ``field`` is the guilty
    field of the payload, where there is one."""

    code: ErrorCode
    message: str
    retryable: bool = False
    hint: str | None = None
    field: str | None = None
