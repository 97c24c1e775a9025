"""A payload in any historical form becomes a ``JobSpec``, or an ``InvalidJob`` to be answered.

Nothing here raises, whatever the payload: ``PayloadError`` and ``FieldError`` end in this module.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any
from uuid import UUID

from ourvidz.config.jobs import Range
from ourvidz.jobs import (
    ErrorCode,
    ImageWork,
    InvalidJob,
    JobError,
    JobSpec,
    JobType,
    TextModel,
    VideoWork,
    Work,
)
from ourvidz.wire.fields import Fields
from ourvidz.wire.image import image_work
from ourvidz.wire.keys import is_uuid
from ourvidz.wire.labels import warn_labels
from ourvidz.wire.names import PATHS
from ourvidz.wire.presets import Preset, preset_for
from ourvidz.wire.references import exact_copy
from ourvidz.wire.rules import NORMAL_CLASS, Rules
from ourvidz.wire.text import chain_model, chat_work, enhance_part, enhance_work
from ourvidz.wire.unwrap import PayloadError, body_digest, raw_digest, unwrap
from ourvidz.wire.values import FieldError, shown
from ourvidz.wire.video import video_work

_NAME_CHARACTERS = 128
# Beyond this nobody looks for an id in what is refused anyway: reading takes the event loop's time.
_READABLE_BYTES = 4_000_000
_DEADLINE_SECONDS = Range(min=0.001, max=604_800)


def parse(raw: bytes | str, rules: Rules) -> JobSpec | InvalidJob:
    """One element of a queue, or the body of a request. Never raises."""
    try:
        body, warnings = unwrap(raw, int(rules.limits.payload_bytes))
    except PayloadError as exc:
        return _unreadable(raw, exc)
    return _parse_body(body, warnings, rules)


def parse_object(body: Mapping[str, Any], rules: Rules) -> JobSpec | InvalidJob:
    """A body that is decoded already. Never raises; the same limits and forms as ``parse``."""
    try:
        raw = json.dumps(body, ensure_ascii=False, default=dict)
    except (TypeError, ValueError, RecursionError) as exc:
        return _unreadable("", PayloadError(f"not a JSON object, {exc}"))
    return parse(raw, rules)


def _parse_body(
    body: dict[str, Any], warnings: tuple[str, ...], rules: Rules
) -> JobSpec | InvalidJob:
    job_id, requested, user_id = _names(body)
    try:
        digest = body_digest(body)
    except PayloadError as exc:
        error = JobError(ErrorCode.INVALID_PARAMETER, str(exc), field="payload")
        return InvalidJob(job_id, requested, user_id, raw_digest(str(job_id)), error)
    try:
        return _spec(Fields(body, warnings), digest, rules)
    except FieldError as exc:
        return InvalidJob(job_id, requested, user_id, digest, exc.error)


def _spec(fields: Fields, digest: str, rules: Rules) -> JobSpec:
    job_id = _job_id(fields)
    user_id = _user_id(fields, rules)
    preset = preset_for(fields.find("type"), rules)
    fields.check_groups()
    works, original_prompt = _works(fields, preset, rules, job_id)
    final = works[-1]
    warn_labels(fields, preset, one_frame=isinstance(final, VideoWork) and final.frames == 1)
    deadline = fields.number("deadline_seconds", _DEADLINE_SECONDS)
    job_class = _job_class(fields, preset, rules)
    fields.warn_unused(preset.requested)
    return JobSpec(
        id=job_id,
        type=preset.type,
        requested_type=preset.requested,
        user_id=user_id,
        job_class=job_class,
        works=works,
        digest=digest,
        original_prompt=original_prompt,
        warnings=fields.warnings,
        extras=fields.extras(),
        deadline_seconds=deadline,
    )


def _works(
    fields: Fields, preset: Preset, rules: Rules, job_id: UUID
) -> tuple[tuple[Work, ...], str]:
    """The linked parts and what the user wrote."""
    if preset.type is JobType.CHAT:
        chat, said = chat_work(fields, rules, job_id)
        return (chat,), said
    if preset.type in (JobType.ENHANCE_BASE, JobType.ENHANCE_INSTRUCT):
        model: TextModel = "base" if preset.type is JobType.ENHANCE_BASE else "instruct"
        work = enhance_work(fields, model, rules, job_id)
        return (work,), work.messages[-1].content
    sdxl = preset.type is JobType.SDXL_GENERATE
    final: ImageWork | VideoWork
    final = (image_work if sdxl else video_work)(fields, preset, rules, job_id)
    enhancer = chain_model(fields, preset)
    if enhancer is not None and sdxl and exact_copy(fields):
        fields.warn("the prompt is not enhanced: an exact copy does not follow it")
        enhancer = None
    if enhancer is None:
        return (final,), final.prompt
    first = enhance_part(fields, enhancer, "sdxl" if sdxl else "wan", rules, job_id)
    return (first, final), final.prompt


def _job_id(fields: Fields) -> UUID:
    found = fields.find("id")
    if found is None:
        raise FieldError("id", "missing, a UUID is needed")
    if not isinstance(found.value, str) or not is_uuid(found.value):
        raise FieldError(found.field, f"{shown(found.value)} is not a UUID")
    return UUID(found.value)


def _user_id(fields: Fields, rules: Rules) -> UUID:
    found = fields.find("user_id")
    if found is None:
        fields.warn(f"user_id: missing, {rules.default_user_id} is taken")
        return rules.default_user_id
    if not isinstance(found.value, str) or not is_uuid(found.value):
        raise FieldError(found.field, f"{shown(found.value)} is not a UUID")
    return UUID(found.value)


def _job_class(fields: Fields, preset: Preset, rules: Rules) -> str:
    found = fields.find("job_class")
    if found is None:
        return preset.job_class
    if preset.legacy:
        fields.ignore(found, f"the class of {preset.requested} is {preset.job_class}")
        return preset.job_class
    if isinstance(found.value, str) and found.value in rules.job_classes:
        return found.value
    fields.ignore(found, f"the classes are {', '.join(sorted(rules.job_classes))}")
    return NORMAL_CLASS


def _name(body: Mapping[str, Any], name: str) -> str | None:
    """An id or a type as far as it can be answered: short and printable; a UUID in lower case."""
    given = (body[key] for _, key in PATHS[name] if body.get(key) is not None)
    value = next(given, None)
    if not isinstance(value, str) or not value.isprintable() or not value.strip():
        return None
    if len(value) > _NAME_CHARACTERS:
        return None
    return value.lower() if is_uuid(value) else value


def _unreadable(raw: bytes | str, problem: PayloadError) -> InvalidJob:
    """A payload that is refused as a whole. Whoever waits for it is answered if it can be read at
    all: if it is only too large, or has bytes among its text that are none."""
    error = JobError(ErrorCode.INVALID_PARAMETER, str(problem), field="payload")
    job_id, requested, user_id = _names(_readable(raw))
    return InvalidJob(job_id, requested, user_id, raw_digest(raw), error)


def _readable(raw: bytes | str) -> Mapping[str, Any]:
    if len(raw) > _READABLE_BYTES:
        return {}
    text = raw.decode(errors="replace") if isinstance(raw, bytes) else raw
    try:
        return unwrap(text, _READABLE_BYTES)[0]
    except PayloadError:
        return {}


def _names(body: Mapping[str, Any]) -> tuple[str | None, str | None, str | None]:
    """Id, type and user, where they are such."""
    job_id, requested, user_id = (_name(body, name) for name in ("id", "type", "user_id"))
    if user_id is not None and not is_uuid(user_id):
        user_id = None
    return job_id, requested, user_id
