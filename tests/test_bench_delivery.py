"""The benchmark of delivery: what it measures, briefly, and what it writes."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path

import anyio
import pytest
from support.redis_process import RedisProcess

from bench import delivery, delivery_killed, delivery_pickup, delivery_service, marked
from bench.delivery import Figures
from bench.delivery_pickup import Effort, Old
from bench.delivery_service import Cost

BRIEF = Effort(samples=3, pause_seconds=0.01, pollers=2, settle_seconds=0.01, old_samples=2)
FIGURES = Figures(
    pickup={"embedded": [0.001, 0.002, 0.1], "upstash, polled": [7.5]},
    old={2.0: Old([0.5, 1.5], 30.0), 5.0: Old([2.5], 12.0)},
    costs={"embedded": Cost(100, 2.0, 1.0)},
    idle={"embedded": 0, "redis": 8},
    restarted=[3.0, 2.0, 4.0],
    taken_over=[61.25, 80.0],
)


@pytest.fixture
def empty(redis: RedisProcess) -> Iterator[RedisProcess]:
    redis.empty()
    yield redis
    redis.empty()


def test_the_document_is_written_round_its_text(tmp_path: Path) -> None:
    document, result = tmp_path / "reliability.md", tmp_path / "delivery.json"
    before = delivery.DOCUMENT.read_text("utf-8")
    document.write_text(before, "utf-8")
    delivery.write(FIGURES, document, result)
    written, none = document.read_text("utf-8"), dict.fromkeys(delivery.blocks(FIGURES), "")
    assert marked.fill(written, none) == marked.fill(before, none)
    for row in (
        "| embedded | 3 | 2.0 | 100.0 |",
        "| upstash, polled | 1 | 7,500 | 7,500 |",
        "| a loop with pauses of 5 s | 1 | 2,500 | 2,500 |",
        "| embedded | 50 | 20,000 |",
        "| redis | 8 |",
        "| two loops with pauses of 2 s and 5 s | 42 |",
        "| the same worker, started again at once | 3.0 | 2.0 | 4.0 |",
    ):
        assert row in written
    told = json.loads(result.read_text("utf-8"))
    assert told["jobs"]["embedded"]["cpu_us_per_job"] == 10_000
    assert told["killed_seconds"]["another worker"] == [61.2, 80.0]
    assert told["settings"]["lease_seconds"] == 60


def test_the_shipped_document_shows_the_shipped_results() -> None:
    text = delivery.DOCUMENT.read_text("utf-8")
    told = json.loads(delivery.RESULT.read_text("utf-8"))
    for kind, cost in told["jobs"].items():
        assert f"| {kind} | {cost['jobs_per_second']:,.0f} | {cost['us_per_job']:,} |" in text
    for kind, commands in told["idle_commands_per_minute"].items():
        assert kind.startswith("loop") or f"| {kind} | {commands} |" in text


@pytest.mark.slow
def test_pickup_is_measured(empty: RedisProcess, tmp_path: Path) -> None:
    async def measure() -> None:
        found = await delivery_pickup.by_kind(empty, tmp_path, BRIEF)
        assert {kind: len(taken) for kind, taken in found.items()} == {
            "embedded": 3,
            "redis": 3,
            "upstash, SSE": 3,
        }
        assert len(await delivery_pickup.polled(empty, BRIEF)) == 2
        old = await delivery_pickup.old_loop(empty, 0.02, BRIEF)
        assert len(old.taken) == 4
        assert 0 < old.commands_per_minute <= 60 / 0.02
        assert all(seconds > 0 for taken in [*found.values(), old.taken] for seconds in taken)

    anyio.run(measure)


@pytest.mark.slow
def test_services_are_measured(empty: RedisProcess, tmp_path: Path) -> None:
    async def measure() -> None:
        found = await delivery_service.throughputs(empty, tmp_path, 5)
        assert [cost.jobs for cost in found.values()] == [5, 5, 5]
        idle = await delivery_service.idle(tmp_path, 0.2)
        assert idle["embedded"] == 0
        assert all(commands > 0 for kind, commands in idle.items() if kind != "embedded")

    anyio.run(measure)


@pytest.mark.slow
def test_a_killed_workers_job_runs_again(tmp_path: Path) -> None:
    assert delivery_killed.restarted(tmp_path) > 0
