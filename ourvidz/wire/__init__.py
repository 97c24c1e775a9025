"""The border: payloads become jobs, results become callbacks. No I/O, no clock.

Forms of a payload: a JSON object; an array with one JSON string; a JSON string that holds JSON;
``{"data": "<json>"}``; nested, too. Keys are read at the top level, in ``input``, in ``config``
and in ``metadata``; the first of these that has a field counts (``names.py`` is the table), and a
value that it overrules is named in a warning. Null is absent. Numbers may be written as text.

=====================  ==========================================================================
every job              ``id`` (UUID), ``type``, ``user_id`` (UUID); ``job_class``,
                       ``deadline_seconds``, ``seed`` (0 or absent: derived from the id),
                       ``reproducible`` (never computed together with other jobs)
``sdxl_generate``      ``prompt``; ``negative_prompt, steps, guidance_scale, batch_size`` (or
                       ``num_images``), ``resolution`` or ``width, height`` or ``aspect_ratio``,
                       ``reference_image, denoise_strength`` or ``reference_strength`` (1 - s),
                       ``reference_mode`` none, single, modify, copy; ``exact_copy_mode``;
                       ``enhance`` base, instruct, none
``wan_generate``       ``prompt``; ``frames`` (to 4k+1), ``fps, flow_shift``, sizes as above,
                       ``reference_mode`` none, single, start, end, both; ``reference_image,
                       first_frame, last_frame``; ``enhance``
``enhance_base``,      ``prompt``; ``target_model`` sdxl, wan; ``system_prompt, max_tokens,
``enhance_instruct``   temperature, top_p``
``chat``               ``messages`` or ``prompt``; ``system_prompt, model`` qwen_instruct,
                       qwen_base; ``max_tokens, temperature, top_p``
legacy types           the rows of ``legacy_types`` in the configuration; the ``config`` and
                       ``metadata`` names of old producers
=====================  ==========================================================================

What is rounded, cut or not honoured is named in the job's warnings. Unknown keys are kept in
``extras`` and never fail a job.
"""

from ourvidz.wire.keys import asset_key, event_id, is_uuid, job_key, thumbnail_key
from ourvidz.wire.parse import parse, parse_object
from ourvidz.wire.render import (
    asset_metadata,
    callback_completed,
    callback_failed,
    callback_invalid,
    callback_processing,
)
from ourvidz.wire.rules import Rules

__all__ = [
    "Rules",
    "asset_key",
    "asset_metadata",
    "callback_completed",
    "callback_failed",
    "callback_invalid",
    "callback_processing",
    "event_id",
    "is_uuid",
    "job_key",
    "parse",
    "parse_object",
    "thumbnail_key",
]
