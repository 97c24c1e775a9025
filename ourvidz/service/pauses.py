"""How long to wait between two attempts at the outside world."""

from __future__ import annotations

from datetime import timedelta
from typing import TypedDict

from ourvidz.config.settings import Callback

# Whoever asks for more than an hour has made a mistake, or we would never know.
_ASKED_SECONDS_MAX = 3600.0


class Backoff(TypedDict):
    attempts: None
    timeout: None
    wait_initial: float
    wait_max: float
    wait_jitter: float


def backoff(callback: Callback) -> Backoff:
    """For ``stamina``: pauses that grow. How often is the journal's business, so no limit here."""
    return {
        "attempts": None,
        "timeout": None,
        "wait_initial": callback.retry_seconds_min,
        "wait_max": callback.retry_seconds_max,
        "wait_jitter": callback.retry_seconds_min,
    }


def asked(seconds: float | None) -> bool | timedelta:
    """For ``stamina``: retry, after as long as the other side asked for."""
    return timedelta(seconds=min(seconds, _ASKED_SECONDS_MAX)) if seconds else True
