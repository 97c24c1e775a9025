"""WAN work from a payload."""

from __future__ import annotations

from uuid import UUID

from ourvidz.config.jobs import Limits, Range
from ourvidz.jobs import VideoWork
from ourvidz.wire.common import read_negative_prompt, read_prompt, read_seed
from ourvidz.wire.fields import Fields
from ourvidz.wire.presets import Preset
from ourvidz.wire.references import video_references
from ourvidz.wire.rules import Rules
from ourvidz.wire.sizes import wan_size
from ourvidz.wire.values import FieldError, whole

# Only written into the file: no memory or time depends on it.
FPS = Range(min=1, max=120)
# As wide as its default may be configured; near 0 the schedule would have no noise levels.
FLOW_SHIFT = Range(min=0.1, max=100)
# The VAE packs four frames into one latent frame, after a first one of its own.
_FRAMES_STEP = 4


def video_work(fields: Fields, preset: Preset, rules: Rules, job_id: UUID) -> VideoWork:
    """Raises ``FieldError``. ``frames`` is 4k+1, sizes are multiples of 16."""
    limits, defaults = rules.limits, rules.defaults.wan
    steps = fields.integer("steps", limits.steps)
    guidance = fields.number("guidance_scale", limits.guidance_scale)
    guidance = preset.guidance_scale if guidance is None else guidance
    shift = fields.number("flow_shift", FLOW_SHIFT)
    fps = fields.integer("fps", FPS)
    frames = _frames(fields, preset, limits)
    mode, references = video_references(fields)
    if mode == "both" and frames == 1:
        found = fields.find("frames")
        field = "frames" if found is None else found.field
        raise FieldError(field, "1 frame cannot lead from one image to another, 5 or more can")
    width, height = wan_size(fields, preset, limits)
    _ignore_image_fields(fields, limits)
    prompt = read_prompt(fields, limits)
    negative = read_negative_prompt(fields, limits, guidance)
    seed, seeded = read_seed(fields, limits, job_id)
    return VideoWork(
        prompt=prompt,
        negative_prompt=negative,
        width=width,
        height=height,
        frames=frames,
        fps=defaults.fps if fps is None else fps,
        steps=preset.steps if steps is None else steps,
        guidance_scale=guidance,
        flow_shift=defaults.flow_shift if shift is None else shift,
        seed=seed,
        mode=mode,
        references=references,
        seeded=seeded,
        reproducible=fields.flag("reproducible"),
    )


def _frames(fields: Fields, preset: Preset, limits: Limits) -> int:
    given = fields.integer("frames", limits.frames)
    found = fields.find("frames")
    if found is not None and preset.output == "image":
        if given != 1:
            fields.ignore(found, f"{preset.requested} makes one frame")
        return 1
    frames = preset.frames if given is None else given
    made = max(1, (frames - 1) // _FRAMES_STEP * _FRAMES_STEP + 1)
    if made != frames:
        field = "frames" if found is None else found.field
        fields.warn(f"{field}: {frames} was rounded down to {made}, which is 4k+1")
    return made


def _ignore_image_fields(fields: Fields, limits: Limits) -> None:
    """Fields of image jobs that producers leave on video jobs."""
    images = fields.find("images")
    if images is not None and whole(images) != 1:
        fields.ignore(images, "WAN makes one video or image")
    for name in ("strength", "reference_strength"):
        found = fields.find(name)
        if found is not None:
            fields.number(name, limits.strength)
            fields.ignore(found, "WAN takes its references whole")
    copied = fields.find("exact_copy")
    if copied is not None and fields.flag("exact_copy"):
        fields.ignore(copied, "it is for images")
