"""The demo on a terminal: bars while it works, a table at the end."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import anyio
from rich.console import Console
from rich.progress import BarColumn, Progress, TextColumn, TimeElapsedColumn
from rich.table import Table

from ourvidz.cli.demo.client import Watched

_REFRESH_SECONDS = 0.1


async def show_progress(console: Console, watched: Sequence[Watched]) -> None:
    """Draw one bar a job until cancelled."""
    columns = (
        TextColumn("{task.description:14}"),
        BarColumn(),
        TextColumn("{task.percentage:>3.0f} %"),
        TextColumn("{task.fields[status]:10}"),
        TimeElapsedColumn(),
    )
    with Progress(*columns, console=console) as progress:
        tasks = [
            progress.add_task(w.job.name, total=1.0, status=w.status, start=False) for w in watched
        ]
        while True:
            for task, one in zip(tasks, watched, strict=True):
                if one.status not in ("waiting", "queued"):
                    progress.start_task(task)
                progress.update(task, completed=one.share, status=one.status)
                if one.ended.is_set():
                    progress.stop_task(task)
            await anyio.sleep(_REFRESH_SECONDS)


def table(
    watched: Sequence[Watched],
    reports: Sequence[Mapping[str, Any]],
    problems: Mapping[str, Sequence[str]],
) -> Table:
    """Job, status, seconds, files, seed."""
    found = Table("job", "type", "status", "seconds", "files", "seed", "remarks")
    for one, report in zip(watched, reports, strict=True):
        error = report["error"]
        remarks = "; ".join(problems[one.job.name]) or (error["code"] if error else "")
        found.add_row(
            one.job.name,
            report["type"],
            report["status"],
            f"{one.seconds:.1f}",
            str(len(report["assets"])),
            "" if report["seed"] is None else str(report["seed"]),
            remarks,
        )
    return found
