"""The last values of whatever is measured, by name; how many of each and of all is bounded."""

from __future__ import annotations

import math
from collections import deque
from collections.abc import Iterable, Sequence

from ourvidz.ports import Series

# Enough for a 90th percentile, and few enough to follow a machine that changes.
VALUES_MAX = 64
# Callers choose sizes freely; what was not measured for longest is forgotten. With their names some
# 4 MiB, in memory as on disk.
SERIES_MAX = 4096


def quantile(values: Iterable[float], share: float) -> float:
    """The nearest rank: the least value that is not exceeded by ``share`` of them, 0 < share <= 1.
    Raises ``IndexError`` where there are none."""
    ordered = sorted(values)
    return ordered[math.ceil(share * len(ordered)) - 1]


class Samples:
    """The last ``VALUES_MAX`` values of each name, of the ``SERIES_MAX`` names measured last."""

    def __init__(self) -> None:
        self._series: dict[str, deque[float]] = {}
        self._changed: dict[str, None] = {}

    def add(self, name: str, value: float) -> None:
        """One more value; the oldest gives way."""
        series = self._series.pop(name, None) or deque(maxlen=VALUES_MAX)
        series.append(value)
        self._put(name, series)

    def raise_to(self, name: str, value: float) -> None:
        """Keep the largest value ever, and no other."""
        self._put(name, deque([max([value, *self._series.pop(name, ())])]))

    def values(self, name: str) -> Sequence[float]:
        """Oldest first; none where nothing is known."""
        return tuple(self._series.get(name, ()))

    def restore(self, saved: Iterable[Series]) -> None:
        """Take back what was saved, that which was measured last at the end."""
        for series in saved:
            self._series[series.name] = deque(series.values, maxlen=VALUES_MAX)
            self._forget_old()

    def changed(self) -> Sequence[Series]:
        """What was measured since the last call, that which was measured last at the end."""
        changed, self._changed = self._changed, {}
        return [Series(name, self.values(name)) for name in changed]

    def change_again(self, unsaved: Iterable[Series]) -> None:
        """These could not be saved: ``changed`` is to name them once more."""
        again = [series.name for series in unsaved if series.name in self._series]
        newer = self._changed
        self._changed = dict.fromkeys([name for name in again if name not in newer])
        self._changed.update(newer)

    def __len__(self) -> int:
        return len(self._series)

    def _put(self, name: str, series: deque[float]) -> None:
        self._series[name] = series
        self._changed.pop(name, None)
        self._changed[name] = None
        self._forget_old()

    def _forget_old(self) -> None:
        if len(self._series) > SERIES_MAX:
            oldest = next(iter(self._series))
            del self._series[oldest]
            self._changed.pop(oldest, None)
