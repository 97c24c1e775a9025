"""Width and height: where they come from, and rounding down to what a model can make.

The most explicit source counts, each of them at the top level before ``config``: ``width`` and
``height``, then ``resolution``, then ``aspect_ratio``, then the type's own size.
"""

from __future__ import annotations

import math
import re
from dataclasses import dataclass

from ourvidz.config.jobs import Limits, Range
from ourvidz.wire.fields import Fields
from ourvidz.wire.presets import Preset
from ourvidz.wire.values import FieldError, Found, check_range, plain, shown

SDXL_MULTIPLE = 8
WAN_MULTIPLE = 16
_RESOLUTION = re.compile(r"\s*([0-9]{1,6})\s*[xX\u00d7*]\s*([0-9]{1,6})\s*")
_RATIO = re.compile(r"\s*([0-9]{1,4})\s*:\s*([0-9]{1,4})\s*")
_SAME_SHAPE = 0.05
# Present producers write SDXL's size on every job, videos included.
_PRODUCERS_SIZE = (1024, 1024)


@dataclass(frozen=True, slots=True)
class _Side:
    field: str
    pixels: int


def sdxl_size(fields: Fields, preset: Preset, limits: Limits) -> tuple[int, int]:
    """Multiples of 8 within the limits; an aspect ratio keeps the area of the type's own size."""
    sides = _requested(fields, fields.find("resolution"), limits.side_pixels)
    ratio = _ratio(fields)
    if ratio is not None and sides == (None, None):
        area = preset.width * preset.height
        shape = math.sqrt(area * ratio), math.sqrt(area / ratio)
        width, height = (int(side) // SDXL_MULTIPLE * SDXL_MULTIPLE for side in shape)
        sides = _Side("aspect_ratio", width), _Side("aspect_ratio", height)
    size = _fit(fields, sides, preset, SDXL_MULTIPLE, limits.side_pixels)
    return _checked(fields, size, limits.sdxl_area_pixels, ratio)


def wan_size(fields: Fields, preset: Preset, limits: Limits) -> tuple[int, int]:
    """Multiples of 16 within the limits. 16:9 lays the type's own size down, 9:16 stands it up."""
    sides = _requested(fields, _wan_resolution(fields, preset, limits), limits.side_pixels)
    ratio = _ratio(fields)
    if ratio is not None and sides == (None, None):
        short, long = sorted((preset.width, preset.height))
        if math.isclose(ratio, 16 / 9):
            sides = _Side("width", long), _Side("height", short)
        elif math.isclose(ratio, 9 / 16):
            sides = _Side("width", short), _Side("height", long)
    size = _fit(fields, sides, preset, WAN_MULTIPLE, limits.side_pixels)
    return _checked(fields, size, limits.wan_area_pixels, ratio)


def _wan_resolution(fields: Fields, preset: Preset, limits: Limits) -> Found | None:
    """The resolution, unless it is one that producers copy from their image settings."""
    found = fields.find("resolution")
    if found is None:
        return None
    try:
        width, height = _parse_resolution(found)
    except FieldError:
        if not preset.legacy:
            raise
        fields.ignore(found, 'it is not "WIDTHxHEIGHT"')
        return None
    too_large = preset.legacy and width * height > limits.wan_area_pixels
    if too_large or (width, height) == _PRODUCERS_SIZE:
        fields.ignore(found, "for WAN width and height count, or aspect_ratio 16:9")
        return None
    return found


def _requested(
    fields: Fields, resolution: Found | None, bounds: Range
) -> tuple[_Side | None, _Side | None]:
    pixels = (0, 0) if resolution is None else _parse_resolution(resolution)
    return (
        _requested_side(fields, "width", resolution, pixels[0], bounds),
        _requested_side(fields, "height", resolution, pixels[1], bounds),
    )


def _requested_side(
    fields: Fields, name: str, resolution: Found | None, resolved: int, bounds: Range
) -> _Side | None:
    found = fields.find(name)
    value = fields.integer(name, bounds)
    own = None if found is None or value is None else _Side(found.field, value)
    if resolution is None:
        return own
    if found is None or (found.group == "config" and resolution.group != "config"):
        if found is not None and value != resolved:
            fields.ignore(found, f"{resolution.field}={shown(resolution.value)} counts")
        check_range(resolution.field, resolved, bounds)
        return _Side(resolution.field, resolved)
    if value != resolved:
        fields.ignore(resolution, "width and height count")
    return own


def _parse_resolution(found: Found) -> tuple[int, int]:
    match = _RESOLUTION.fullmatch(found.value) if isinstance(found.value, str) else None
    if match is None:
        problem = f'must be "WIDTHxHEIGHT" in pixels, got {shown(found.value)}'
        raise FieldError(found.field, problem)
    return int(match[1]), int(match[2])


def _ratio(fields: Fields) -> float | None:
    found = fields.find("aspect_ratio")
    if found is None:
        return None
    match = _RATIO.fullmatch(found.value) if isinstance(found.value, str) else None
    if match is None or not int(match[1]) or not int(match[2]):
        fields.ignore(found, "it is not a ratio such as 16:9")
        return None
    return int(match[1]) / int(match[2])


def _fit(
    fields: Fields,
    sides: tuple[_Side | None, _Side | None],
    preset: Preset,
    multiple: int,
    bounds: Range,
) -> tuple[int, int]:
    width = _round_down(fields, sides[0] or _Side("width", preset.width), multiple, bounds)
    height = _round_down(fields, sides[1] or _Side("height", preset.height), multiple, bounds)
    return width, height


def _round_down(fields: Fields, side: _Side, multiple: int, bounds: Range) -> int:
    pixels = side.pixels // multiple * multiple
    lowest = max(multiple, math.ceil(bounds.min / multiple) * multiple)
    if not lowest <= pixels <= bounds.max:
        problem = f"{side.pixels} is out of range, allowed {lowest} to {plain(bounds.max)}"
        raise FieldError(side.field, f"{problem} in steps of {multiple}")
    if pixels != side.pixels:
        what = f"{side.pixels} was rounded down to {pixels}, a multiple of {multiple}"
        fields.warn(f"{side.field}: {what}")
    return pixels


def _checked(
    fields: Fields, size: tuple[int, int], area_max: int, ratio: float | None
) -> tuple[int, int]:
    width, height = size
    if width * height > area_max:
        found = fields.find("width") or fields.find("height") or fields.find("resolution")
        field = "width" if found is None else found.field
        problem = f"{width}x{height} is {width * height} pixels, allowed at most {area_max}"
        raise FieldError(field, problem)
    found = fields.find("aspect_ratio")
    if found is not None and ratio is not None and abs(width / height / ratio - 1) > _SAME_SHAPE:
        fields.ignore(found, f"the size is {width}x{height}")
    return size
