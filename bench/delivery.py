"""What delivery costs and how quick it is: the figures of ``docs/reliability.md``.

    make bench-delivery

Real servers, real SQLite and the fake device, on this machine alone: what a network adds is not in
it. Takes some minutes, most of which is waiting until pollers are idle and leases have run out.
Writes bench/results/delivery.json, and the tables into the document, whose other text it keeps.
"""

from __future__ import annotations

import json
import os
import platform
import sys
import tempfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import anyio
from support.redis_process import redis_process

from bench import delivery_killed, delivery_pickup, delivery_service, marked
from bench.delivery_pickup import INTAKE, OLD_SECONDS, Effort, Old
from bench.delivery_service import Cost
from bench.sched_tables import markdown
from ourvidz import logs
from ourvidz.service.samples import quantile

ROOT = Path(__file__).parents[1]
DOCUMENT = ROOT / "docs" / "reliability.md"
RESULT = ROOT / "bench" / "results" / "delivery.json"
JOBS = 1000
IDLE_SECONDS = 150.0  # until looks are rare, and a minute of those
REPEATS = 5


@dataclass(frozen=True, slots=True)
class Figures:
    """``pickup`` in seconds by kind of queue, ``old`` by the beat of the loop, ``idle`` in commands
    a minute, ``restarted`` and ``taken_over`` in seconds."""

    pickup: Mapping[str, Sequence[float]]
    old: Mapping[float, Old]
    costs: Mapping[str, Cost]
    idle: Mapping[str, int]
    restarted: Sequence[float]
    taken_over: Sequence[float]


async def measure(
    folder: Path,
    effort: Effort,
    jobs: int = JOBS,
    idle_seconds: float = IDLE_SECONDS,
    repeats: int = REPEATS,
) -> Figures:
    """First what takes the processor, each alone; then what waits, all of it at once."""
    logs.configure("json", "critical", log_prompts=False)
    with redis_process() as redis:
        _tell("pickup by who is woken")
        pickup = await delivery_pickup.by_kind(redis, folder, effort)
        _tell("jobs through the whole service")
        costs = await delivery_service.throughputs(redis, folder, jobs)
        _tell("a worker that is killed and started again")
        restarted = await delivery_killed.killed(folder, repeats, by_another=False)
        _tell("pollers, idle services and leases that run out")
        old: dict[float, Old] = {}
        waiting = _Waiting(folder, effort, idle_seconds, repeats)
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(waiting.run_idle)
            tasks.start_soon(waiting.run_killed)

            async def run_old(seconds: float) -> None:
                # By then everything else has started, and hardly does anything any more.
                await anyio.sleep(effort.settle_seconds)
                old[seconds] = await delivery_pickup.old_loop(redis, seconds, effort)

            for seconds in OLD_SECONDS:
                tasks.start_soon(run_old, seconds)
            polled = await delivery_pickup.polled(redis, effort)
    return Figures(
        {**pickup, "upstash, polled": polled},
        {seconds: old[seconds] for seconds in OLD_SECONDS},
        costs,
        waiting.idle,
        restarted,
        waiting.taken_over,
    )


class _Waiting:
    def __init__(self, folder: Path, effort: Effort, idle_seconds: float, repeats: int) -> None:
        self._folder, self._effort = folder, effort
        self._idle_seconds, self._repeats = idle_seconds, repeats
        self.idle: dict[str, int] = {}
        self.taken_over: list[float] = []

    async def run_idle(self) -> None:
        self.idle = await delivery_service.idle(self._folder / "idle", self._idle_seconds)

    async def run_killed(self) -> None:
        self.taken_over = await delivery_killed.killed(self._folder, self._repeats, by_another=True)


def blocks(figures: Figures) -> dict[str, str]:
    """The document's tables."""
    rows = [(kind, figures.pickup[kind]) for kind in figures.pickup]
    rows += [(f"a loop with pauses of {s:g} s", old.taken) for s, old in figures.old.items()]
    pickup = [
        (name, str(len(taken)), *(_milliseconds(quantile(taken, q)) for q in (0.5, 0.99)))
        for name, taken in rows
    ]
    costs = [
        (kind, *(f"{cost.facts[key]:,.0f}" for key in ("jobs_per_second", "us_per_job")))
        for kind, cost in figures.costs.items()
    ]
    idle = [(kind, f"{figures.idle[kind]}") for kind in sorted(figures.idle)]
    both = " and ".join(f"{s:g} s" for s in figures.old)
    polls = sum(old.commands_per_minute for old in figures.old.values())
    idle.append((f"two loops with pauses of {both}", f"{polls:.0f}"))
    killed = [
        ("the same worker, started again at once", *_span(figures.restarted)),
        ("another worker, when the lease has run out", *_span(figures.taken_over)),
    ]
    return {
        "pickup": markdown(("idle queue", "samples", "p50 ms", "p99 ms"), pickup),
        "jobs": markdown(("queues", "jobs a second", "us a job"), costs),
        "idle": markdown(("queues", "commands a minute"), idle),
        "killed": markdown(("who", "median s", "least s", "most s"), killed),
    }


def facts(figures: Figures) -> dict[str, Any]:
    """Everything that was measured, with where and with which settings."""
    return {
        "machine": {"cores": os.cpu_count(), "python": platform.python_version()},
        "settings": {
            "lease_seconds": INTAKE.lease_seconds,
            "renew_seconds": INTAKE.renew_seconds,
            "poll_seconds": INTAKE.poll_seconds,
        },
        "pickup_seconds": {
            **{kind: _summary(taken) for kind, taken in figures.pickup.items()},
            **{f"loop of {s:g} s": _summary(old.taken) for s, old in figures.old.items()},
        },
        "jobs": {kind: dict(cost.facts) for kind, cost in figures.costs.items()},
        "idle_commands_per_minute": {
            **figures.idle,
            **{
                f"loop of {s:g} s": round(old.commands_per_minute, 1)
                for s, old in figures.old.items()
            },
        },
        "killed_seconds": {
            "same worker": [round(seconds, 2) for seconds in sorted(figures.restarted)],
            "another worker": [round(seconds, 1) for seconds in sorted(figures.taken_over)],
        },
    }


def write(figures: Figures, document: Path = DOCUMENT, result: Path = RESULT) -> None:
    document.write_text(marked.fill(document.read_text("utf-8"), blocks(figures)), "utf-8")
    result.write_text(json.dumps(facts(figures), indent=2) + "\n", "utf-8")


def _summary(taken: Sequence[float]) -> dict[str, float]:
    quantiles = {f"p{round(100 * q)}": round(quantile(taken, q), 5) for q in (0.5, 0.99)}
    return {"samples": len(taken), **quantiles, "max": round(max(taken), 5)}


def _milliseconds(seconds: float) -> str:
    return f"{1000 * seconds:,.1f}" if seconds < 1 else f"{1000 * seconds:,.0f}"


def _span(seconds: Sequence[float]) -> tuple[str, str, str]:
    return (
        f"{quantile(seconds, 0.5):.1f}",
        f"{min(seconds):.1f}",
        f"{max(seconds):.1f}",
    )


def _tell(what: str) -> None:
    sys.stderr.write(f"{what} ...\n")


def main() -> None:
    with tempfile.TemporaryDirectory() as folder:
        figures = anyio.run(measure, Path(folder), Effort())
    write(figures)
    for table in blocks(figures).values():
        sys.stdout.write(f"{table}\n\n")


if __name__ == "__main__":
    main()
