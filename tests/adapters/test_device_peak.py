"""What a run had allocated beside weights and other jobs' states."""

from __future__ import annotations

from pathlib import Path

import pytest
from support.bench import IMAGES, Bench, models, open_executor

from pipelines.device import Device
from pipelines.tiny import make_tiny
from scheduler import messages as m

pytestmark = pytest.mark.anyio


class Counter:
    """A card on which 1,000 bytes are allocated when a run begins, and 1,700 at its most."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.measured = 0
        monkeypatch.setattr(Device, "measure", lambda _: self._measure())
        monkeypatch.setattr(Device, "peak", lambda _: 1_700)

    def _measure(self) -> int:
        self.measured += 1
        return 1_000


async def test_the_peak_is_counted_from_what_is_not_the_runs_own(
    tiny_root: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    make_tiny(tiny_root)
    executor = await open_executor(models(tiny_root))
    counter = Counter(monkeypatch)
    bench = Bench(executor, IMAGES)
    await bench.begin()
    await bench.bring_in(0)
    first = bench.start(0)
    event = await executor.execute(first)
    assert isinstance(event, m.PhaseFinished)
    assert executor.peak_bytes(first.lease) is not None

    await bench.bring_in(1)
    second = bench.start(1)
    await executor.execute(second)
    assert counter.measured == 2
    # Its own state was there before and counts as its own.
    assert executor.peak_bytes(second.lease) == 700 + event.state_bytes
    assert executor.peak_bytes(first.lease) is None
    executor.forget(bench.part.id)


async def test_nothing_counts_on_the_cpu(tiny_root: Path) -> None:
    make_tiny(tiny_root)
    executor = await open_executor(models(tiny_root))
    bench = Bench(executor, IMAGES)
    await bench.begin()
    await bench.bring_in(0)
    command = bench.start(0)
    await executor.execute(command)
    assert executor.peak_bytes(command.lease) is None
    executor.forget(bench.part.id)
