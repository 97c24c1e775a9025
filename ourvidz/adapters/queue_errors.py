"""Which answers of a Redis server pass by themselves, whatever way they came."""

from __future__ import annotations

import re
from typing import Final

# While it starts, fails over, is full, computes, or a quota is used up.
_PASSING: Final = re.compile(
    r"\b(LOADING|BUSY|OOM|READONLY|MASTERDOWN|TRYAGAIN|CLUSTERDOWN)\b|limit exceeded|rate limit",
    re.ASCII,
)
_SHOWN_CHARACTERS: Final = 200


def passes(answer: str) -> bool:
    """Whether the same command may succeed later, without anybody putting something right."""
    return _PASSING.search(answer) is not None


def shown(error: object) -> str:
    """An answer or an error, cut to a line's length."""
    text = f"{type(error).__name__}: {error}" if isinstance(error, BaseException) else str(error)
    return text[:_SHOWN_CHARACTERS]
