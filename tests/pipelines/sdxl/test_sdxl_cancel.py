"""An SDXL run stops inside a step, in every phase, and leaves no trace in the next one."""

import threading
import weakref
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from pipelines.base import CancelToken, RunCancelled
from pipelines.request import ImageRequest
from pipelines.sdxl import SdxlPipeline

pytestmark = pytest.mark.slow

Build = Callable[..., ImageRequest]
COMPONENT = {
    "encode": "sdxl.text_encoders",
    "condition": "sdxl.vae",
    "denoise": "sdxl.unet",
    "decode": "sdxl.vae",
}


@pytest.fixture
def img2img(request_for: Build, reference_path: Path) -> ImageRequest:
    return request_for(images=2, strength=0.7, image_path=str(reference_path))


def leaves(pipeline: SdxlPipeline, phase: str) -> list[torch.nn.Module]:
    module = pipeline.components[COMPONENT[phase]].module
    return [m for m in module.modules() if not list(m.children())]


@pytest.mark.parametrize("share", [0.0, 0.3, 0.6, 0.9])
@pytest.mark.parametrize("phase", ["encode", "condition", "denoise", "decode"])
def test_a_cancel_inside_a_step_stops_it_there(
    sdxl: SdxlPipeline, img2img: ImageRequest, run: Any, phase: str, share: float
) -> None:
    expected = run(sdxl, img2img)
    state, token = sdxl.begin(img2img), CancelToken()
    while state.phase != phase:
        sdxl.step(state, CancelToken())
    if phase in {"denoise", "decode"}:
        sdxl.step(state, CancelToken())
    calls = {"whole": 0, "seen": 0, "after": 0}

    def count(*_: object) -> None:
        calls["seen"] += 1
        calls["after"] += token.cancelled
        if calls["whole"] and calls["seen"] == int(calls["whole"] * share) + 1:
            token.cancel()

    handles = [leaf.register_forward_hook(count) for leaf in leaves(sdxl, phase)]
    try:
        rehearsal = sdxl.begin(img2img)
        while rehearsal.phase != phase:
            sdxl.step(rehearsal, CancelToken())
        calls["seen"] = 0
        sdxl.step(rehearsal, CancelToken())
        calls.update(whole=calls["seen"], seen=0)
        with pytest.raises(RunCancelled):
            sdxl.step(state, token)
    finally:
        for handle in handles:
            handle.remove()
    # A block's own few layers may still run; the rest of the step does not.
    assert calls["after"] <= max(0.1 * calls["whole"], 12)
    again = run(sdxl, img2img)
    assert all(map(np.array_equal, again, expected))


def test_a_cancel_before_a_step_runs_nothing(sdxl: SdxlPipeline, request_for: Build) -> None:
    state, token = sdxl.begin(request_for()), CancelToken()
    token.cancel()
    ran: list[int] = []
    module = sdxl.components["sdxl.text_encoders"].module
    handles = [m.register_forward_hook(lambda *_: ran.append(1)) for m in module.modules()]
    with pytest.raises(RunCancelled):
        sdxl.step(state, token)
    for handle in handles:
        handle.remove()
    assert ran == []


def test_a_cancelled_step_frees_its_activations(sdxl: SdxlPipeline, request_for: Build) -> None:
    state, token = sdxl.begin(request_for()), CancelToken()
    sdxl.step(state, CancelToken())
    activations: list[weakref.ref[torch.Tensor]] = []

    def at_the_middle(_module: object, _args: object, output: torch.Tensor) -> None:
        activations.append(weakref.ref(output))
        token.cancel()

    middle = sdxl.components["sdxl.unet"].module.mid_block.resnets[0]
    handle = middle.register_forward_hook(at_the_middle)
    with pytest.raises(RunCancelled) as caught:
        sdxl.step(state, token)
    handle.remove()
    assert caught.value.__traceback__ is not None
    assert [ref() for ref in activations] == [None]


def test_counting_tokens_meanwhile_does_not_disturb_encoding(
    sdxl: SdxlPipeline, request_for: Build
) -> None:
    request = request_for(prompt="a " * 30)
    stop = threading.Event()
    failures: list[BaseException] = []

    def count() -> None:
        while not stop.is_set():
            try:
                sdxl.warnings(request_for(prompt="many words " * 30))
            # "Already borrowed" is what the tokenizer's Rust side says to two threads at once.
            except RuntimeError as error:
                failures.append(error)
                return

    def embeds() -> torch.Tensor:
        state = sdxl.begin(request)
        sdxl.step(state, CancelToken())
        return state.tensors["embeds"]

    expected = embeds()
    thread = threading.Thread(target=count)
    thread.start()
    try:
        made = [embeds() for _ in range(20)]
    finally:
        stop.set()
        thread.join()
    assert failures == []
    assert all(torch.equal(found, expected) for found in made)
