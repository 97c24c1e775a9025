"""Seconds and bytes learned from what such phases and moves took before."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

import anyio
import pytest
from support.learning import GENERATE, HARDWARE, IMAGES, PHASE, TEXT, VIDEO, Memory
from support.turns import turns

from ourvidz.jobs import Work
from ourvidz.service.estimates import Estimates, Hardware
from scheduler.types import Phase, Sharing

DECODE = Phase("decode", ("sdxl.vae",), 100, 5.0, 2)
ENCODE = Phase("encode", ("sdxl.text",), 100, 5.0, 1)


def fresh(memory: Memory | None = None, hardware: Hardware = HARDWARE) -> Estimates:
    return Estimates(memory or Memory(), hardware)


def seconds(estimates: Estimates, work: Work, phase: Phase) -> tuple[float, float | None]:
    found = estimates.phase(work, phase)
    return found.seconds, found.seconds_p90


def test_where_nothing_is_known_the_plan_holds() -> None:
    assert fresh().phase(IMAGES, PHASE) == PHASE


def test_a_phase_takes_its_steps_quantiles() -> None:
    estimates = fresh()
    for each in (1.0, 2.0, 3.0, 4.0, 5.0, 6.0, 7.0, 8.0, 9.0, 10.0):
        estimates.ran(IMAGES, PHASE, 4, 4 * each)
    assert seconds(estimates, IMAGES, PHASE) == (50.0, 90.0)
    assert seconds(estimates, IMAGES, replace(PHASE, steps=2)) == (10.0, 18.0)
    assert seconds(estimates, IMAGES, replace(PHASE, steps=0)) == (5.0, 9.0)


SAME: list[tuple[Phase, Work, Work]] = [
    (PHASE, IMAGES, replace(IMAGES, prompt="b", seed=2, steps=30, strength=0.5)),
    (DECODE, IMAGES, replace(IMAGES, images=4)),
    (ENCODE, IMAGES, replace(IMAGES, width=128, images=4)),
    (ENCODE, VIDEO, replace(VIDEO, width=128, frames=81)),
    (GENERATE, TEXT, replace(TEXT, max_tokens=7, temperature=1.0)),
]


@pytest.mark.parametrize(("phase", "seen", "asked"), SAME)
def test_steps_that_do_the_same_are_told_to_take_the_same(
    phase: Phase, seen: Work, asked: Work
) -> None:
    estimates = fresh()
    estimates.ran(seen, phase, 1, 3.0)
    assert seconds(estimates, asked, replace(phase, steps=2)) == (6.0, 6.0)


PROPORTIONAL: list[tuple[Phase, Work, Work, float]] = [
    (PHASE, IMAGES, replace(IMAGES, images=6), 3.0),
    (PHASE, IMAGES, replace(IMAGES, width=128, height=128), 4.0),
    (PHASE, IMAGES, replace(IMAGES, reproducible=True), 0.5),
    (DECODE, IMAGES, replace(IMAGES, width=32), 0.5),
    (PHASE, VIDEO, replace(VIDEO, frames=10), 2.0),
    (DECODE, VIDEO, replace(VIDEO, frames=10, height=64), 2.0),
]


@pytest.mark.parametrize(("phase", "seen", "asked", "factor"), PROPORTIONAL)
def test_a_size_that_was_never_seen_follows_from_others_until_it_is(
    phase: Phase, seen: Work, asked: Work, factor: float
) -> None:
    estimates, phase = fresh(), replace(phase, steps=1)
    estimates.ran(seen, phase, 1, 3.0)
    assert seconds(estimates, asked, phase)[0] == pytest.approx(3.0 * factor)
    estimates.ran(asked, phase, 1, 100.0)
    assert seconds(estimates, asked, phase)[0] == pytest.approx(100.0)
    assert seconds(estimates, seen, phase)[0] == pytest.approx(3.0)


OTHERS: list[tuple[str, Phase, Work]] = [
    ("another phase", replace(PHASE, name="decode"), IMAGES),
    ("another model", replace(PHASE, components=("sdxl2.unet",)), IMAGES),
    ("without guidance", PHASE, replace(IMAGES, guidance_scale=1.0)),
    ("a video", PHASE, VIDEO),
    ("a video with references", PHASE, replace(VIDEO, mode="both")),
    ("a text", PHASE, TEXT),
]


@pytest.mark.parametrize(("phase", "work"), [o[1:] for o in OTHERS], ids=[o[0] for o in OTHERS])
def test_other_kinds_of_steps_say_nothing(phase: Phase, work: Work) -> None:
    estimates = fresh()
    for kind in (IMAGES, VIDEO):
        if kind is not work:
            estimates.ran(kind, PHASE, 1, 3.0)
    assert seconds(estimates, work, phase) == (5.0, None)


CHANGES: list[tuple[str, Hardware]] = [
    ("format", replace(HARDWARE, formats={**HARDWARE.formats, "sdxl": "float32"})),
    ("checkpoint", replace(HARDWARE, weights={**HARDWARE.weights, "sdxl.unet": 5_001})),
    ("versions", replace(HARDWARE, versions="torch 3, card")),
]


@pytest.mark.anyio
@pytest.mark.parametrize("hardware", [c[1] for c in CHANGES], ids=[c[0] for c in CHANGES])
async def test_another_model_or_version_starts_anew(hardware: Hardware) -> None:
    memory = Memory()
    before = fresh(memory)
    before.ran(IMAGES, PHASE, 1, 3.0)
    before.loaded("sdxl.unet", 3.0)
    await before.flush()
    after, again = fresh(memory, hardware), fresh(memory)
    await after.recall()
    await again.recall()
    assert seconds(after, IMAGES, PHASE) == (5.0, None)
    assert after.load_seconds("sdxl.unet") is None
    assert seconds(again, IMAGES, PHASE) == (30.0, 30.0)


def test_a_text_is_as_long_as_texts_were_but_not_longer_than_it_may_be() -> None:
    estimates = fresh()
    estimates.ran(TEXT, GENERATE, 10, 1.0)
    assert seconds(estimates, TEXT, GENERATE)[0] == pytest.approx(10.0)
    for length in (20, 20, 30, 30, 80):
        estimates.ended(TEXT, GENERATE, length)
    assert seconds(estimates, TEXT, GENERATE) == pytest.approx((3.0, 8.0))
    assert estimates.phase(TEXT, GENERATE).steps_expected == 30
    assert estimates.phase(TEXT, GENERATE).steps == GENERATE.steps
    assert seconds(estimates, TEXT, replace(GENERATE, steps=25)) == pytest.approx((2.5, 2.5))
    enhance = replace(TEXT, purpose="enhance")
    assert seconds(estimates, enhance, GENERATE)[0] == pytest.approx(10.0)


def test_pictures_have_the_steps_that_they_ask_for() -> None:
    estimates = fresh()
    assert estimates.phase(IMAGES, PHASE).steps_expected is None
    estimates.ran(IMAGES, PHASE, 10, 10.0)
    estimates.ended(IMAGES, PHASE, 10)
    assert seconds(estimates, IMAGES, replace(PHASE, steps=40))[0] == pytest.approx(40.0)


def test_working_bytes_are_raised_to_what_was_seen_and_never_lowered() -> None:
    estimates = fresh()

    def reserved(work: Work = IMAGES, planned: Phase = PHASE) -> int:
        return estimates.phase(work, planned).working_bytes

    for peak, expected in ((40, 100), (130, 130), (120, 130), (131, 131), (10, 131)):
        estimates.peaked(IMAGES, PHASE, peak)
        assert reserved() == expected
    assert reserved(planned=replace(PHASE, working_bytes=200)) == 231
    assert reserved(replace(IMAGES, width=128)) == 100
    estimates.peaked(IMAGES, PHASE, 10**9)
    assert reserved() == 1_000, "the device has no more beside the weights"
    assert reserved(planned=replace(PHASE, working_bytes=5_000)) == 5_000


def test_moves_are_learned_by_component() -> None:
    estimates = fresh()
    assert estimates.load_seconds("sdxl.unet") is None
    for each in range(1, 11):
        estimates.loaded("sdxl.unet", each)
        estimates.staged("sdxl.unet", 10 * each)
    assert estimates.load_seconds("sdxl.unet") == (5, 9)
    assert estimates.stage_seconds("sdxl.unet") == (50, 90)
    assert estimates.load_seconds("sdxl.vae") is None


LEARN: list[Callable[[Estimates], None]] = [
    lambda e: e.ran(IMAGES, PHASE, 1, 3.0),
    lambda e: e.ended(TEXT, GENERATE, 3),
    lambda e: e.peaked(IMAGES, PHASE, 101),
    lambda e: e.staged("sdxl.unet", 3.0),
    lambda e: e.loaded("sdxl.unet", 3.0),
]


@pytest.mark.anyio
@pytest.mark.parametrize("learn", LEARN)
async def test_whatever_is_learned_is_written_down_at_once(
    learn: Callable[[Estimates], None],
) -> None:
    memory = Memory()
    estimates = fresh(memory)
    async with anyio.create_task_group() as tasks:
        tasks.start_soon(estimates.keep)
        await turns()
        assert memory.saves == 0
        learn(estimates)
        await turns()
        assert memory.kept[HARDWARE.versions]
        saves = memory.saves
        await turns()
        assert memory.saves == saves
        tasks.cancel_scope.cancel()


@pytest.mark.anyio
async def test_what_cannot_be_written_harms_nobody_and_is_written_with_the_next() -> None:
    memory = Memory()
    estimates = fresh(memory)
    memory.broken = True
    estimates.loaded("sdxl.unet", 3.0)
    await estimates.flush()
    memory.broken = False
    estimates.loaded("sdxl.vae", 4.0)
    await estimates.flush()
    again = fresh(memory)
    await again.recall()
    assert again.load_seconds("sdxl.unet") == (3.0, 3.0)
    assert again.load_seconds("sdxl.vae") == (4.0, 4.0)


@pytest.mark.anyio
async def test_no_prompt_is_written_down() -> None:
    memory = Memory()
    estimates = fresh(memory)
    for learn in LEARN:
        learn(estimates)
    await estimates.flush()
    assert "secret" not in repr(memory.kept)


SHARED = replace(GENERATE, sharing=Sharing("text", 1, 8, 0.15, mid_phase=True))


def exponent(estimates: Estimates, work: Work = TEXT, phase: Phase = SHARED) -> float:
    sharing = estimates.phase(work, phase).sharing
    assert sharing is not None
    assert replace(sharing, exponent=0.15) == phase.sharing
    return sharing.exponent


def test_how_much_slower_shared_steps_are_is_learned_once_it_was_seen_three_times() -> None:
    estimates = fresh()
    estimates.ran(TEXT, SHARED, 10, 10.0)
    for expected, step_seconds in ((0.15, 2.0), (0.15, 4.0), (0.5, 2.0), (0.5, 1.0)):
        estimates.shared(TEXT, SHARED, 4, step_seconds)
        assert exponent(estimates) == pytest.approx(expected)
    assert exponent(estimates, replace(TEXT, purpose="enhance")) == pytest.approx(0.5)


@pytest.mark.parametrize(("step_seconds", "learned"), [(0.5, 0.0), (8.0, 1.0), (0.0, 0.15)])
def test_sharing_is_never_held_for_quicker_than_one_or_slower_than_one_by_one(
    step_seconds: float, learned: float
) -> None:
    estimates = fresh()
    estimates.ran(TEXT, SHARED, 10, 10.0)
    for _ in range(3):
        estimates.shared(TEXT, SHARED, 4, step_seconds)
    assert exponent(estimates) == learned


def test_units_count_against_the_phases_own() -> None:
    sharing = Sharing("image", 2, 8, 0.9, mid_phase=False)
    estimates, phase = fresh(), replace(PHASE, sharing=sharing)
    estimates.ran(IMAGES, phase, 10, 10.0)
    for _ in range(3):
        estimates.shared(IMAGES, phase, 8, 2.0)
    found = estimates.phase(IMAGES, phase).sharing
    assert found is not None
    assert found.exponent == pytest.approx(0.5)


def test_nothing_is_learned_of_sharing_where_a_step_alone_is_not_known() -> None:
    estimates = fresh()
    for _ in range(3):
        estimates.shared(TEXT, SHARED, 4, 2.0)
        estimates.shared(TEXT, GENERATE, 4, 2.0)
    assert exponent(estimates) == 0.15
    assert estimates.phase(TEXT, GENERATE).sharing is None
