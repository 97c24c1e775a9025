"""SDXL work from a payload."""

from __future__ import annotations

import math
from uuid import UUID

from ourvidz.config.jobs import Limits
from ourvidz.jobs import ImageWork
from ourvidz.wire.common import read_negative_prompt, read_prompt, read_seed
from ourvidz.wire.fields import Fields
from ourvidz.wire.presets import Preset
from ourvidz.wire.references import exact_copy, image_references
from ourvidz.wire.rules import Rules
from ourvidz.wire.sizes import sdxl_size
from ourvidz.wire.values import check_range, plain, whole

# What the old worker had batches for; its producers expect one image for any other number.
_LEGACY_BATCHES = (1, 3, 6)
_COPY_GUIDANCE = 1.0


def image_work(fields: Fields, preset: Preset, rules: Rules, job_id: UUID) -> ImageWork:
    """Raises ``FieldError``. ``int(steps * strength)`` is at least 1 where there is a strength."""
    limits = rules.limits
    exact = exact_copy(fields)
    references = image_references(fields, exact=exact)
    steps = fields.integer("steps", limits.steps)
    strength = _strength(fields, rules, exact=exact, has_reference=bool(references))
    steps, strength = _one_step(fields, preset.steps if steps is None else steps, strength, limits)
    guidance = _guidance(fields, preset, limits, exact=exact)
    images = _images(fields, preset, rules)
    width, height = sdxl_size(fields, preset, limits)
    prompt = read_prompt(fields, limits, empty_allowed=exact)
    negative = read_negative_prompt(fields, limits, guidance)
    seed, seeded = _seed(fields, limits, job_id, images, exact=exact)
    return ImageWork(
        prompt=prompt,
        negative_prompt=negative,
        width=width,
        height=height,
        images=images,
        steps=steps,
        guidance_scale=guidance,
        seed=seed,
        strength=strength,
        references=references,
        seeded=seeded,
        reproducible=fields.flag("reproducible"),
    )


def _images(fields: Fields, preset: Preset, rules: Rules) -> int:
    found = fields.find("images")
    if not preset.legacy or found is None:
        images = fields.integer("images", rules.limits.images)
        return rules.defaults.sdxl.images if images is None else images
    images = whole(found)
    if images in _LEGACY_BATCHES and images <= rules.limits.images.max:
        return images
    fields.ignore(found, f"{preset.requested} makes 1, 3 or 6 images, 1 is made")
    return 1


def _strength(fields: Fields, rules: Rules, *, exact: bool, has_reference: bool) -> float | None:
    """The denoising strength. ``reference_strength`` says how much of the reference is kept."""
    limits, defaults = rules.limits, rules.defaults.sdxl
    strength = fields.number("strength", limits.strength)
    kept_field = fields.find("reference_strength")
    kept = fields.number("reference_strength", limits.strength)
    if kept_field is not None and kept is not None:
        wanted = round(1 - kept, 6)
        check_range(kept_field.field, wanted, limits.strength)
        if strength is None:
            strength = wanted
        elif not math.isclose(strength, wanted, abs_tol=1e-6):
            fields.ignore(kept_field, f"denoise_strength={plain(strength)} counts")
    if not has_reference:
        for found in (fields.find("strength"), kept_field):
            if found is not None:
                fields.ignore(found, "there is no reference image")
        return None
    if not exact:
        return defaults.strength if strength is None else strength
    if strength is not None and strength > defaults.exact_copy_strength:
        what = f"{plain(strength)} was lowered to {plain(defaults.exact_copy_strength)}"
        fields.warn(f"denoise_strength: {what} for the exact copy")
    return min(defaults.exact_copy_strength, 1.0 if strength is None else strength)


def _one_step(
    fields: Fields, steps: int, strength: float | None, limits: Limits
) -> tuple[int, float | None]:
    """Raise ``steps``, and failing that ``strength``, until one step of the schedule is run."""
    if strength is None or int(steps * strength) >= 1:
        return steps, strength
    steps_max = int(limits.steps.max)
    enough = steps_max if strength * steps_max < 1 else math.ceil(1 / strength)
    if enough < steps_max and int(enough * strength) < 1:
        enough += 1  # just below 1/20, 1 / strength is rounded to 20 and 20 * strength is not 1
    if enough != steps:
        why = f"so that one is run at a denoising strength of {plain(strength)}"
        fields.warn(f"steps: {steps} was raised to {enough} {why}")
    if int(enough * strength) < 1:
        least = math.ceil(1e6 / enough) / 1e6
        what = f"{plain(strength)} was raised to {plain(least)}"
        fields.warn(f"denoise_strength: {what} so that one step is run")
        strength = least
    return enough, strength


def _guidance(fields: Fields, preset: Preset, limits: Limits, *, exact: bool) -> float:
    guidance = fields.number("guidance_scale", limits.guidance_scale)
    if not exact:
        return preset.guidance_scale if guidance is None else guidance
    found = fields.find("guidance_scale")
    if found is not None and guidance != _COPY_GUIDANCE:
        fields.ignore(found, f"an exact copy runs at {plain(_COPY_GUIDANCE)}")
    return _COPY_GUIDANCE


def _seed(
    fields: Fields, limits: Limits, job_id: UUID, images: int, *, exact: bool
) -> tuple[int, bool]:
    original = fields.find("original_seed")
    if original is not None:
        if exact and not fields.integer("seed", limits.seed):
            return read_seed(fields, limits, job_id, images=images, name="original_seed")
        fields.ignore(original, "it counts for an exact copy without a seed of its own")
    return read_seed(fields, limits, job_id, images=images)
