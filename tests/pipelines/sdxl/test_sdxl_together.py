"""Images of several requests denoised together: each run as if alone, however it goes on."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

import diffusers
import numpy as np
import pytest
import torch
from support.states import dump

from pipelines.base import CancelToken, Sharing
from pipelines.device import Device
from pipelines.request import ImageRequest
from pipelines.sdxl import SdxlPipeline
from pipelines.state import State, restore

pytestmark = pytest.mark.slow

Build = Callable[..., ImageRequest]
STEPS = 4


@pytest.fixture
def requests(request_for: Build) -> list[ImageRequest]:
    """Three of one size and schedule: one, two and three images, with and without negatives."""
    alike = {"steps": STEPS, "shareable": True}
    return [
        request_for(seed=7, negative_prompt="blurry", **alike),
        request_for(seed=70, prompt="a harbour", images=2, **alike),
        request_for(seed=700, prompt="", negative_prompt="a cat", images=3, **alike),
    ]


def at_denoise(pipeline: SdxlPipeline, request: ImageRequest, steps: int = 0) -> State:
    """Taken there alone, and ``steps`` further."""
    state = pipeline.begin(request)
    while state.phase != "denoise":
        pipeline.step(state, CancelToken())
    for _ in range(steps):
        pipeline.step(state, CancelToken())
    return state


def step(pipeline: SdxlPipeline, *states: State) -> None:
    bounds = [pipeline.plan(state.request)[0].state_bytes for state in states]
    tokens = [CancelToken() for _ in states]
    assert pipeline.step_together(states, tokens) == [()] * len(states)
    assert all(s.device_bytes <= bound for s, bound in zip(states, bounds, strict=True))


def pixels(pipeline: SdxlPipeline, state: State) -> np.ndarray:
    made: list[Any] = []
    while state.phase != "done":
        made += pipeline.step(state, CancelToken())
    return np.stack([output.pixels for output in made])


def close(state: State, other: State) -> None:
    """The same run, but for the last bits of what the UNet computed."""
    assert (state.phase, state.step, state.values) == (other.phase, other.step, other.values)
    assert state.tensors.keys() == other.tensors.keys()
    for name, tensor in state.tensors.items():
        if name.startswith("rng."):
            assert torch.equal(tensor, other.tensors[name])
        else:
            torch.testing.assert_close(tensor, other.tensors[name], rtol=1e-4, atol=1e-4)
    assert state.device_bytes == other.device_bytes


@contextmanager
def hooked(module: Any, hook: Callable[[], Any]) -> Iterator[None]:
    def before(*_: Any) -> None:
        hook()

    handle = module.register_forward_pre_hook(before)
    try:
        yield
    finally:
        handle.remove()


def unet(pipeline: SdxlPipeline) -> Any:
    return pipeline.components["sdxl.unet"].module


@pytest.mark.parametrize("guidance", [5.0, 1.0])
def test_together_each_is_as_if_alone(
    sdxl: SdxlPipeline, requests: list[ImageRequest], guidance: float
) -> None:
    requests = [replace(request, guidance_scale=guidance) for request in requests]
    states = [at_denoise(sdxl, request) for request in requests]
    alone = [at_denoise(sdxl, request) for request in requests]
    while states[0].phase == "denoise":
        step(sdxl, *states)
        for state, other in zip(states, alone, strict=True):
            sdxl.step(other, CancelToken())
            close(state, other)
    for state, other in zip(states, alone, strict=True):
        difference = pixels(sdxl, state).astype(int) - pixels(sdxl, other)
        assert abs(difference).max() <= 1


@pytest.mark.parametrize(
    ("name", "guidance", "changes"),
    [
        ("EulerAncestralDiscreteScheduler", 5.0, {}),
        ("UniPCMultistepScheduler", 5.0, {}),
        # keeps the UNet's own output in its history
        ("UniPCMultistepScheduler", 1.0, {"prediction_type": "sample"}),
    ],
)
def test_every_run_has_its_own_history_and_noise(
    sdxl_root: Path,
    open_folder: Any,
    resident: Any,
    library: Any,
    tmp_path: Path,
    requests: list[ImageRequest],
    name: str,
    guidance: float,
    changes: dict[str, Any],
) -> None:
    folder = tmp_path / "sdxl"
    folder.mkdir()
    for path in (sdxl_root / "sdxl").iterdir():
        if path.name != "scheduler":
            (folder / path.name).symlink_to(path)
    requests = [replace(request, guidance_scale=guidance) for request in requests]
    scheduler = getattr(diffusers, name).from_config(library.text.scheduler.config, **changes)
    scheduler.save_pretrained(folder / "scheduler")
    pipeline = resident(open_folder(folder))
    states = [at_denoise(pipeline, request) for request in requests]
    alone = [at_denoise(pipeline, request) for request in requests]
    for _ in range(STEPS - 1):
        step(pipeline, *states)
        for state, other in zip(states, alone, strict=True):
            pipeline.step(other, CancelToken())
            close(state, other)


def test_the_unet_is_gone_through_once(sdxl: SdxlPipeline, requests: list[ImageRequest]) -> None:
    states, seen = [at_denoise(sdxl, request) for request in requests], []
    with hooked(unet(sdxl), lambda: seen.append(1)):
        step(sdxl, *states)
    assert len(seen) == 1


def test_a_run_may_leave_at_any_step_and_go_on_alone(
    sdxl: SdxlPipeline, device: Device, requests: list[ImageRequest]
) -> None:
    """Written down, with the weights gone meanwhile; the others go on and it joins them again."""
    ends = [at_denoise(sdxl, request, STEPS) for request in requests]
    for leaver in range(len(requests)):
        states = [at_denoise(sdxl, request) for request in requests]
        step(sdxl, *states)
        written = dump(states[leaver])
        sdxl.components["sdxl.unet"].evict()
        sdxl.components["sdxl.unet"].load()
        states[leaver] = restore(written, device.torch)
        step(sdxl, *(state for i, state in enumerate(states) if i != leaver))
        sdxl.step(states[leaver], CancelToken())
        while states[0].phase == "denoise":
            step(sdxl, *states)
        for state, end in zip(states, ends, strict=True):
            close(state, end)


def test_one_run_gets_the_bits_of_a_step(sdxl: SdxlPipeline, requests: list[ImageRequest]) -> None:
    for request in requests:
        state, other = at_denoise(sdxl, request), at_denoise(sdxl, request)
        step(sdxl, state)
        sdxl.step(other, CancelToken())
        assert torch.equal(state.tensors["latents"], other.tensors["latents"])


def test_phases_that_run_alone_are_taken_one_by_one(
    sdxl: SdxlPipeline, requests: list[ImageRequest]
) -> None:
    state, token = sdxl.begin(requests[0]), CancelToken()
    made: list[Any] = []
    while state.phase != "done":
        (outputs,) = sdxl.step_together([state], [token])
        assert outputs is not None
        made += outputs
    assert len(made) == 1
    token.cancel()
    assert sdxl.step_together([sdxl.begin(requests[0])], [token]) == [None]


def test_cancelled_before_a_step(sdxl: SdxlPipeline, requests: list[ImageRequest]) -> None:
    states = [at_denoise(sdxl, request) for request in requests]
    tokens = [CancelToken() for _ in states]
    tokens[1].cancel()
    rows: list[int] = []
    handle = unet(sdxl).mid_block.register_forward_pre_hook(
        lambda _, args: rows.append(len(args[0]))
    )
    assert sdxl.step_together(states, tokens) == [(), None, ()]
    handle.remove()
    assert rows == [2 * (1 + 3)]
    for i in (0, 2):
        close(states[i], at_denoise(sdxl, requests[i], steps=1))


def test_cancelled_inside_a_step_the_others_take_theirs(
    sdxl: SdxlPipeline, requests: list[ImageRequest]
) -> None:
    states = [at_denoise(sdxl, request, steps=1) for request in requests]
    tokens = [CancelToken() for _ in states]
    with hooked(unet(sdxl).mid_block, tokens[0].cancel):
        assert sdxl.step_together(states, tokens) == [None, (), ()]
    for i in (1, 2):
        close(states[i], at_denoise(sdxl, requests[i], steps=2))


def test_a_step_ends_inside_once_all_are_cancelled(
    sdxl: SdxlPipeline, requests: list[ImageRequest]
) -> None:
    states = [at_denoise(sdxl, request) for request in requests]
    tokens, seen = [CancelToken() for _ in states], []
    with (
        hooked(unet(sdxl).down_blocks[0], lambda: [token.cancel() for token in tokens]),
        hooked(unet(sdxl).up_blocks[-1].resnets[-1], lambda: seen.append(1)),
    ):
        assert sdxl.step_together(states, tokens) == [None] * 3
        assert sdxl.step_together(states, tokens) == [None] * 3
    assert seen == []


class Broken(Exception):
    pass


def broken(*_: Any, **__: Any) -> None:
    raise Broken


@pytest.mark.parametrize("steps", [0, 2])
@pytest.mark.parametrize("where", ["unet", "second scheduler"])
def test_an_error_leaves_every_run_as_it_was(
    sdxl: SdxlPipeline,
    requests: list[ImageRequest],
    monkeypatch: pytest.MonkeyPatch,
    steps: int,
    where: str,
) -> None:
    states = [at_denoise(sdxl, request, steps) for request in requests]
    before = [state.copy() for state in states]
    if where == "unet":
        with hooked(unet(sdxl).mid_block, broken), pytest.raises(Broken):
            step(sdxl, *states)
    else:
        real, calls = diffusers.EulerDiscreteScheduler.step, []

        def second_breaks(*args: Any, **kwargs: Any) -> Any:
            calls.append(1)
            return broken() if len(calls) == 2 else real(*args, **kwargs)

        with monkeypatch.context() as patch:
            patch.setattr(diffusers.EulerDiscreteScheduler, "step", second_breaks)
            with pytest.raises(Broken):
                step(sdxl, *states)
    assert states == before
    step(sdxl, *states)
    for state, request in zip(states, requests, strict=True):
        close(state, at_denoise(sdxl, request, steps + 1))


def sharing(pipeline: SdxlPipeline, request: ImageRequest) -> Sharing | None:
    plans = {plan.name: plan.sharing for plan in pipeline.plan(request)}
    found = plans.pop("denoise")
    assert set(plans.values()) == {None}
    return found


def test_who_may_share_is_said_in_the_plan(
    sdxl: SdxlPipeline, request_for: Build, reference_path: Path
) -> None:
    alike = {"width": 64, "height": 48, "steps": 30, "shareable": True}
    expected = Sharing("sdxl.denoise.64x48.s30.g7.0", 2, 6, 0.92, mid_phase=False)
    assert sharing(sdxl, request_for(images=2, guidance_scale=7.0, **alike)) == expected
    assert sharing(sdxl, request_for(images=2, guidance_scale=7, **alike)) == expected
    for fields in (
        {"shareable": False},
        {"bitwise": True},
        {"strength": 0.5, "image_path": str(reference_path)},
        {"images": 6},
    ):
        assert sharing(sdxl, request_for(**(alike | fields))) is None


@pytest.mark.parametrize(
    "other",
    [
        {"width": 32},
        {"steps": STEPS + 1},
        {"guidance_scale": 1.0},
        {"shareable": False},
        {"bitwise": True},
    ],
    ids=str,
)
def test_what_differs_is_not_taken_together(
    sdxl: SdxlPipeline, request_for: Build, other: dict[str, Any]
) -> None:
    alike: dict[str, Any] = {"steps": STEPS, "shareable": True}
    states = [at_denoise(sdxl, request_for(**(alike | fields))) for fields in ({}, other)]
    with pytest.raises(ValueError, match="sdxl: cannot be taken together: step 0 of"):
        sdxl.step_together(states, [CancelToken(), CancelToken()])


def test_neither_another_step_nor_another_phase_is_taken_together(
    sdxl: SdxlPipeline, requests: list[ImageRequest]
) -> None:
    early, late = at_denoise(sdxl, requests[0]), at_denoise(sdxl, requests[1], steps=1)
    for other in (late, sdxl.begin(requests[1])):
        with pytest.raises(ValueError, match="cannot be taken together"):
            sdxl.step_together([early, other], [CancelToken(), CancelToken()])
