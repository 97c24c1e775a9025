"""What the fake device says of shared steps: who may take them, and how long they take."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import anyio
import pytest
from support.bench import IMAGES, TEXT, VIDEO, Bench

from ourvidz.adapters.device_fake import FakeDevice
from ourvidz.jobs import Work
from ourvidz.ports import Part
from scheduler import messages as m
from scheduler.types import Fault, Phase, Sharing

pytestmark = pytest.mark.anyio

FREE_TEXT, FREE_IMAGES = replace(TEXT, seeded=False), replace(IMAGES, seeded=False)


async def sharings(device: FakeDevice, work: Work) -> dict[str, Sharing]:
    bench = Bench(device, work)
    planned = await bench.plan()
    bench.end()
    return {phase.name: phase.sharing for phase in planned.phases if phase.sharing is not None}


async def test_texts_and_the_denoising_of_images_can_be_shared() -> None:
    device = FakeDevice(units_max=8, exponent=0.5)
    texts = await sharings(device, FREE_TEXT)
    key = "qwen_instruct.model generate"
    assert texts == {"generate": Sharing(key, 1, 8, 0.5, mid_phase=True)}
    (images,) = (await sharings(device, FREE_IMAGES)).items()
    assert images[0] == "denoise"
    assert (images[1].units, images[1].units_max, images[1].mid_phase) == (2, 8, False)


@pytest.mark.parametrize(
    "work",
    [
        TEXT,
        IMAGES,
        replace(VIDEO, seeded=False),
        replace(FREE_TEXT, reproducible=True),
        replace(FREE_IMAGES, reproducible=True),
    ],
)
async def test_what_is_to_be_repeated_runs_alone(work: Work) -> None:
    assert await sharings(FakeDevice(units_max=8), work) == {}


async def test_nothing_is_shared_unless_a_test_asks_for_it() -> None:
    for work in (FREE_TEXT, FREE_IMAGES):
        assert await sharings(FakeDevice(), work) == {}


async def test_images_share_with_their_like() -> None:
    device = FakeDevice(units_max=8)

    async def key(**changed: Any) -> str:
        return (await sharings(device, replace(FREE_IMAGES, **changed)))["denoise"].key

    usual = await key()
    assert await key(seed=9, prompt="a plum", images=1) == usual
    for changed in ({"width": 128}, {"height": 128}, {"steps": 4}, {"guidance_scale": 6.0}):
        assert await key(**changed) != usual


class Timed(FakeDevice):
    """Takes no time, and remembers what its steps would take."""

    def __init__(self) -> None:
        super().__init__(step_seconds=2.0, units_max=8, exponent=0.5)
        self.seconds: list[float] = []

    async def pace(
        self, part: Part, phase: Phase, step: int, cancelled: anyio.Event
    ) -> Fault | None:
        self.seconds.append(self.step_seconds(part, phase))
        return None


async def test_a_shared_step_takes_as_much_longer_as_the_exponent_says() -> None:
    device = Timed()
    benches = [Bench(device, replace(FREE_TEXT, max_tokens=length)) for length in (1, 1, 1, 2)]
    for bench in benches:
        await bench.begin()
    async with anyio.create_task_group() as tasks:
        for bench in benches:
            tasks.start_soon(device.execute, bench.start(0, run=1, starters=4))
    assert device.seconds == [4.0] * 4 + [2.0]
    for bench in benches:
        bench.end()


async def test_a_defect_in_a_shared_step_fails_all_who_take_it() -> None:
    class Broken(FakeDevice):
        async def pace(self, *_: Any) -> Fault | None:
            raise ValueError("planted")

    device = Broken(units_max=8)
    benches = [Bench(device, FREE_TEXT) for _ in range(2)]
    events: list[m.Event] = []

    async def run(bench: Bench) -> None:
        events.append(await device.execute(bench.start(0, run=1, starters=2)))

    for bench in benches:
        await bench.begin()
    async with anyio.create_task_group() as tasks:
        for bench in benches:
            tasks.start_soon(run, bench)
    assert [event.fault for event in events if isinstance(event, m.RunFailed)] == [Fault.SHARED] * 2
    with pytest.raises(ValueError, match="planted"):
        await device.execute(benches[0].start(0))
    for bench in benches:
        bench.end()
