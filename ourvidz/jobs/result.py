"""What a job produced, in the terms that delivery and the wire share."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Literal

from ourvidz.jobs.spec import JobError


@dataclass(frozen=True, slots=True)
class Asset:
    """One rendered file.

    ``index`` is its place in the batch and in its key; ``metadata`` is what the callback reports.
    ``path`` is the file in the spool, ``thumbnail_path`` its thumbnail's or ``None``.
    """

    index: int
    kind: Literal["image", "video"]
    key: str
    path: str
    mime: str
    sha256: str
    size_bytes: int
    width: int
    height: int
    frames: int
    metadata: Mapping[str, Any]
    thumbnail_key: str | None = None
    thumbnail_path: str | None = None


@dataclass(frozen=True, slots=True)
class TextResult:
    text: str
    prompt_tokens: int
    tokens: int
    finish_reason: str


@dataclass(frozen=True, slots=True)
class JobResult:
    """How a job ended. ``error`` is set exactly when ``status`` is not ``completed``.

    ``failed`` maps the original index of each image that failed to its error. ``final_prompt`` is
    the prompt that was executed, after an enhancement. ``metrics`` are counts and seconds of this
    run, for the API; they never enter a file. ``dead_letter`` says why the job's element goes to
    the dead letters once its answer is settled; without it the element is dropped.
    """

    status: Literal["completed", "failed", "cancelled"]
    assets: tuple[Asset, ...] = ()
    text: TextResult | None = None
    error: JobError | None = None
    final_prompt: str | None = None
    warnings: tuple[str, ...] = ()
    failed: Mapping[int, JobError] = field(default_factory=dict)
    generation_seconds: float = 0.0
    metrics: Mapping[str, Any] = field(default_factory=dict)
    dead_letter: str | None = None
