"""What must not be shown: secrets, in values, in names and inside longer texts."""

from __future__ import annotations

import itertools
import re

REDACTED = "**redacted**"

_SECRET_WORDS = frozenset(
    {"apikey", "authorization", "cookie", "credential", "credentials", "passwd", "password"}
    | {"secret", "secrets", "signature", "token"}
)
_SECRET_PAIRS = (("api", "key"), ("access", "key"), ("service", "key"), ("secret", "key"))
# In order: user:password@ of a URL, a query's secret parameters, a header's credentials, and the
# shapes of keys that the backend issues.
_PATTERNS = (
    (re.compile(r"(?<=://)[^/?#\s\"']*@"), f"{REDACTED}@"),
    (
        re.compile(
            r"([?&](?:[\w.-]*(?:token|signature|credential|secret|password|api_?key)|key|sig)=)"
            r"[^&#\s\"']+",
            re.IGNORECASE,
        ),
        rf"\1{REDACTED}",
    ),
    (
        re.compile(
            r"(authorization[\"']?\s*[:=]\s*[\"']?)(?:[a-z]+\s+)?[^\s\"',}]+", re.IGNORECASE
        ),
        rf"\1{REDACTED}",
    ),
    (re.compile(r"\b(Bearer)\s+[A-Za-z0-9._~+/=-]{12,}", re.IGNORECASE), rf"\1 {REDACTED}"),
    (re.compile(r"\b(?:sb_secret_|whsec_)[\w+/=-]+"), REDACTED),
    (re.compile(r"\beyJ[\w-]{8,}\.[\w-]+(?:\.[\w-]*)?"), REDACTED),
)


def names_secret(name: str) -> bool:
    """Whether a key, header or variable of this name holds a secret (``max_tokens`` does not)."""
    words = [word for word in re.split(r"[^a-z0-9]+", _snake(name)) if word]
    if any(word in _SECRET_WORDS for word in words):
        return True
    return any(pair in _SECRET_PAIRS for pair in itertools.pairwise(words))


def redact(text: str) -> str:
    """``text`` with the secrets inside it replaced: URL credentials, headers, known keys."""
    for pattern, replacement in _PATTERNS:
        text = pattern.sub(replacement, text)
    return text


def _snake(name: str) -> str:
    return re.sub(r"(?<=[a-z0-9])(?=[A-Z])", "_", name).lower()
