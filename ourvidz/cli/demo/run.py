"""Start everything on the embedded default, run the eleven jobs, look at what came out."""

from __future__ import annotations

import os
import shutil
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import anyio
import httpx
import orjson
from rich.console import Console

from ourvidz import config, logs
from ourvidz.adapters.receiver import Receiver
from ourvidz.app import running
from ourvidz.cli.demo.client import DemoClient, Watched
from ourvidz.cli.demo.jobs import demo_jobs
from ourvidz.cli.demo.report import complaints, job_report
from ourvidz.cli.demo.show import show_progress, table
from ourvidz.cli.models import ensure_tiny
from ourvidz.service.service import Service

# Signs the callbacks between the demo's two ends; it guards nothing.
_SECRET = "demo"  # noqa: S105 - see above
_OVERRIDES = ("OURVIDZ__", "OURVIDZ_CONFIG")
# A job that has not ended by then never will.
_LIMIT_SECONDS = 300.0


@dataclass(frozen=True, slots=True)
class DemoResult:
    """``report`` is the JSON object, ``problems`` what is wrong by job; ``evictions`` counts the
    components that had to make room, and ``store`` is where the files lie."""

    report: Mapping[str, Any]
    watched: Sequence[Watched]
    problems: Mapping[str, list[str]]
    evictions: int
    store: Path

    @property
    def passed(self) -> bool:
        return self.evictions > 0 and not any(self.problems.values())


def demo(path: Path | None, as_json: bool) -> int:
    """Run the demo; the exit code is 0 only if every job ended as it should."""
    console = Console(stderr=as_json, quiet=as_json)
    result = anyio.run(_demo, path, console)
    if as_json:
        print(orjson.dumps(result.report).decode())
    else:
        console.print(table(result.watched, result.report["jobs"], result.problems))
        console.print(_summary(result))
    return 0 if result.passed else 1


def _summary(result: DemoResult) -> str:
    return (
        f"{result.report['seconds']:.1f} s, {result.evictions} components evicted to make room, "
        f"files under {result.store}"
    )


async def _demo(path: Path | None, console: Console) -> DemoResult:
    started = anyio.current_time()
    async with Receiver(_SECRET) as receiver:
        settings = _settings(path, receiver.url)
        logs.configure(settings.logging.format, "error", log_prompts=False)
        root = settings.service.data_dir
        await anyio.to_thread.run_sync(shutil.rmtree, root, True)
        await anyio.to_thread.run_sync(ensure_tiny, settings)
        watched = {job.name: Watched(job) for job in demo_jobs()}
        async with (
            running(settings) as live,
            httpx.AsyncClient(base_url=live.url, timeout=_LIMIT_SECONDS) as http,
        ):
            client = DemoClient(http, live.service.source, watched)
            with anyio.fail_after(_LIMIT_SECONDS):
                await _live(console, client)
            evictions = _count(live.service, "Evicted")
    store = settings.store.dir
    reports = [job_report(one, receiver.callbacks, store) for one in watched.values()]
    problems = {
        one.job.name: list(complaints(one.job, report))
        for one, report in zip(watched.values(), reports, strict=True)
    }
    report = {"seconds": round(anyio.current_time() - started, 3), "jobs": reports}
    return DemoResult(report, list(watched.values()), problems, evictions, store)


def _count(service: Service, event: str) -> int:
    """How often components were moved so."""
    name, labels = "ourvidz_component_moves_total", {"event": event}
    return int(service.metrics.registry.get_sample_value(name, labels) or 0)


async def _live(console: Console, client: DemoClient) -> None:
    """All jobs at once, the bars beside them."""
    jobs = list(client.watched.values())
    async with anyio.create_task_group() as drawing:
        if not console.quiet:
            drawing.start_soon(show_progress, console, jobs)
        async with anyio.create_task_group() as tasks:
            for one in jobs:
                tasks.start_soon(client.live, one)
        drawing.cancel_scope.cancel()


def _settings(path: Path | None, url: str) -> config.Settings:
    """The configuration as it stands, with a data directory, ports and receiver of its own."""
    base = config.load(path, require_secrets=False)
    root = base.service.data_dir / "demo"
    flags = {
        "service.data_dir": str(root),
        "store.kind": "folder",
        "store.dir": str(root / "store"),
        "http.host": "127.0.0.1",
        "http.port": 0,
        "callback.url": url,
        "device.budget_bytes": base.demo.device_budget_bytes,
    }
    # Credentials that happen to lie about are none of the demo's business.
    environ = {name: value for name, value in os.environ.items() if name.startswith(_OVERRIDES)}
    return config.load(path, {**environ, "JOB_CALLBACK_SECRET": _SECRET}, flags)
