"""What image, video and text work read alike: the prompt and the seed."""

from __future__ import annotations

import hashlib
from uuid import UUID

from ourvidz.config.jobs import Limits
from ourvidz.jobs import ErrorCode
from ourvidz.wire.fields import Fields
from ourvidz.wire.values import FieldError

# Room above a derived seed for the other images of a batch, which use seed + i.
_SEED_SPAN = 2_147_483_647 - 6


def derived_seed(job_id: UUID) -> int:
    """A seed for the job that names none: 1 to 2147483641, the same at every repeat."""
    digest = hashlib.sha256(str(job_id).encode()).digest()
    return 1 + int.from_bytes(digest[:8], "big") % _SEED_SPAN


def read_seed(
    fields: Fields, limits: Limits, job_id: UUID, *, images: int = 1, name: str = "seed"
) -> tuple[int, bool]:
    """The seed of image 0, from the field ``name``, and whether the caller gave it; the last
    image's seed is in range, too."""
    seed = fields.integer(name, limits.seed)
    found = fields.find(name)
    if found is None or not seed:
        return derived_seed(job_id), False
    if seed + images - 1 > limits.seed.max:
        last = int(limits.seed.max) - images + 1
        problem = f"{seed} is out of range for {images} images, allowed 0 to {last}"
        raise FieldError(found.field, problem)
    return seed, True


def read_prompt(fields: Fields, limits: Limits, *, empty_allowed: bool = False) -> str:
    """The prompt. Raises ``FieldError`` with INVALID_PROMPT if it is missing, empty or too long."""
    prompt = fields.text("prompt", limits.prompt_characters)
    if prompt is not None and (prompt.strip() or empty_allowed):
        return prompt
    if prompt is None and empty_allowed:
        return ""
    found = fields.find("prompt")
    problem = "missing" if found is None else "must not be empty"
    raise FieldError("prompt" if found is None else found.field, problem, ErrorCode.INVALID_PROMPT)


def read_negative_prompt(fields: Fields, limits: Limits, guidance_scale: float) -> str:
    """The negative prompt, empty where there is none."""
    negative = fields.text("negative_prompt", limits.prompt_characters) or ""
    if negative.strip() and guidance_scale <= 1:
        fields.warn("negative_prompt has no effect at a guidance_scale of 1 or less")
    return negative
