"""What the adapters that speak HTTP have in common: whose key goes where, and what answers say."""

from __future__ import annotations

import re
from email.utils import parsedate_to_datetime

import httpx

_RETRY_AFTER_SECONDS_MAX = 86_400.0
_RETRIED = frozenset({408, 425, 429})


def plain_client() -> httpx.AsyncClient:
    """A client that goes where it is told: no proxy from the environment, no redirects."""
    return httpx.AsyncClient(trust_env=False, follow_redirects=False)


def auth_headers(service_key: str | None) -> dict[str, str]:
    """A JWT goes into ``apikey`` and ``Authorization``, any other key only into ``apikey``."""
    key = (service_key or "").strip()
    if not key:
        return {}
    if not re.fullmatch(r"[\x21-\x7e]+", key):
        raise ValueError("the service key holds characters that no header can carry")
    bearer = {"Authorization": f"Bearer {key}"} if key.startswith("eyJ") else {}
    return {"apikey": key, **bearer}


def may_pass(status: int) -> bool:
    """Whether the same request may be answered otherwise later."""
    return status in _RETRIED or status >= 500


def retry_after(header: str | None, now: float) -> float | None:
    """Seconds from a ``Retry-After`` of seconds or an HTTP date, within a day; ``None`` if the
    header is absent or says nothing. ``now`` is Unix time."""
    text = (header or "").strip()
    seconds = float(text) if re.fullmatch(r"[0-9]{1,12}", text) else seconds_ahead(text, now)
    return None if seconds is None else min(max(seconds, 0.0), _RETRY_AFTER_SECONDS_MAX)


def seconds_ahead(date: str | None, now: float) -> float | None:
    """By how much an HTTP date is later than ``now``, Unix time; ``None`` for what is no date."""
    try:
        return parsedate_to_datetime(date or "").timestamp() - now
    except (ValueError, OverflowError):
        return None
