"""36-channel checkpoints: the modes that their configuration allows, against the library's call."""

import numpy as np
import pytest
from diffusers import (
    AutoencoderKLWan,
    WanImageToVideoPipeline,
    WanTransformer3DModel,
)
from PIL import Image
from support.image_to_video import KINDS
from support.states import dump
from support.wan_library import library_frames
from transformers import CLIPVisionModel
from transformers.models.clip.image_processing_pil_clip import CLIPImageProcessorPil

from pipelines.base import CancelToken, UnsupportedRequest
from pipelines.registry import ModelConfig, open_pipeline
from pipelines.state import restore

pytestmark = pytest.mark.slow

MODES = {
    "inpainting": ["start", "both"],
    "first frame": ["start"],
    "first and last frame": ["both"],
}


def library(folder, kind, device):
    base = WanImageToVideoPipeline.from_pretrained(
        folder,
        transformer=WanTransformer3DModel.from_pretrained(folder / "transformer"),
        vae=AutoencoderKLWan.from_pretrained(folder / "vae"),
        image_encoder=None,
        image_processor=None,
        local_files_only=True,
    )
    parts = dict(base.components)
    if kind != "inpainting":
        parts["image_encoder"] = CLIPVisionModel.from_pretrained(folder / "image_encoder")
        parts["image_processor"] = CLIPImageProcessorPil.from_pretrained(folder / "image_processor")
    pipe = WanImageToVideoPipeline(**parts).to(device.torch)
    pipe.set_progress_bar_config(disable=True)
    return pipe


@pytest.mark.parametrize("kind", KINDS)
def test_given_frames_are_the_librarys(image_root, open_resident, ask, play, device, aligned, kind):
    pipeline = open_resident(image_root / kind)
    theirs = aligned(library(image_root / kind, kind, device))
    for mode in MODES[kind]:
        request = ask(mode=mode, frames=5, steps=2)
        last = Image.open(request.end_path) if mode == "both" else None
        first = Image.open(request.start_path)
        expected = library_frames(theirs, request, image=first, last_image=last).astype(int)
        tolerance = 0 if device.kind == "cpu" else 2
        made = play(pipeline, request)
        assert np.abs(made - expected).max() <= tolerance
    paused = play(pipeline, request, lambda state: restore(dump(state), device.torch))
    np.testing.assert_array_equal(paused, made)


@pytest.mark.parametrize("kind", KINDS)
def test_other_modes_are_refused(image_root, device, ask, kind):
    config = ModelConfig("wan", "wan", image_root / kind, None, "float32")
    pipeline = open_pipeline(config, device, 1.0)
    served = MODES[kind]
    for mode in {"none", "single", "start", "end", "both"} - set(served):
        with pytest.raises(UnsupportedRequest, match=f"serves {', '.join(served)}$") as refused:
            pipeline.plan(ask(mode=mode))
        assert refused.value.field == "reference_mode"


def test_the_image_encoder_is_a_component_of_the_condition_phase(image_root, device, ask):
    config = ModelConfig("wan", "wan", image_root / "first frame", None, "float32")
    pipeline = open_pipeline(config, device, 1.0)
    plans = {phase.name: phase.components for phase in pipeline.plan(ask(mode="start"))}
    assert plans["condition"] == ("wan.vae", "wan.image_encoder")
    assert plans["decode"] == ("wan.vae",)


def test_an_image_that_is_missing_is_named(image_root, open_resident, ask, tmp_path):
    pipeline = open_resident(image_root / "inpainting")
    request = ask(mode="both", end_path=str(tmp_path / "gone.png"))
    state = pipeline.begin(request)
    pipeline.step(state, CancelToken())
    with pytest.raises(UnsupportedRequest) as refused:
        pipeline.step(state, CancelToken())
    assert refused.value.field == "end_path"
