"""The report in numbers: medians over the sources, as Markdown tables."""

from __future__ import annotations

import statistics
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from bench.sched_plan import BASE, FRONTIER_SETTING, Sheets
from bench.sched_runs import Row
from scheduler.workload import CLASSES

Rows = Sequence[Row]
# What a line is called, its rows, and those of ``BASE`` on the same sources.
Line = tuple[tuple[str, ...], Rows, Rows]
# A column's title, and its cell from a line's rows and those of ``BASE``.
Column = tuple[str, Callable[[Rows, Rows], str]]


def tables(sheets: Sheets[Row]) -> dict[str, str]:
    """By the sheet's name."""
    base = sheets.policies[BASE]
    policies: list[Line] = [((name,), rows, base) for name, rows in sheets.policies.items()]
    limits: list[Line] = [((name,), rows, base) for name, rows in sheets.limits.items()]
    ablation: list[Line] = [((name,), rows, base) for name, rows in sheets.ablation.items()]
    slow = sheets.strained[BASE]
    strained: list[Line] = [((name,), rows, slow) for name, rows in sheets.strained.items()]
    frontier: list[Line] = [((f"{x:g}",), rows, base) for x, rows in sheets.frontier.items()]
    return {
        "policies": "\n\n".join(
            _table(("policy",), columns, policies) for columns in (SUMMARY, BY_CLASS)
        ),
        "limits": _table(("schedule",), FLOWS, limits),
        "ablation": _table(("default",), SHORT, ablation),
        "strained": _table(("default",), SHORT, strained),
        "frontier": _table((f"`{FRONTIER_SETTING}`",), SHORT, frontier),
        "load": _table(("policy", "load"), SHORT, _lines(sheets.load)),
        "cards": _table(("policy", "GB"), SHORT, _lines(sheets.cards)),
    }


def _lines(sheet: Mapping[tuple[str, float], Rows]) -> list[Line]:
    return [((name, f"{x:g}"), rows, sheet[BASE, x]) for (name, x), rows in sheet.items()]


def _table(titles: Sequence[str], columns: Sequence[Column], lines: Sequence[Line]) -> str:
    return markdown(
        [*titles, *(title for title, _ in columns)],
        [[*names, *(cell(rows, base) for _, cell in columns)] for names, rows, base in lines],
        left=len(titles),
    )


def markdown(header: Sequence[str], lines: Sequence[Sequence[str]], left: int = 1) -> str:
    """A table whose first ``left`` columns are words and the others numbers."""
    rule = ["---" if number < left else "---:" for number in range(len(header))]
    return "\n".join(f"| {' | '.join(cells)} |" for cells in (header, rule, *lines))


def values(rows: Rows, *path: str) -> list[float]:
    """What stands at ``path`` in each row; a class without requests has no figures."""
    found: list[Any] = list(rows)
    for name in path:
        found = [row[name] for row in found]
    return [value for value in found if value is not None]


def median(found: Sequence[float]) -> float | None:
    return statistics.median(found) if found else None


def video_multiples(rows: Rows, base: Rows) -> list[float]:
    """The 95th percentile of videos over that of ``BASE``, by source; ``rows`` may be of the first
    sources alone."""
    same = base[: len(rows)]
    pairs = [(a["p95"]["video"], b["p95"]["video"]) for a, b in zip(rows, same, strict=True)]
    return [mine / theirs for mine, theirs in pairs if mine is not None and theirs]


def number(value: float | None) -> str:
    """A count as it is, all else to three digits, or whole from a hundred on."""
    if value is None:
        return "-"
    return f"{value:,.0f}" if isinstance(value, int) or value >= 100 else f"{value:#.3g}"


def ratio(value: float | None) -> str:
    """To the third decimal where one per cent matters."""
    return f"{value:.3f}" if value is not None and value < 2 else number(value)


def percent(value: float | None) -> str:
    return "-" if value is None else f"{value:.1%}"


def _spread(found: Sequence[float], say: Callable[[float | None], str]) -> str:
    if not found:
        return say(None)
    low, high = say(min(found)), say(max(found))
    return low if low == high else f"{say(median(found))} ({low} to {high})"


def _plain(title: str, path: str, say: Callable[[float | None], str] = number) -> Column:
    return title, lambda rows, _: say(median(values(rows, path)))


def _ranged(title: str, path: str, say: Callable[[float | None], str] = number) -> Column:
    return title, lambda rows, _: _spread(values(rows, path), say)


def _classes(title: str, path: str, say: Callable[[float | None], str] = number) -> Column:
    def cell(rows: Rows, _: Rows) -> str:
        return " / ".join(say(median(values(rows, path, name))) for name in CLASSES)

    return title, cell


_RATIO = _ranged("ratio to the bound", "ratio", ratio)
_SLO = _ranged("SLO", "slo", percent)
_P95 = _classes("p95 s", "p95")
_VIDEO: Column = (
    f"p95 video / {BASE}'s",
    lambda rows, base: _spread(video_multiples(rows, base), ratio),
)
_SLOWDOWN = _ranged("max slowdown", "max_slowdown")

SUMMARY: tuple[Column, ...] = (
    _plain("mean flow s", "mean_flow_s"),
    _RATIO,
    _SLO,
    _VIDEO,
    _SLOWDOWN,
    _plain("loads", "loads"),
    _plain("Belady's", "belady_misses"),
    _plain("load s", "load_s"),
    _plain("preemptions", "preemptions"),
    _plain("starved", "starved"),
)
BY_CLASS: tuple[Column, ...] = (
    _classes("SLO, chat / image / video", "slo_by_class", percent),
    _classes("p50 s", "p50"),
    _P95,
    _classes("p99 s", "p99"),
)
FLOWS: tuple[Column, ...] = (
    _plain("mean flow s", "mean_flow_s"),
    _RATIO,
    _SLO,
    (f"{_P95[0]}, chat / image / video", _P95[1]),
    _VIDEO,
    _SLOWDOWN,
)
SHORT: tuple[Column, ...] = (
    *FLOWS,
    _plain("loads", "loads"),
    _plain("starved", "starved"),
)
