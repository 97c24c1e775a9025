"""Fields that nothing executes: named in a warning where the caller may expect otherwise.

``format``, ``content_type`` and ``quality`` are copies of the type on legacy payloads and say
nothing new there: they are noise unless they contradict what the job makes.
"""

from __future__ import annotations

from ourvidz.wire.fields import Fields
from ourvidz.wire.presets import Preset
from ourvidz.wire.unwrap import describe
from ourvidz.wire.values import Found

_KINDS = {"image": ("image", "png", "image/png"), "video": ("video", "mp4", "video/mp4")}
# Producers put a rating under ``content_type``, too.
_RATINGS = ("sfw", "nsfw")
_FILES = {"image": "images are PNG", "video": "videos are MP4"}


def warn_labels(fields: Fields, preset: Preset, *, one_frame: bool) -> None:
    """Warn of what is not honoured. ``one_frame``: a WAN job whose file is an image."""
    _warn_compel(fields)
    for found in fields.every("sample_solver"):
        fields.ignore(found, "the checkpoint's own scheduler is used")
    for found in fields.every("quality"):
        if not preset.legacy:
            fields.ignore(found, "no setting follows from it")
    output = "image" if one_frame else preset.output
    if output in _KINDS:
        for found in (*fields.every("format"), *fields.every("content_type")):
            _warn_kind(fields, found, output)
    else:
        fields.every("format")
        fields.every("content_type")


def _warn_compel(fields: Fields) -> None:
    """``compel_enabled: false`` is what happens anyway."""
    for found in fields.every("compel_enabled"):
        if found.value not in (False, "false", 0):
            fields.ignore(found, "prompt weighting is not offered")
    for found in fields.every("compel_weights"):
        fields.warn(f"{found.field} ({describe(found.value)}) is ignored: no prompt weighting")


def _warn_kind(fields: Fields, found: Found, output: str) -> None:
    value = found.value.lower() if isinstance(found.value, str) else found.value
    if value in _RATINGS:
        fields.ignore(found, "there is no content policy here")
    elif value not in _KINDS[output]:
        fields.ignore(found, _FILES[output])
