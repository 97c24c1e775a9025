"""The request headers that change how a job is submitted."""

from __future__ import annotations

import re
from collections.abc import Sequence
from uuid import UUID, uuid4, uuid5

# Keys of other services that hash names into UUIDs give other ids.
_KEYS = UUID("6d0cbb0e-37f7-5b1e-9b0e-0d7f2f5f7c11")
_WAIT = re.compile(r'\s*wait\s*=\s*(?:"([0-9]{1,9})"|([0-9]{1,9}))\s*', re.IGNORECASE)


def new_id(idempotency_key: str | None) -> UUID:
    """The id of a job that was submitted without one: the same for the same key."""
    return uuid4() if idempotency_key is None else uuid5(_KEYS, idempotency_key)


def wait_seconds(prefer: Sequence[str], seconds_max: float) -> float:
    """How long the caller prefers to wait (RFC 7240), at most ``seconds_max``; 0 for not at all.

    Preferences that are not understood are ignored; of several the first counts.
    """
    for preference in ",".join(prefer).split(","):
        match = _WAIT.fullmatch(preference.partition(";")[0])
        if match:
            return min(float(match.group(1) or match.group(2)), seconds_max)
    return 0.0
