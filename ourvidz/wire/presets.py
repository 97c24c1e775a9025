"""Job types: what a name stands for and the values it starts from.

Current types start from ``defaults``; a legacy type is a row of ``legacy_types`` in the
configuration and nothing else.
"""

from __future__ import annotations

import difflib
from dataclasses import dataclass

from ourvidz.config.jobs import LegacyType
from ourvidz.jobs import JobType, TextModel
from ourvidz.wire.rules import NORMAL_CLASS, Rules
from ourvidz.wire.values import FieldError, Found, shown

_CURRENT = frozenset(job_type.value for job_type in JobType)


@dataclass(frozen=True, slots=True)
class Preset:
    """``requested`` is the type's name as written. Text types have no use for the numbers."""

    type: JobType
    requested: str
    legacy: bool
    job_class: str = NORMAL_CLASS
    enhance: TextModel | None = None
    steps: int = 0
    guidance_scale: float = 0.0
    width: int = 0
    height: int = 0
    frames: int = 0

    @property
    def output(self) -> str:
        """What the type makes: ``image``, ``video`` or ``text``."""
        if self.type is JobType.SDXL_GENERATE:
            return "image"
        if self.type is JobType.WAN_GENERATE:
            return "image" if self.legacy and self.frames == 1 else "video"
        return "text"


def preset_for(found: Found | None, rules: Rules) -> Preset:
    """Raises ``FieldError`` for a type that is missing or in neither table."""
    if found is None:
        raise FieldError("type", f"missing, allowed {', '.join(known_types(rules))}")
    name = found.value
    if isinstance(name, str) and name in _CURRENT:
        return _current(JobType(name), rules)
    if isinstance(name, str) and name in rules.legacy_types:
        return _legacy(name, rules.legacy_types[name], rules)
    allowed = known_types(rules)
    near = difflib.get_close_matches(name[:100], allowed, n=1) if isinstance(name, str) else []
    hint = f"did you mean {near[0]}?" if near else None
    problem = f"{shown(name)} is unknown, allowed {', '.join(allowed)}"
    raise FieldError(found.field, f"{problem}; {hint}" if hint else problem, hint=hint)


def known_types(rules: Rules) -> tuple[str, ...]:
    """All names, the current ones first."""
    legacy = (name for name in rules.legacy_types if name not in _CURRENT)
    return (*(job_type.value for job_type in JobType), *legacy)


def _current(job_type: JobType, rules: Rules) -> Preset:
    if job_type is JobType.SDXL_GENERATE:
        sdxl = rules.defaults.sdxl
        return Preset(
            job_type,
            job_type.value,
            legacy=False,
            steps=sdxl.steps,
            guidance_scale=sdxl.guidance_scale,
            width=sdxl.width,
            height=sdxl.height,
        )
    if job_type is JobType.WAN_GENERATE:
        wan = rules.defaults.wan
        return Preset(
            job_type,
            job_type.value,
            legacy=False,
            steps=wan.steps,
            guidance_scale=wan.guidance_scale,
            width=wan.width,
            height=wan.height,
            frames=wan.frames,
        )
    return Preset(job_type, job_type.value, legacy=False)


def _legacy(name: str, row: LegacyType, rules: Rules) -> Preset:
    return Preset(
        JobType(row.type),
        name,
        legacy=True,
        job_class=row.job_class,
        enhance=row.enhance,
        steps=row.steps,
        guidance_scale=row.guidance_scale,
        width=row.width,
        height=row.height,
        frames=rules.defaults.wan.frames if row.frames is None else row.frames,
    )
