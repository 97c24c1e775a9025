"""References that cannot be had for the moment are asked for again."""

from __future__ import annotations

from pathlib import Path

import stamina

from ourvidz.jobs import Reference
from ourvidz.ports import ReferenceFailed, References

# The first pause and the longest; URLs are signed for an hour.
_RETRY_SECONDS = 0.5
_RETRY_SECONDS_MAX = 5.0


class RepeatedReferences:
    """``ports.References``: ``others``, each fetched up to ``attempts_max`` times as long as its
    failure may pass."""

    def __init__(self, others: References, attempts_max: int) -> None:
        self._others = others
        self._attempts_max = attempts_max

    async def fetch(self, reference: Reference, path: Path) -> None:
        async for attempt in stamina.retry_context(
            on=_may_pass,
            attempts=self._attempts_max,
            timeout=None,
            wait_initial=_RETRY_SECONDS,
            wait_max=_RETRY_SECONDS_MAX,
            wait_jitter=_RETRY_SECONDS,
        ):
            with attempt:
                await self._others.fetch(reference, path)


def _may_pass(error: Exception) -> bool:
    return isinstance(error, ReferenceFailed) and error.error.retryable
