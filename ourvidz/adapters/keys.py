"""Which keys may name a stored file. Checked again at every border that a key crosses."""

from __future__ import annotations

import re

SEGMENT_BYTES_MAX = 255  # what file systems allow a name
KEY_BYTES_MAX = 1024  # what S3 allows a key

_ESCAPE = re.compile(r"%[0-9A-Fa-f]{2}")


def check_key(key: str) -> None:
    """Raise ``ValueError`` unless ``key`` is a relative path of plain names.

    Refused: empty, ``.`` and hidden names, so also ``..``; backslashes, control characters, lone
    surrogates; percent escapes, which a later HTTP client might decode into any of these.
    """
    if not key.isprintable() or "\\" in key:
        raise ValueError("control characters and backslashes are not allowed in a storage key")
    if _ESCAPE.search(key):
        raise ValueError("percent escapes are not allowed in a storage key")
    if len(key.encode()) > KEY_BYTES_MAX:
        raise ValueError(f"a storage key may have {KEY_BYTES_MAX} bytes")
    for segment in key.split("/"):
        if not segment:
            raise ValueError("a storage key may have no empty segment")
        if segment.startswith("."):
            raise ValueError("no segment of a storage key may start with a dot")
        if len(segment.encode()) > SEGMENT_BYTES_MAX:
            raise ValueError(f"a segment of a storage key may have {SEGMENT_BYTES_MAX} bytes")
