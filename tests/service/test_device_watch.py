"""When the device counts as stuck, in virtual time."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from dataclasses import dataclass

import anyio
import pytest
from support.virtual import LoopClock, VirtualLoop, run_virtually

from ourvidz.errors import DeviceFailed
from ourvidz.service.device_watch import DeviceWatch
from scheduler.types import Lease, Phase

STALL, FACTOR = 60.0, 20.0
RUN = Lease(1, "job", 0)
QUICK = Phase("denoise", ("unet",), 1, seconds=10.0, steps=100)
# Ten seconds a step, eleven at the slow end.
HEAVY = Phase("decode", ("vae",), 1, seconds=60.0, steps=6, seconds_p90=66.0)


@dataclass
class Found:
    """When the watch gave up, and why; ``None`` if it did not within an hour."""

    at: float | None
    reason: str


def watch(story: Callable[[DeviceWatch], Awaitable[None]]) -> Found:
    """Watches for an hour what happens in ``story``."""

    async def main() -> Found:
        watch = DeviceWatch(LoopClock(), STALL, FACTOR)
        found = Found(None, "")

        async def keep(tasks: anyio.abc.TaskGroup) -> None:
            failure = await watch.failure()
            found.at, found.reason = round(LoopClock().monotonic(), 3), str(failure)
            tasks.cancel_scope.cancel()

        with anyio.move_on_after(3600):
            async with anyio.create_task_group() as tasks:
                tasks.start_soon(keep, tasks)
                await story(watch)
                await anyio.sleep_forever()
        return found

    found = run_virtually(main)
    assert isinstance(found, Found)
    return found


async def steps(watch: DeviceWatch, lease: Lease, seconds: float, count: int) -> None:
    for _ in range(count):
        await anyio.sleep(seconds)
        watch.stepped(lease)


def test_nothing_under_way_is_no_stall() -> None:
    async def story(watch: DeviceWatch) -> None:
        watch.run_began(RUN, QUICK)
        await steps(watch, RUN, 1, 100)
        watch.run_ended(RUN)
        watch.move_began("unet", 1)
        watch.move_ended("unet")

    assert watch(story).at is None


def test_a_run_that_takes_no_step_any_more_is_one() -> None:
    async def story(watch: DeviceWatch) -> None:
        await anyio.sleep(100)
        watch.run_began(RUN, QUICK)
        await steps(watch, RUN, 59, 3)

    found = watch(story)
    assert found.at == 100 + 3 * 59 + STALL
    assert found.reason == (
        "the device is stuck: a run of job, phase denoise, took no step for 60 s, 60 are allowed"
    )


def test_the_first_step_counts_from_the_runs_beginning() -> None:
    async def story(watch: DeviceWatch) -> None:
        watch.run_began(RUN, None)

    assert watch(story).at == STALL


def test_a_slow_step_of_a_large_model_is_no_stall() -> None:
    """Twenty times what a step is expected to take at the slow end: 220 s."""

    async def story(watch: DeviceWatch) -> None:
        watch.run_began(RUN, HEAVY)
        await steps(watch, RUN, 219, 2)

    assert watch(story).at == 2 * 219 + 220


def test_open_ended_texts_count_the_steps_that_are_expected() -> None:
    phase = Phase("generate", ("m",), 1, seconds=40.0, steps=2048, steps_expected=10)

    async def story(watch: DeviceWatch) -> None:
        watch.run_began(RUN, phase)

    assert watch(story).at == 4 * FACTOR


def test_a_run_that_goes_on_does_not_hide_one_that_hangs() -> None:
    async def story(watch: DeviceWatch) -> None:
        watch.run_began(RUN, QUICK)
        other = Lease(2, "other", 0)
        watch.run_began(other, QUICK)
        await steps(watch, other, 1, 1000)

    found = watch(story)
    assert found.at == STALL
    assert "a run of job" in found.reason


def test_a_move_that_does_not_end_is_a_stall() -> None:
    async def story(watch: DeviceWatch) -> None:
        watch.move_began("transformer", 4.0)

    found = watch(story)
    assert found.at == 4 * FACTOR
    assert "moving transformer did not end for 80 s, 80 are allowed" in found.reason


def test_moves_wait_for_one_another() -> None:
    async def story(watch: DeviceWatch) -> None:
        watch.move_began("first", 1)
        watch.move_began("second", 1)
        await anyio.sleep(50)
        watch.move_ended("first")

    found = watch(story)
    assert found.at == 50 + STALL
    assert "second" in found.reason


def test_a_device_that_is_lost_is_told_at_once() -> None:
    async def story(watch: DeviceWatch) -> None:
        watch.run_began(RUN, QUICK)
        await anyio.sleep(5)
        watch.lost(DeviceFailed("an illegal memory access"))
        watch.lost(DeviceFailed("what came of it"))

    assert watch(story) == Found(5.0, "an illegal memory access")


@pytest.mark.parametrize("hangs", [False, True])
def test_a_process_that_was_suspended_hears_its_device_first(*, hangs: bool) -> None:
    async def story(watch: DeviceWatch) -> None:
        watch.run_began(RUN, QUICK)
        await anyio.sleep(10)
        suspend(600)
        await anyio.sleep(10)
        if not hangs:
            await steps(watch, RUN, 10, 1000)

    assert watch(story).at == (610 + STALL if hangs else None)


def suspend(seconds: float) -> None:
    """Time goes on, and nothing of this process."""
    loop = asyncio.get_running_loop()
    assert isinstance(loop, VirtualLoop)
    loop._jumping.now += seconds
