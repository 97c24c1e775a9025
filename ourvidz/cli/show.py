"""What the verbs print: tables for people, JSON for programs."""

from __future__ import annotations

import sys
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

import orjson
import typer
from rich.console import Console
from rich.table import Table
from rich.text import Text

# A table that is not for a terminal must not be folded.
_WIDTH = 240
_NUMBERS = frozenset({"bytes", "position", "eta", "progress", "step", "attempts"})


def plain(text: object) -> str:
    """Text that others wrote, unable to move a terminal's cursor; line ends and tabs stay."""
    return "".join(
        c if c.isprintable() or c in "\n\t" else c.encode("unicode_escape").decode()
        for c in str(text)
    )


def as_json(data: object) -> None:
    typer.echo(orjson.dumps(data, option=orjson.OPT_INDENT_2).decode())


def table(columns: Sequence[str], rows: Iterable[Sequence[object]]) -> None:
    """Print columns; ``None`` is an empty cell."""
    grid = Table(box=None, pad_edge=False, header_style="bold")
    for name in columns:
        grid.add_column(
            name, no_wrap=True, justify="right" if name in _NUMBERS else "left", overflow="fold"
        )
    for row in rows:
        grid.add_row(*(Text("" if cell is None else plain(cell)) for cell in row))
    console().print(grid)


def console() -> Console:
    return Console(width=None if sys.stdout.isatty() else _WIDTH, highlight=False)


def jobs(resources: Sequence[Mapping[str, Any]]) -> None:
    table(
        ("id", "type", "status", "progress", "created"),
        [
            (job["id"], job["type"], job["status"], _percent(job["progress"]), job["created_at"])
            for job in resources
        ],
    )


def job(resource: Mapping[str, Any], files: Path | None) -> None:
    """One job, a fact a line; what it has made comes last."""
    metrics = resource["metrics"]
    steps = f"{metrics['steps_done']}/{metrics['steps_total']}" if "steps_done" in metrics else None
    facts = {
        "id": resource["id"],
        "type": resource["type"],
        "status": resource["status"],
        "progress": _percent(resource["progress"]),
        "steps": steps,
        "queue position": resource["queue_position"],
        "eta": _seconds(resource["eta_seconds"]),
        "created": resource["created_at"],
        "started": resource["started_at"],
        "completed": resource["completed_at"],
        "seed": (resource["output"] or {}).get("seed"),
    }
    for name, fact in facts.items():
        if fact is not None:
            typer.echo(f"{name + ':':16}{plain(fact)}")
    for warning in (resource["output"] or resource["input"] or {}).get("warnings", ()):
        typer.echo(f"{'warning:':16}{plain(warning)}")
    if resource["error"] is not None:
        typer.echo(f"{'error:':16}{plain(failure(resource))}")
    result(resource, files)


def result(resource: Mapping[str, Any], files: Path | None) -> None:
    """What a job has made: a file a line, or the text."""
    output = resource["output"] or {}
    for asset in output.get("assets", ()):
        typer.echo(plain(_place(str(asset["url"]), files)))
    if "text" in output:
        typer.echo(plain(output["text"]))


def failure(resource: Mapping[str, Any]) -> str:
    """The error of a job in one line."""
    error = resource["error"]
    if error is None:
        return "no reason is known"
    hint = f" ({error['hint']})" if error["hint"] else ""
    return f"{error['code']}: {error['message']}{hint}"


def processes(state: Mapping[str, Any]) -> None:
    """What runs, what waits, what is resident, what is given out."""
    scheduler = state["scheduler"]
    jobs_ = sorted(state["jobs"], key=_order)
    table(
        ("job", "type", "status", "phase", "step", "progress", "position", "eta"),
        [
            (
                *(job["id"], job["type"], job["status"], job["phase"]),
                f"{job['steps_done']}/{job['steps_total']}",
                _percent(job["progress"]),
                job["queue_position"],
                _seconds(job["eta_seconds"]),
            )
            for job in jobs_
        ],
    )
    typer.echo()
    table(
        ("component", "tier", "bytes", "error"),
        [
            (name, part["tier"], f"{part['bytes']:,}", part["error"])
            for name, part in scheduler["components"].items()
        ],
    )
    typer.echo()
    for name, pool in scheduler["ledger"].items():
        by = ", ".join(f"{kind} {size:,}" for kind, size in pool["by"].items() if size)
        spent = f"{pool['reserved']:,} of {pool['budget']:,} bytes"
        typer.echo(f"{name + ':':8}{spent}{f' ({by})' if by else ''}")


def callbacks(parked: Sequence[Mapping[str, Any]]) -> None:
    table(
        ("id", "attempts", "created", "error"),
        [(one["event_id"], one["attempts"], one["created_at"], one["error"]) for one in parked],
    )


def dead_letters(letters: Sequence[Mapping[str, Any]]) -> None:
    table(
        ("queue", "since", "bytes", "reason"),
        [(one["queue"], one["at"], one["bytes"], one["reason"]) for one in letters],
    )


def models(reports: Sequence[Mapping[str, Any]]) -> None:
    table(
        ("name", "family", "dtype", "component", "bytes", "path"),
        [row for report in reports for row in _model_rows(report)],
    )
    typer.echo()
    for report in reports:
        word = plain(report["capability"] or f"broken: {report['error']}")
        typer.echo(f"{report['name']}: {word}")


def _model_rows(report: Mapping[str, Any]) -> list[tuple[object, ...]]:
    head = (report["name"], report["family"], report["dtype"])
    total = sum(report["components"].values())
    rows: list[tuple[object, ...]] = [(*head, "", f"{total:,}", report["path"])]
    for name, size in report["components"].items():
        rows.append(("", "", "", name, f"{size:,}", ""))
    return rows


def _order(job: Mapping[str, Any]) -> tuple[bool, int]:
    """What runs first, then what waits in its order, then what the scheduler does not hold."""
    position = job["queue_position"]
    return position is None, position or 0


def _place(key: str, files: Path | None) -> str:
    path = files / key if files is not None else None
    return str(path) if path is not None and path.is_file() else key


def _percent(progress: float) -> str:
    return f"{progress:.0f} %"


def _seconds(seconds: float | None) -> str | None:
    return None if seconds is None else f"{seconds:.1f} s"
