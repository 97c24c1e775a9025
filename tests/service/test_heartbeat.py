"""The loop's lag is measured, and a worker thread at work does not add to it."""

from __future__ import annotations

import threading

import anyio
import pytest
from support.turns import turns

from ourvidz.service.health import Alarms, Heartbeat
from ourvidz.service.metrics import Metrics

pytestmark = pytest.mark.anyio


class Scripted:
    """Times in pairs: before a beat's sleep, and after it."""

    def __init__(self, *times: float) -> None:
        self._times = list(times)
        self.done = anyio.Event()

    def monotonic(self) -> float:
        if len(self._times) <= 1:
            self.done.set()
        return self._times.pop(0) if self._times else 0.0

    def wall(self) -> float:
        return 0.0


async def test_the_lag_is_what_a_beat_comes_too_late() -> None:
    pairs = (0.0, 0.251, 1.0, 1.501, 2.0, 2.001)
    clock = Scripted(*pairs)
    heartbeat = Heartbeat(clock, 0.001, Metrics())
    assert heartbeat.lag_seconds() == {"p50": 0.0, "p99": 0.0, "max": 0.0}
    async with anyio.create_task_group() as tasks:
        with anyio.fail_after(20):
            tasks.start_soon(heartbeat.beat)
            await clock.done.wait()
            await turns()
        tasks.cancel_scope.cancel()
    assert heartbeat.lag_seconds() == {"p50": 0.25, "p99": 0.5, "max": 0.5}


async def test_the_heart_beats_while_a_worker_thread_is_busy() -> None:
    release, began = threading.Event(), threading.Event()
    beats = 0

    class Counting:
        def monotonic(self) -> float:
            nonlocal beats
            beats += 1
            if beats >= 20:
                enough.set()
            return 0.0

        def wall(self) -> float:
            return 0.0

    def work() -> None:
        began.set()
        assert release.wait(20)

    enough = anyio.Event()
    with anyio.fail_after(20):
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(anyio.to_thread.run_sync, work)
            await anyio.to_thread.run_sync(began.wait)
            tasks.start_soon(Heartbeat(Counting(), 0.001, Metrics()).beat)
            await enough.wait()
            release.set()
            tasks.cancel_scope.cancel()


def test_alarms_ring_until_they_are_silenced() -> None:
    alarms = Alarms()
    alarms.silence("never rang")
    for name in ("b", "a", "b"):
        alarms.ring(name)
    assert alarms.ringing == ["a", "b"]
    alarms.silence("b")
    assert alarms.ringing == ["a"]
