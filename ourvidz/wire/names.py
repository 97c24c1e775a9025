"""Every field that the wire knows, under all the names that producers give it.

One row a field: its paths in order of precedence. A path is a key of the payload's top level, or
of its ``config`` or ``metadata`` object; a key of the top level may also stand in an ``input``
object. So the precedence is: top level (the current schema), ``input``, ``config`` (what the
producers compute), ``metadata`` (what the user interface sent).
"""

from __future__ import annotations

GROUPS = ("input", "config", "metadata")

_ENVELOPE = {
    "id": ("id", "job_id"),
    "type": ("type", "job_type"),
    "user_id": ("user_id",),
    "job_class": ("job_class", "priority"),
    "deadline_seconds": ("deadline_seconds",),
}
_PARAMETERS = {
    "prompt": ("prompt", "config.prompt"),
    "negative_prompt": ("negative_prompt", "config.negative_prompt", "metadata.negative_prompt"),
    "seed": ("seed", "config.seed", "metadata.seed"),
    "original_seed": ("metadata.originalSeed", "metadata.original_seed"),
    "steps": ("steps", "num_inference_steps", "config.num_inference_steps", "config.steps"),
    "guidance_scale": ("guidance_scale", "config.guidance_scale"),
    "images": ("batch_size", "num_images", "config.num_images", "config.batch_size"),
    "width": ("width", "config.width"),
    "height": ("height", "config.height"),
    "resolution": ("resolution", "config.resolution"),
    "aspect_ratio": ("aspect_ratio", "config.aspect_ratio", "metadata.aspect_ratio"),
    "frames": ("frames", "num_frames", "frame_num", "config.frames", "config.num_frames"),
    "fps": ("fps", "config.fps"),
    "flow_shift": ("flow_shift", "config.flow_shift", "config.sample_shift"),
    "strength": ("denoise_strength", "strength", "config.denoise_strength", "config.strength"),
    "reference_strength": (
        "reference_strength",
        "config.reference_strength",
        "metadata.reference_strength",
    ),
    "image_url": (
        "reference_image",
        "reference_image_url",
        "config.image",
        "config.reference_image",
        "config.reference_image_url",
        "metadata.reference_image_url",
        "metadata.reference_image",
    ),
    "start_url": (
        "first_frame",
        "start_reference_url",
        "config.first_frame",
        "config.start_reference_url",
        "metadata.start_reference_url",
    ),
    "end_url": (
        "last_frame",
        "end_reference_url",
        "config.last_frame",
        "config.end_reference_url",
        "metadata.end_reference_url",
    ),
    "reference_mode": ("reference_mode", "config.reference_mode", "metadata.reference_mode"),
    "video_reference_mode": (
        "video_reference_mode",
        "config.video_reference_mode",
        "metadata.video_reference_mode",
    ),
    "exact_copy": ("exact_copy_mode", "config.exact_copy_mode", "metadata.exact_copy_mode"),
    "pipeline": ("pipeline", "config.pipeline"),
    "reproducible": ("reproducible", "config.reproducible"),
    "enhance": ("enhance", "config.enhance"),
    "skip_enhancement": (
        "skip_enhancement",
        "config.skip_enhancement",
        "metadata.skip_enhancement",
    ),
    "system_prompt": ("system_prompt", "config.system_prompt"),
    "target_model": ("target_model", "config.target_model", "metadata.target_model"),
    "enhancement_type": (
        "enhancement_type",
        "config.enhancement_type",
        "metadata.enhancement_type",
    ),
    "messages": ("messages",),
    "model": ("model", "config.model"),
    "max_tokens": ("max_tokens", "max_new_tokens", "config.max_tokens", "config.max_new_tokens"),
    "temperature": ("temperature", "config.temperature"),
    "top_p": ("top_p", "config.top_p"),
}
# Never executed; ``labels`` decides which of them deserve a warning.
_LABELS = {
    "compel_enabled": ("compel_enabled", "config.compel_enabled", "metadata.compel_enabled"),
    "compel_weights": ("compel_weights", "config.compel_weights", "metadata.compel_weights"),
    "sample_solver": ("sample_solver", "config.sample_solver", "metadata.sample_solver"),
    "quality": ("quality", "config.quality", "metadata.quality"),
    "format": ("format", "config.format", "metadata.format"),
    "content_type": ("content_type", "metadata.contentType", "metadata.content_type"),
}
# Kept and not used, without a word: ids of the backend's own rows.
SILENT = frozenset({"image_id", "video_id"})
# Their values never appear in a warning or an error: prompts are private, URLs carry signatures.
PRIVATE = frozenset(
    {"prompt", "negative_prompt", "system_prompt", "messages", "image_url", "start_url", "end_url"}
)


Path = tuple[str, str]
"""The group (empty for the top level) and the key in it."""


def _paths(names: tuple[str, ...], *, nested: bool) -> tuple[Path, ...]:
    top = tuple(("", name) for name in names if "." not in name)
    inner = tuple(("input", name) for _, name in top) if nested else ()
    parts = [name.partition(".") for name in names if "." in name]
    return top + inner + tuple((group, key) for group, _, key in parts)


PATHS: dict[str, tuple[Path, ...]] = {
    **{field: _paths(names, nested=False) for field, names in _ENVELOPE.items()},
    **{field: _paths(names, nested=True) for field, names in (_PARAMETERS | _LABELS).items()},
}
METADATA_KEYS = frozenset(
    key for paths in PATHS.values() for group, key in paths if group == "metadata"
)
