"""Reference images: which ones a job uses, and in what role.

A mode that names an image which the payload does not bring is an error: a job is never turned
into text-to-image in silence. What lies behind a location is checked when it is fetched.
"""

from __future__ import annotations

from typing import Literal, cast, get_args

from ourvidz.jobs import ErrorCode, Reference, ReferenceMode
from ourvidz.wire.fields import Fields
from ourvidz.wire.names import PATHS
from ourvidz.wire.unwrap import describe
from ourvidz.wire.values import FieldError, Found, choose, shown

Role = Literal["image", "start", "end"]
_LOCATION_CHARACTERS = 4096
_MODES = {mode: mode for mode in get_args(ReferenceMode)}
_IMAGE_MODES = {"none": "none", "single": "single", "modify": "modify", "copy": "copy"}
# How an image is to be changed; producers leave it on video jobs, where it says nothing.
_IMAGE_ONLY_MODES = ("modify", "copy")
_PIPELINES = {"img2img": "img2img", "txt2img": "txt2img", "video": "video"}
_IMG2IMG = "pipeline img2img"
_FIELDS = {"image": "image_url", "start": "start_url", "end": "end_url"}
_FIRST_NAMES = {"image": "reference_image", "start": "first_frame", "end": "last_frame"}
_ROLES: dict[ReferenceMode, tuple[Role, ...]] = {
    "none": (),
    "single": ("image",),
    "start": ("start",),
    "end": ("end",),
    "both": ("start", "end"),
}


def exact_copy(fields: Fields) -> bool:
    """Whether the reference is to be copied, by the flag or by the mode ``copy``."""
    mode = fields.find("reference_mode")
    return fields.flag("exact_copy") or (mode is not None and mode.value == "copy")


def image_references(fields: Fields, *, exact: bool) -> tuple[Reference, ...]:
    """SDXL's reference image or none. Raises ``FieldError`` with REFERENCE_FRAME_ERROR."""
    mode = fields.choice("reference_mode", _IMAGE_MODES)
    pipeline = fields.choice("pipeline", _PIPELINES)
    url = _url(fields, "image")
    if mode == "none" and not exact:
        if url is not None:
            fields.warn(f"{url.field} is ignored: reference_mode is none")
        return ()
    if url is None:
        needed = _needed_by(fields, mode, pipeline, exact=exact)
        if needed is not None:
            raise _missing("image", needed)
        return ()
    if pipeline == "txt2img":
        fields.warn(f"pipeline txt2img is ignored: {url.field} is given")
    return (_reference("image", url),)


def video_references(fields: Fields) -> tuple[ReferenceMode, tuple[Reference, ...]]:
    """WAN's mode and its images, the start first. Raises as ``image_references``.

    Without a mode the images decide. ``reference_image`` also stands for the one image that the
    modes ``start`` and ``end`` need, and a start image for that of ``single``.
    """
    urls = {role: _url(fields, role) for role in _FIELDS}
    pipeline = fields.choice("pipeline", _PIPELINES)
    found = _video_mode(fields)
    if found is None:
        mode = _mode_of(urls)
        if mode == "none" and pipeline == "img2img":
            raise _missing("image", _IMG2IMG)
    else:
        mode = cast("ReferenceMode", choose(found, _MODES))
    chosen = {role: _url_for(role, mode, urls) for role in _ROLES[mode]}
    for role, url in chosen.items():
        if url is None:
            raise _missing(role, "reference_mode" if found is None else _said(found))
    used = {url.field for url in chosen.values() if url is not None}
    for url in urls.values():
        if url is not None and url.field not in used:
            fields.warn(f"{url.field} is ignored: the reference mode is {mode}")
    return mode, tuple(_reference(role, url) for role, url in chosen.items() if url is not None)


def _video_mode(fields: Fields) -> Found | None:
    candidates = []
    for found in (*fields.every("reference_mode"), *fields.every("video_reference_mode")):
        if found.value in _IMAGE_ONLY_MODES:
            fields.ignore(found, "it is for images")
        else:
            candidates.append(found)
    order = ("", "input", "config", "metadata")
    # The video's own name comes first within metadata, where both names occur.
    candidates.sort(key=lambda f: (order.index(f.group), f.key == "reference_mode"))
    for other in candidates[1:]:
        if other.value != candidates[0].value:
            fields.ignore(other, f"{_said(candidates[0])} counts")
    return candidates[0] if candidates else None


def _mode_of(urls: dict[str, Found | None]) -> ReferenceMode:
    if urls["start"] is not None:
        return "start" if urls["end"] is None else "both"
    if urls["end"] is not None:
        return "end"
    return "none" if urls["image"] is None else "single"


def _url_for(role: Role, mode: ReferenceMode, urls: dict[str, Found | None]) -> Found | None:
    own = urls[role]
    if own is not None:
        return own
    if mode == "single":
        return urls["start"]
    # In mode both, one image cannot be two: it stands for the start, and the end stays missing.
    return None if (mode, role) == ("both", "end") else urls["image"]


def _needed_by(
    fields: Fields, mode: str | None, pipeline: str | None, *, exact: bool
) -> str | None:
    """What in the payload says that there must be a reference image."""
    if exact:
        return "exact copy"
    if mode in ("single", "modify"):
        found = fields.find("reference_mode")
        return None if found is None else _said(found)
    return _IMG2IMG if pipeline == "img2img" else None


def _url(fields: Fields, role: str) -> Found | None:
    every = fields.every(_FIELDS[role])
    given = [found for found in every if not _blank(found)]
    if not given:
        for found in every:
            fields.warn(f"{found.field} is ignored: it is empty")
        return None
    for other in given[1:]:
        if other.value != given[0].value:
            fields.warn(f"{other.field} is ignored: {given[0].field} counts")
    _check_location(given[0])
    return given[0]


def _blank(found: Found) -> bool:
    return isinstance(found.value, str) and not found.value.strip()


def _check_location(found: Found) -> None:
    if not isinstance(found.value, str):
        raise _bad(found, f"must be a URL or a storage key, got {describe(found.value)}")
    location = found.value.strip()
    if location[:5].lower() == "data:":
        raise _bad(found, "data URIs are refused, give an https URL or a storage key")
    if len(location) > _LOCATION_CHARACTERS:
        problem = f"{len(location)} characters are too many"
        raise _bad(found, f"{problem}, allowed at most {_LOCATION_CHARACTERS}")
    if not location.isprintable():
        raise _bad(found, "has characters that no URL or storage key has")


def _reference(role: Role, found: Found) -> Reference:
    return Reference(role, found.value.strip())


def _said(found: Found) -> str:
    return f"{found.field}={shown(found.value)}"


def _missing(role: str, needed_by: str) -> FieldError:
    names = (Found(group, key, None).field for group, key in PATHS[_FIELDS[role]])
    return FieldError(
        _FIRST_NAMES[role],
        f"missing, but {needed_by} needs it",
        ErrorCode.REFERENCE_FRAME,
        hint=f"read from {', '.join(names)}",
    )


def _bad(found: Found, problem: str) -> FieldError:
    return FieldError(found.field, problem, ErrorCode.REFERENCE_FRAME)
