"""The report's figures, as SVG files whose bytes depend on the rows alone."""

from __future__ import annotations

import statistics
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import matplotlib as mpl
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import LogLocator, NullLocator, StrMethodFormatter

from bench.sched_plan import BASE, CURVES, DEFAULT, FRONTIER_SETTING, RIVAL, Sheets
from bench.sched_runs import Row
from bench.sched_tables import Rows, values, video_multiples
from scheduler.workload import CLASSES

# What the default policy aims at.
AIM_RATIO, AIM_SLO, AIM_VIDEO, AIM_SLOWDOWN = 0.97, 0.97, 1.4, 15.0
AIM_P95 = {"chat": 10.0, "image": 28.5}

# Of Okabe and Ito, whom the colour-blind can tell apart.
BLUE, ORANGE, GREEN, GREY = "#0072b2", "#d55e00", "#009e73", "#808080"
COLOURS = dict(zip(CURVES, (BLUE, GREY, ORANGE), strict=True))
COLUMNS = 3
STYLE: dict[Any, Any] = {
    "svg.hashsalt": "ourvidz",  # names of clip paths, else random
    "svg.fonttype": "none",  # letters stay letters: a third of the bytes
    "font.sans-serif": ["DejaVu Sans", "sans-serif"],
    "font.size": 9,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.grid": True,
    "grid.color": "#e5e5e5",
    "axes.axisbelow": True,
    "legend.frameon": False,
}

Measure = Callable[[Rows, Rows], list[float]]


@dataclass(frozen=True, slots=True)
class Panel:
    """``aim`` is drawn as a dashed line."""

    title: str
    measure: Measure
    aim: float | None = None
    log: bool = False


RATIO = Panel("mean flow over the bound's", lambda rows, _: values(rows, "ratio"), AIM_RATIO)
SLO = Panel("SLO met, %", lambda rows, _: [100 * x for x in values(rows, "slo")], 100 * AIM_SLO)
VIDEO = Panel(f"p95 video over {BASE}'s", video_multiples, AIM_VIDEO)
FLOW = Panel("mean flow, s", lambda rows, _: values(rows, "mean_flow_s"), log=True)
SLOWDOWN = Panel(
    "max slowdown", lambda rows, _: values(rows, "max_slowdown"), AIM_SLOWDOWN, log=True
)
LOADS = Panel("loads", lambda rows, _: values(rows, "loads"))


def _p95(name: str) -> Panel:
    return Panel(
        f"p95 {name}, s", lambda rows, _: values(rows, "p95", name), AIM_P95.get(name), log=True
    )


def draw(sheets: Sheets[Row], folder: Path) -> dict[str, Path]:
    """Write a figure for each sheet; the files by the sheet's name."""
    folder.mkdir(parents=True, exist_ok=True)
    base = sheets.policies[BASE]
    strained = {name: rows for name, rows in sheets.strained.items() if name != BASE}
    with mpl.rc_context(STYLE):
        figures = {
            "policies": _dots(sheets.policies, base, (replace(RATIO, log=True), SLO, VIDEO)),
            "ablation": _dots(sheets.ablation, base, (RATIO, SLO, VIDEO)),
            "strained": _dots(strained, sheets.strained[BASE], (RATIO, SLO, VIDEO)),
            "load": _curves(sheets.load, "load", (FLOW, SLO, SLOWDOWN, *map(_p95, CLASSES))),
            "cards": _curves(sheets.cards, "card, GB", (FLOW, SLO, LOADS)),
            "frontier": _frontier(sheets),
        }
        files = {name: folder / f"{name}.svg" for name in figures}
        for name, figure in figures.items():
            figure.savefig(files[name], metadata={"Date": None})
    return files


def _figure(width: float, height: float, columns: int, rows: int = 1) -> tuple[Figure, list[Axes]]:
    figure = Figure((width, height), layout="constrained")
    return figure, list(figure.subplots(rows, columns, squeeze=False).flat)


def _dress(axes: Axes, panel: Panel, *, upright: bool) -> None:
    if panel.log:
        (axes.set_yscale if upright else axes.set_xscale)("log")
        axis = axes.yaxis if upright else axes.xaxis
        axis.set_major_locator(LogLocator(subs=(1.0, 2.0, 5.0)))
        axis.set_major_formatter(StrMethodFormatter("{x:g}"))
        axis.set_minor_locator(NullLocator())
    if panel.aim is not None:
        line = axes.axhline if upright else axes.axvline
        line(panel.aim, color=GREEN, linestyle="--", linewidth=1)
    axes.set_title(panel.title, fontsize=9)


def _dots(sheet: Mapping[str, Rows], base: Rows, panels: Sequence[Panel]) -> Figure:
    """A line for each name, with its median and from least to most."""
    figure, all_axes = _figure(9, 1 + 0.25 * len(sheet), len(panels))
    names = list(sheet)[::-1]
    for axes, panel in zip(all_axes, panels, strict=True):
        _dress(axes, panel, upright=False)
        for place, name in enumerate(names):
            found = panel.measure(sheet[name], base)
            colour = BLUE if place == len(names) - 1 else GREY
            if found:
                axes.plot([min(found), max(found)], [place, place], color=colour, linewidth=1.5)
                axes.plot([statistics.median(found)], [place], "o", color=colour, markersize=5)
        axes.set_yticks(range(len(names)), names if axes is all_axes[0] else [""] * len(names))
    return figure


def _curves(
    sheet: Mapping[tuple[str, float], Rows], across: str, panels: Sequence[Panel]
) -> Figure:
    """A line for each policy, over how busy or how large it is."""
    rows = len(panels) // COLUMNS
    figure, all_axes = _figure(9, 0.4 + 2.3 * rows, COLUMNS, rows)
    for axes, panel in zip(all_axes, panels, strict=True):
        _dress(axes, panel, upright=True)
        axes.set_xlabel(across)
        axes.set_xticks(sorted({x for _, x in sheet}))
        for policy in dict.fromkeys(name for name, _ in sheet):
            points = [
                (x, statistics.median(found))
                for (name, x), line in sheet.items()
                if name == policy and (found := panel.measure(line, sheet[BASE, x]))
            ]
            axes.plot(
                *zip(*points, strict=True), "o-", color=COLOURS[policy], markersize=3, label=policy
            )
    handles, labels = all_axes[0].get_legend_handles_labels()
    figure.legend(handles, labels, loc="outside upper center", ncols=len(labels))
    return figure


def _frontier(sheets: Sheets[Row]) -> Figure:
    """Ratio against the p95 of videos, one setting swept; all of it over the sweep's sources."""
    figure, (axes,) = _figure(6, 4, 1)
    base = sheets.policies[BASE]
    sources = min(map(len, sheets.frontier.values()))

    def at(rows: Rows) -> tuple[float, float]:
        return (
            statistics.median(video_multiples(rows, base)),
            statistics.median(values(rows, "ratio")),
        )

    swept = {value: at(rows) for value, rows in sheets.frontier.items()}
    axes.plot(*zip(*swept.values(), strict=True), "o-", color=BLUE, label=FRONTIER_SETTING)
    for value, point in swept.items():
        axes.annotate(f"{value:g}", point, xytext=(5, 5), textcoords="offset points")
    for name, mark in ((DEFAULT, "*"), (RIVAL, "D")):
        point = at(sheets.policies[name][:sources])
        axes.plot(*point, mark, color=COLOURS[name], markersize=9, label=name)
    axes.axvline(AIM_VIDEO, color=GREEN, linestyle="--", linewidth=1)
    axes.axhline(AIM_RATIO, color=GREEN, linestyle="--", linewidth=1)
    axes.set_xlabel(VIDEO.title)
    axes.set_ylabel(RATIO.title)
    axes.legend()
    return figure
