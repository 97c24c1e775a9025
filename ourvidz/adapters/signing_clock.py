"""The time that signatures carry, as whoever verifies them has it."""

from __future__ import annotations

from collections.abc import Callable
from typing import Final

import structlog

from ourvidz.adapters.http_answers import seconds_ahead

log = structlog.get_logger()

# Standard Webhooks refuses what is five minutes off, and answers do not say that this is why.
_TOLERATED_SECONDS: Final = 60.0
# Who refuses a signature, for whatever reason.
REFUSALS: Final = frozenset({401, 403})


class SigningClock:
    """This machine's time until a refusal shows, by its ``Date``, that the other side's is another;
    from then on the other side's."""

    def __init__(self, wall: Callable[[], float]) -> None:
        self._wall = wall
        self._ahead = 0.0

    def now(self) -> int:
        """Unix time."""
        return int(self._wall() + self._ahead)

    def refused(self, date: str | None) -> bool:
        """A signature made just now was refused by an answer with this ``Date``: whether another
        one will be of another time, and so is worth sending."""
        ahead = seconds_ahead(date, self._wall())
        if ahead is None or abs(ahead - self._ahead) <= _TOLERATED_SECONDS:
            return False
        log.warning("clock_differs", seconds=round(ahead), of="whoever verifies our signatures")
        self._ahead = ahead
        return True
