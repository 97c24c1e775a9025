"""What the report compares, and with what.

A *sheet* has a line for each thing that is compared, and in each line the contests, later their
rows, over all sources in the same order. Lines of different sheets that are the same contest are
the same ``Round``.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any, Generic, TypeVar

from bench.sched_limits import LIMITS
from bench.sched_runs import PROFILE, Round, Source
from scheduler.contest import CONTESTANTS

SEEDS = (0, 1, 2, 3, 4)
# Curves have many points and are about a shape: they are over the first few sources alone.
CURVE_SOURCES_MAX = 3

# Of the default policy, what it is measured against, and the one to beat.
DEFAULT, BASE, RIVAL = "default", "fifo-lru", "srpt-setup-preempt"
CURVES = (DEFAULT, BASE, RIVAL)

# Each ingredient of the default policy, and the settings that switch it off.
NEVER = 1e9
ABLATION: tuple[tuple[str, Mapping[str, Any]], ...] = (
    ("all of it", {}),
    ("without the price of set-ups", {"price_set_ups": False}),
    ("without preemption", {"preempt": False}),
    ("without urgency", {"discount": 0.0}),
    ("without ageing", {"ageing_seconds": NEVER, "late_ageing": 0.0}),
    ("without a bound on waiting", {"wait_seconds_max": NEVER}),
    ("without the share floor", {"share_floor": 0.0}),
    ("without turns of users", {"turn_seconds": 0.0}),
    ("without hysteresis", {"hysteresis_seconds": 0.0}),
    ("without prefetch", {"prefetch": False}),
    ("without waiting for followers", {"follow_seconds": 0.0}),
    ("without shared texts", {"share_texts": False}),
    ("without shared images", {"share_images": False}),
    ("without any sharing", {"share_texts": False, "share_images": False}),
)

# The one setting that moves the default policy along the frontier.
FRONTIER_SETTING = "late_ageing"
FRONTIER_VALUES = (0.0, 0.01, 0.02, 0.05, 0.1, 0.2, 0.5)

LOADS = (0.5, 1.0, 1.5, 2.0, 3.0)
CARDS_GB = (24.0, 32.0, 48.0, 80.0)
# The reference card, whose bytes are 51e9, is called 48.
BYTES_PER_GB = 1_062_500_000
# A card too small for anyone's habits, twice as busy: where ingredients are needed.
STRAIN: Mapping[str, Any] = {"load": 2.0, "vram_bytes": 24 * BYTES_PER_GB}

T = TypeVar("T")
U = TypeVar("U")


@dataclass(frozen=True)
class Sheets(Generic[T]):
    """``strained`` is the ablation under strain, with a line for ``BASE``; ``load`` and ``cards``
    are by policy, and by how busy or how large it is."""

    policies: Mapping[str, Sequence[T]]
    limits: Mapping[str, Sequence[T]]
    ablation: Mapping[str, Sequence[T]]
    strained: Mapping[str, Sequence[T]]
    frontier: Mapping[float, Sequence[T]]
    load: Mapping[tuple[str, float], Sequence[T]]
    cards: Mapping[tuple[str, float], Sequence[T]]

    def __iter__(self) -> Iterator[T]:
        for sheet in fields(self):
            for line in getattr(self, sheet.name).values():
                yield from line

    def map(self, change: Callable[[T], U]) -> Sheets[U]:
        return Sheets(
            **{
                sheet.name: {
                    key: [change(one) for one in line]
                    for key, line in getattr(self, sheet.name).items()
                }
                for sheet in fields(self)
            }
        )


def plan(sources: Sequence[Source], profile: Path = PROFILE) -> Sheets[Round]:
    few = sources[:CURVE_SOURCES_MAX]

    def over(which: Sequence[Source], policy: str, **more: Any) -> list[Round]:
        return [Round(policy, source, profile, **more) for source in which]

    return Sheets(
        policies={name: over(sources, name) for name in CONTESTANTS},
        limits={name: over(sources, name) for name in (DEFAULT, *LIMITS)},
        ablation={name: over(sources, DEFAULT, changes=off) for name, off in ABLATION},
        strained={
            **{name: over(few, DEFAULT, changes=off, **STRAIN) for name, off in ABLATION},
            BASE: over(few, BASE, **STRAIN),
        },
        frontier={
            value: over(few, DEFAULT, changes={FRONTIER_SETTING: value})
            for value in FRONTIER_VALUES
        },
        load={(name, load): over(few, name, load=load) for name in CURVES for load in LOADS},
        cards={
            (name, size): over(few, name, vram_bytes=round(size * BYTES_PER_GB))
            for name in CURVES
            for size in CARDS_GB
        },
    )
