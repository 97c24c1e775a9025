"""A device that hangs, or is lost: the service goes down, and the next one loses nothing."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import anyio
import pytest
from support.house import LIMIT_SECONDS, House, OpenHouse, job_id, payload
from support.stage import Hold, StagedStore, SteppedDevice
from support.turns import turns

from ourvidz.adapters.clock import SystemClock
from ourvidz.adapters.receiver import Receiver
from ourvidz.cli.exits import device_failure
from ourvidz.errors import DeviceFailed
from ourvidz.service.estimates import Estimates

pytestmark = [pytest.mark.anyio, pytest.mark.slow]

QUIET = {"callback.progress": False}
STALL_SECONDS = 300


class MovedClock(SystemClock):
    """The machine's, and ahead of it."""

    ahead = 0.0

    def monotonic(self) -> float:
        return super().monotonic() + self.ahead


def hanging(device: SteppedDevice) -> Hold:
    """Where it hangs."""
    return device.hold("a", "denoise", 2)


def losing(device: SteppedDevice) -> None:
    device.fail("a", "denoise", 2, DeviceFailed("an illegal memory access was encountered"))


FAILURES = pytest.mark.parametrize(
    ("plant", "reason"), [(hanging, "took no step"), (losing, "illegal memory access")]
)


async def until_it_fails(
    open_house: OpenHouse, device: SteppedDevice, story: Any, hangs: Hold | None = None
) -> str:
    """The house's service fails while ``story`` waits; returns why. Once the device ``hangs``, so
    much time goes by that it is noticed."""
    clock = MovedClock()

    async def live() -> None:
        async with open_house(
            device, clock=clock, **QUIET, **{"device.stall_seconds": STALL_SECONDS}
        ) as house:
            await story(house)
            if hangs is None:
                await anyio.sleep_forever()
            await hangs.reached()
            while True:  # a jump that this loop itself came late for is forgiven
                clock.ahead += STALL_SECONDS
                house.service.watch._changed.notify()
                await turns()

    with anyio.fail_after(LIMIT_SECONDS), pytest.raises(ExceptionGroup) as raised:
        await live()
    failure = device_failure(raised.value)
    assert failure is not None, "nothing else went wrong"
    return str(failure)


@FAILURES
async def test_what_ran_and_what_waited_is_run_by_the_next_process(
    open_house: OpenHouse, receiver: Receiver, plant: Any, reason: str
) -> None:
    device = SteppedDevice()
    hangs = plant(device)
    houses: list[House] = []

    async def story(house: House) -> None:
        houses.append(house)
        await house.push("sdxl_queue", payload("a", seed=5))
        await house.push("wan_queue", payload("w", "wan_generate"))

    assert reason in await until_it_fails(open_house, device, story, hangs)
    assert houses[0].service.ending.is_set()
    health = houses[0].service.health()
    assert (health["status"], health["alarms"]) == ("draining", ["device_failed"])
    assert receiver.callbacks == (), "nobody is told of a failure that the job is not to blame for"
    async with open_house(**QUIET) as house:
        bodies = [await house.ended(name) for name in "aw"]
        await house.quiet()
        assert [body["status"] for body in bodies] == ["completed"] * 2
        job = await house.job("a")
        assert job is not None
        assert job["metrics"]["attempts"] == 2, "the run that was cut off counts"
        assert [len(house.terminal(job_id(name))) for name in "aw"] == [1, 1]


async def test_a_job_that_takes_the_device_down_each_time_is_given_up(
    open_house: OpenHouse,
) -> None:
    async def story(house: House) -> None:
        pass

    async def first(house: House) -> None:
        await house.push("sdxl_queue", payload("a"))

    for start in (first, story, story):
        device = SteppedDevice()
        losing(device)
        await until_it_fails(open_house, device, start)
    device = SteppedDevice()
    losing(device)
    async with open_house(device, **QUIET) as house:
        body = await house.ended("a")
        await house.quiet()
        assert body["status"] == "failed"
        assert "3 runs were cut off" in body["error_message"]
        assert await house.dead_letters() == ["its runs were cut off"]
        assert (await house.run("other"))["status"] == "completed"


@FAILURES
async def test_what_was_rendered_is_delivered_by_the_next_process(
    open_house: OpenHouse, tmp_path: Path, plant: Any, reason: str
) -> None:
    """Without another run."""
    device = SteppedDevice()
    hangs = plant(device)
    hold = Hold()

    async def story(house: House) -> None:
        store = StagedStore(house.root / "store")
        store.before_put = lambda _: hold.wait()
        house.service.delivery.uploads.store = store
        await house.push("wan_queue", payload("rendered", "wan_generate"))
        await hold.reached()
        await house.rendered("rendered")
        await house.push("sdxl_queue", payload("a"))

    assert reason in await until_it_fails(open_house, device, story, hangs)
    async with open_house(**QUIET) as house:
        assert (await house.ended("rendered"))["status"] == "completed"
        assert (await house.ended("a"))["status"] == "completed"
        await house.quiet()
        assert house.starts("rendered") == 0


async def test_a_move_that_hangs_is_a_stall(open_house: OpenHouse) -> None:
    hangs = Hold()

    class Stuck(SteppedDevice):
        async def move_pace(self, component: str, aborted: anyio.Event) -> None:
            if component == "sdxl.unet":
                await hangs.wait()

    async def story(house: House) -> None:
        await house.push("sdxl_queue", payload("a"))

    assert "moving sdxl.unet did not end" in await until_it_fails(open_house, Stuck(), story, hangs)
    async with open_house() as house:
        assert (await house.ended("a"))["status"] == "completed"
        await house.quiet()


async def test_steps_keep_a_long_run_from_being_a_stall(open_house: OpenHouse) -> None:
    device, clock = SteppedDevice(), MovedClock()
    holds = [device.hold("a", "denoise", step) for step in (1, 2, 3)]
    limit = STALL_SECONDS
    async with open_house(device, clock=clock, **QUIET, **{"device.stall_seconds": limit}) as house:
        await house.push("sdxl_queue", payload("a"))
        for hold in holds:
            await hold.reached()
            clock.ahead += 0.9 * limit
            (watched,) = house.service.watch._watched.values()
            assert 0 < watched.due - clock.monotonic() < 0.2 * limit
            hold.release()
        assert (await house.ended("a"))["status"] == "completed"
        await house.quiet()


async def test_what_was_learned_is_written_down_first(
    open_house: OpenHouse, monkeypatch: pytest.MonkeyPatch
) -> None:
    device = SteppedDevice()
    hangs = hanging(device)

    async def later(self: Estimates) -> None:
        await anyio.sleep_forever()

    async def story(house: House) -> None:
        house.service.estimates.staged("wan.vae", 7.0)
        await house.push("sdxl_queue", payload("a"))

    monkeypatch.setattr(Estimates, "keep", later)
    await until_it_fails(open_house, device, story, hangs)
    async with open_house(**QUIET) as house:
        learned = house.service.estimates.stage_seconds("wan.vae")
        assert learned is not None
        assert learned[1] == 7.0
        await house.ended("a")
        await house.quiet()
