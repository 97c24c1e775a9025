"""SDXL makes the library's own bits, however it is paused, moved, mixed or loaded."""

import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import diffusers
import numpy as np
import pytest
import torch
from support.states import dump

from pipelines.base import CancelToken, ImageOutput
from pipelines.device import Device
from pipelines.request import ImageRequest
from pipelines.sdxl import SdxlPipeline
from pipelines.state import State, restore

pytestmark = pytest.mark.slow

Build = Callable[..., ImageRequest]
Images = list[np.ndarray]
Run = Callable[..., Images]
Same = Callable[[Images, Images], bool]


@pytest.mark.parametrize(
    "fields",
    [
        {},
        {"images": 3},
        {"negative_prompt": "blurry, cat"},
        {"negative_prompt": "blurry", "images": 2},
        {"guidance_scale": 1.0},
        {"guidance_scale": 0.0, "images": 2},
        {"prompt": ""},
        {"prompt": "long " * 40},
        {"steps": 1},
        {"width": 40, "height": 24},
    ],
    ids=str,
)
def test_text_to_image_is_the_librarys(
    sdxl: SdxlPipeline, library: Any, request_for: Build, run: Run, same: Same, fields: Any
) -> None:
    request = request_for(**fields)
    assert same(run(sdxl, request), library(request))


@pytest.mark.parametrize(
    "fields",
    [
        {"strength": 0.7},
        {"strength": 0.7, "images": 3, "negative_prompt": "blurry"},
        {"strength": 1.0},
        {"strength": 0.4, "guidance_scale": 1.0, "prompt": ""},
    ],
    ids=str,
)
def test_image_to_image_is_the_librarys(
    sdxl: SdxlPipeline,
    library: Any,
    reference_path: Path,
    request_for: Build,
    run: Run,
    same: Same,
    fields: Any,
) -> None:
    request = request_for(image_path=str(reference_path), **fields)
    assert same(run(sdxl, request), library(request))


def test_exact_copy_with_few_steps_runs_one(
    sdxl: SdxlPipeline, library: Any, reference_path: Path, request_for: Build, run: Run, same: Same
) -> None:
    fields = {"image_path": str(reference_path), "guidance_scale": 1.0, "steps": 4}
    exact = request_for(strength=0.05, **fields)
    assert next(p.steps for p in sdxl.plan(exact) if p.name == "denoise") == 1
    # The library refuses less than a step; a quarter of four steps is the same last one.
    assert same(run(sdxl, exact), library(request_for(strength=0.25, **fields)))


def test_image_to_image_no_longer_needs_the_file_once_conditioned(
    sdxl: SdxlPipeline, library: Any, reference_path: Path, tmp_path: Path, request_for: Build
) -> None:
    path = tmp_path / "gone.png"
    shutil.copy(reference_path, path)
    request = request_for(strength=0.7, image_path=str(path))
    state = sdxl.begin(request)
    while state.phase in {"encode", "condition"}:
        sdxl.step(state, CancelToken())
    path.unlink()
    made: list[Any] = []
    while state.phase != "done":
        made += sdxl.step(state, CancelToken())
    theirs = library(request_for(strength=0.7, image_path=str(reference_path)))
    assert np.array_equal(made[0].pixels, theirs[0])


@pytest.mark.parametrize("strength", [None, 0.7])
def test_bitwise_image_does_not_depend_on_the_batch(
    sdxl: SdxlPipeline,
    library: Any,
    reference_path: Path,
    request_for: Build,
    run: Run,
    same: Same,
    strength: float | None,
) -> None:
    fields: dict[str, Any] = {"strength": strength, "bitwise": True}
    if strength is not None:
        fields["image_path"] = str(reference_path)
    together = run(sdxl, request_for(images=3, seed=20, **fields))
    alone = [library(request_for(seed=20 + i, **fields))[0] for i in range(3)]
    assert same(together, alone)


def test_images_of_a_batch_differ_and_repeat(
    sdxl: SdxlPipeline, request_for: Build, run: Run, same: Same
) -> None:
    request = request_for(images=6, width=32, height=32, steps=2)
    images = run(sdxl, request)
    assert len({image.tobytes() for image in images}) == 6
    assert same(images, run(sdxl, request))


@pytest.mark.parametrize("strength", [None, 0.7])
@pytest.mark.parametrize("bitwise", [False, True])
def test_paused_at_every_step_and_written_and_read_back(
    sdxl: SdxlPipeline,
    device: Device,
    reference_path: Path,
    request_for: Build,
    run: Run,
    same: Same,
    strength: float | None,
    bitwise: bool,
) -> None:
    fields: dict[str, Any] = {"images": 2, "strength": strength, "bitwise": bitwise}
    if strength is not None:
        fields["image_path"] = str(reference_path)
    request = request_for(negative_prompt="blurry", **fields)
    paused: list[tuple[str, int]] = []

    def write_and_read(state: State) -> State:
        paused.append((state.phase, state.step))
        return restore(dump(state), device.torch)

    assert same(run(sdxl, request, write_and_read), run(sdxl, request))
    expected = [(plan.name, step) for plan in sdxl.plan(request) for step in range(plan.steps)]
    assert paused == expected


@pytest.mark.parametrize("bitwise", [False, True])
def test_a_copy_taken_before_a_step_is_not_touched_by_it(
    sdxl: SdxlPipeline, request_for: Build, run: Run, same: Same, bitwise: bool
) -> None:
    def step_and_go_back(state: State) -> State:
        before = state.copy()
        sdxl.step(state, CancelToken())
        return before

    request = request_for(images=2, bitwise=bitwise)
    assert same(run(sdxl, request, step_and_go_back), run(sdxl, request))


def test_evicted_with_poison_and_reloaded_between_steps(
    sdxl: SdxlPipeline, library: Any, reference_path: Path, request_for: Build, run: Run, same: Same
) -> None:
    def away_and_back(state: State) -> State:
        for component in sdxl.components.values():
            component.evict()
        for component in sdxl.components.values():
            component.load()
        return state

    for fields in ({}, {"strength": 0.7, "image_path": str(reference_path)}):
        request = request_for(images=2, **fields)
        assert same(run(sdxl, request, away_and_back), library(request))


def test_only_the_phases_own_component_is_needed(
    sdxl_root: Path, open_folder: Any, library: Any, request_for: Build, run: Run, same: Same
) -> None:
    pipeline = open_folder(sdxl_root / "sdxl")
    request = request_for(strength=None)
    needed = {plan.name: plan.components for plan in pipeline.plan(request)}

    def only(state: State) -> State:
        for name, component in pipeline.components.items():
            if name in needed[state.phase] and component.tier == "absent":
                component.stage()
                component.load()
            elif name not in needed[state.phase] and component.tier == "resident":
                component.evict()
                component.unstage()
        return state

    assert same(run(pipeline, request, only), library(request))


def test_two_interleaved_runs_do_not_disturb_each_other(
    sdxl: SdxlPipeline, library: Any, reference_path: Path, request_for: Build, same: Same
) -> None:
    requests = [
        request_for(images=2, steps=4, negative_prompt="blurry"),
        request_for(
            seed=99, steps=5, strength=0.8, image_path=str(reference_path), guidance_scale=1.0
        ),
        request_for(images=2, steps=4, bitwise=True, width=32),
    ]
    states = [sdxl.begin(request) for request in requests]
    made: list[Images] = [[] for _ in requests]
    while any(state.phase != "done" for state in states):
        for state, images in zip(states, made, strict=True):
            if state.phase != "done":
                for output in sdxl.step(state, CancelToken()):
                    assert isinstance(output, ImageOutput)
                    images.append(output.pixels)
    assert same(made[0], library(requests[0]))
    assert same(made[1], library(requests[1]))
    alone = [library(request_for(seed=7 + i, steps=4, width=32))[0] for i in range(2)]
    assert same(made[2], alone)


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_half_precision_latents_are_the_librarys(
    sdxl_root: Path,
    open_folder: Any,
    resident: Any,
    library_of: Any,
    request_for: Build,
    dtype: torch.dtype,
) -> None:
    folder = sdxl_root / "sdxl"
    pipeline = resident(open_folder(folder, dtype=str(dtype).removeprefix("torch.")))
    request = request_for(images=2, width=32, height=32)
    state = pipeline.begin(request)
    while state.phase != "decode":
        pipeline.step(state, CancelToken())
    theirs = library_of(folder, dtype)(request, output_type="latent")
    assert state.tensors["latents"].dtype == dtype
    assert torch.equal(state.tensors["latents"], theirs)
    assert pipeline.components["sdxl.vae"].module.dtype == torch.float32
    (image,) = pipeline.step(state, CancelToken())
    assert image.pixels.shape == (32, 32, 3)


def test_a_load_in_another_thread_may_change_torchs_default_dtype(
    sdxl: SdxlPipeline, reference_path: Path, request_for: Build, run: Run, same: Same
) -> None:
    def another(state: State) -> State:
        torch.set_default_dtype(torch.bfloat16)
        return state

    request = request_for(images=2, strength=0.7, image_path=str(reference_path))
    expected = run(sdxl, request)
    try:
        made = run(sdxl, request, another)
    finally:
        torch.set_default_dtype(torch.float32)
    assert same(made, expected)


@pytest.mark.parametrize(
    "name",
    [
        "DDIMScheduler",
        "DPMSolverMultistepScheduler",
        "EulerAncestralDiscreteScheduler",
        "HeunDiscreteScheduler",
        "UniPCMultistepScheduler",
    ],
)
def test_other_schedulers_carry_their_history_through_a_pause(
    sdxl_root: Path,
    open_folder: Any,
    resident: Any,
    library: Any,
    monkeypatch: pytest.MonkeyPatch,
    device: Device,
    tmp_path: Path,
    reference_path: Path,
    request_for: Build,
    run: Run,
    same: Same,
    name: str,
) -> None:
    folder = tmp_path / "sdxl"
    folder.mkdir()
    for path in (sdxl_root / "sdxl").iterdir():
        if path.name != "scheduler":
            (folder / path.name).symlink_to(path)
    scheduler = getattr(diffusers, name).from_config(library.text.scheduler.config)
    scheduler.save_pretrained(folder / "scheduler")
    for theirs in (library.text, library.image):
        monkeypatch.setattr(theirs, "scheduler", scheduler)
    pipeline = resident(open_folder(folder))

    def written_and_read(state: State) -> State:
        assert state.device_bytes <= pipeline.plan(state.request)[0].state_bytes
        return restore(dump(state), device.torch)

    for fields in ({}, {"strength": 0.7, "image_path": str(reference_path)}):
        request = request_for(images=2, steps=4, **fields)
        assert same(run(pipeline, request, written_and_read), library(request))


def test_one_file_is_the_folder(
    sdxl_root: Path,
    sdxl: SdxlPipeline,
    open_folder: Any,
    resident: Any,
    request_for: Build,
    run: Run,
    same: Same,
) -> None:
    single = resident(open_folder(sdxl_root / "sdxl.safetensors", sdxl_root / "sdxl"))
    for name, component in single.components.items():
        assert component.weight_bytes == sdxl.components[name].weight_bytes
    request = request_for(images=2, negative_prompt="blurry")
    assert same(run(single, request), run(sdxl, request))
