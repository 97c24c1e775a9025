"""A video whose run is written down after any denoising step is the same in another process."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from support.states import dump

from pipelines.base import CancelToken, Pipeline, VideoOutput
from pipelines.build import build_facts, model_facts
from pipelines.device import Device
from pipelines.request import VideoRequest
from pipelines.state import State, build_of, restore

pytestmark = pytest.mark.slow

Ask = Callable[..., VideoRequest]
KINDS: dict[str, tuple[str, dict[str, Any]]] = {
    "text-to-video": ("wan-t2v", {}),
    "image-to-video": ("first frame", {"mode": "start"}),
    "image-to-video, both ends": ("inpainting", {"mode": "both"}),
    "vace": ("wan-vace", {"mode": "both"}),
    "vace, from text": ("wan-vace", {}),
    "vace, one reference": ("wan-vace", {"mode": "single"}),
    "unguided": ("wan-t2v", {"guidance_scale": 1.0}),
}
STEPS = 4


@pytest.fixture
def open_it(
    wan_root: Path, image_root: Path, open_resident: Callable[..., Pipeline]
) -> Callable[[str], Pipeline]:
    """A pipeline of its own with everything resident, as another process would have it."""
    return lambda folder: open_resident(
        (image_root if (image_root / folder).is_dir() else wan_root) / folder
    )


def to_the_end(
    pipeline: Pipeline, state: State, seen: Callable[[State], None] = lambda _: None
) -> np.ndarray:
    outputs: list[Any] = []
    while state.phase != "done":
        phase = state.phase
        outputs += pipeline.step(state, CancelToken())
        if phase == "denoise":
            seen(state)
    (output,) = outputs
    assert isinstance(output, VideoOutput)
    return output.frames


@pytest.mark.parametrize("kind", KINDS)
def test_another_process_ends_with_the_same_bits_from_every_step(
    open_it: Callable[[str], Pipeline], ask: Ask, device: Device, kind: str
) -> None:
    folder, fields = KINDS[kind]
    request = ask(frames=5, steps=STEPS, **fields)
    written: list[bytes] = []
    one = open_it(folder)
    expected = to_the_end(one, one.begin(request), lambda state: written.append(dump(state)))
    assert len(written) == STEPS
    other = open_it(folder)
    for data in written:
        state = restore(data).to(device.torch)
        assert np.array_equal(to_the_end(other, state), expected), (state.phase, state.step)


def test_what_a_step_does_does_not_reach_the_copy(
    open_it: Callable[[str], Pipeline], ask: Ask
) -> None:
    request = ask(frames=5)
    pipeline = open_it("wan-t2v")
    copies: list[tuple[State, bytes]] = []

    def keep(state: State) -> None:
        copy = state.snapshot()
        copies.append((copy, dump(copy)))

    to_the_end(pipeline, pipeline.begin(request), keep)
    assert [dump(copy) == data for copy, data in copies] == [True] * 3


def test_a_build_is_written_beside_the_state(device: Device) -> None:
    state = State(VideoRequest("a", "", 32, 32, 5, 3, 5.0, 5.0, 7), "denoise", 1)
    facts = build_facts(device)
    assert build_of(dump(state, facts)) == facts
    assert {"torch", "diffusers", "pipelines", "device"} <= facts.keys()
    assert build_of(dump(state)) == {}


def test_models_are_told_apart_by_their_files(tmp_path: Path) -> None:
    folder, single = tmp_path / "model", tmp_path / "other.safetensors"
    (folder / "vae").mkdir(parents=True)
    for path in (folder / "vae" / "weights.safetensors", single):
        path.write_bytes(b"1234")
    before = model_facts([folder], "float32")
    assert before == model_facts([folder], "float32")
    assert before != model_facts([folder], "bfloat16")
    assert before != model_facts([folder, single], "float32")
    (folder / "vae" / "weights.safetensors").write_bytes(b"12345")
    assert before != model_facts([folder], "float32")
