"""Names that leave the service: storage keys and event ids.

Only parsed UUIDs and integers reach a key: HTTP clients collapse ``..`` in a path, so text of the
caller's must never be part of one.
"""

from __future__ import annotations

import re
from typing import Literal
from uuid import UUID

Extension = Literal["png", "mp4"]
_INDEX_MAX = 999
_EXTENSIONS = ("png", "mp4")
_UUID = re.compile(r"[0-9a-fA-F]{8}-(?:[0-9a-fA-F]{4}-){3}[0-9a-fA-F]{12}")


def asset_key(user_id: UUID, job_id: UUID, index: int, ext: Extension) -> str:
    """``{user}/{job}/{index}.{ext}``. Raises ``TypeError`` or ``ValueError`` for anything else."""
    if ext not in _EXTENSIONS:
        raise ValueError(f"ext: {ext!r}, allowed {', '.join(_EXTENSIONS)}")
    return f"{_folder(user_id, job_id)}/{_index(index)}.{ext}"


def thumbnail_key(user_id: UUID, job_id: UUID, index: int) -> str:
    """``{user}/{job}/{index}.thumb.webp``. Raises as ``asset_key``."""
    return f"{_folder(user_id, job_id)}/{_index(index)}.thumb.webp"


def is_uuid(text: str) -> bool:
    """Whether it is one in the form that jobs and users are named in: five groups with hyphens."""
    return _UUID.fullmatch(text) is not None


def job_key(job_id: str) -> str:
    """The one spelling of an id. What has no UUID's form stands for itself; what has one in another
    spelling (without hyphens, in braces) is that job's id to the backend too."""
    try:
        return str(UUID(job_id))
    except ValueError:
        return job_id


def event_id(job_id: UUID | str, event: str) -> str:
    """The id of one callback, the same at every retry."""
    return f"{job_id}.{event}"


def _folder(user_id: UUID, job_id: UUID) -> str:
    for name, value in (("user_id", user_id), ("job_id", job_id)):
        if not isinstance(value, UUID):
            raise TypeError(f"{name}: a parsed UUID is needed, got {type(value).__name__}")
    return f"{user_id}/{job_id}"


def _index(index: int) -> int:
    if isinstance(index, bool) or not isinstance(index, int):
        raise TypeError(f"index: an integer is needed, got {type(index).__name__}")
    if not 0 <= index <= _INDEX_MAX:
        raise ValueError(f"index: {index} is out of range, allowed 0 to {_INDEX_MAX}")
    return index
