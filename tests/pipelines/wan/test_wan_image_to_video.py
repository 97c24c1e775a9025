"""36-channel checkpoints: the modes that their configuration allows, against the library's call."""

import json
import shutil

import numpy as np
import pytest
import torch
from diffusers import (
    AutoencoderKLWan,
    UniPCMultistepScheduler,
    WanImageToVideoPipeline,
    WanTransformer3DModel,
)
from PIL import Image
from transformers import CLIPVisionConfig, CLIPVisionModel
from transformers.models.clip.image_processing_pil_clip import CLIPImageProcessorPil

from pipelines.base import CancelToken, UnsupportedRequest
from pipelines.registry import ModelConfig, open_pipeline
from pipelines.state import dump, restore

pytestmark = pytest.mark.slow

# Width of the image embeddings, and the tokens that two images give: 2 * ((32 / 8)**2 + 1)
IMAGE_DIM, TWO_IMAGES = 16, 34
KINDS = {
    "inpainting": {},
    "first frame": {"image_dim": IMAGE_DIM, "added_kv_proj_dim": 24},
    "first and last frame": {
        "image_dim": IMAGE_DIM,
        "added_kv_proj_dim": 24,
        "pos_embed_seq_len": TWO_IMAGES,
    },
}
MODES = {
    "inpainting": ["start", "both"],
    "first frame": ["start"],
    "first and last frame": ["both"],
}


@pytest.fixture(scope="module")
def image_root(wan_root, tmp_path_factory):
    """One folder for each kind: the tiny text-to-video one with another transformer."""
    root = tmp_path_factory.mktemp("image-to-video")
    base = WanTransformer3DModel.load_config(wan_root / "wan-t2v" / "transformer")
    for seed, (kind, extra) in enumerate(KINDS.items()):
        folder = root / kind
        shutil.copytree(wan_root / "wan-t2v", folder)
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(seed)
            config = {**base, "in_channels": 36, **extra}
            transformer = WanTransformer3DModel.from_config(config)
            with torch.no_grad():
                for parameter in transformer.parameters():
                    parameter.mul_(2.0 if parameter.ndim > 1 else 1.0)
            vision = CLIPVisionConfig(
                hidden_size=IMAGE_DIM,
                intermediate_size=24,
                num_hidden_layers=3,
                num_attention_heads=2,
                image_size=32,
                patch_size=8,
                projection_dim=IMAGE_DIM,
            )
            encoder = CLIPVisionModel(vision)
        transformer.save_pretrained(folder / "transformer")
        if "image_dim" in extra:
            encoder.save_pretrained(folder / "image_encoder")
            processor = CLIPImageProcessorPil(
                size={"shortest_edge": 32}, crop_size={"height": 32, "width": 32}
            )
            processor.save_pretrained(folder / "image_processor")
        index = json.loads((folder / "model_index.json").read_text())
        index["_class_name"] = "WanImageToVideoPipeline"
        (folder / "model_index.json").write_text(json.dumps(index))
    return root


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
        theirs.scheduler = UniPCMultistepScheduler.from_config(
            theirs.scheduler.config, flow_shift=request.flow_shift
        )
        last = Image.open(request.end_path) if mode == "both" else None
        frames = theirs(
            image=Image.open(request.start_path),
            last_image=last,
            prompt=request.prompt,
            negative_prompt=request.negative_prompt,
            width=request.width,
            height=request.height,
            num_frames=request.frames,
            num_inference_steps=request.steps,
            guidance_scale=request.guidance_scale,
            generator=torch.Generator().manual_seed(request.seed),
            output_type="pil",
        ).frames[0]
        expected = np.stack([np.asarray(frame) for frame in frames]).astype(int)
        tolerance = 0 if device.kind == "cpu" else 2
        made = play(pipeline, request)
        assert np.abs(made - expected).max() <= tolerance
    paused = play(pipeline, request, lambda state: restore(dump(state), device.torch))
    np.testing.assert_array_equal(paused, made)


@pytest.mark.parametrize("kind", KINDS)
def test_other_modes_are_refused(image_root, device, ask, kind):
    config = ModelConfig("wan", "wan", image_root / kind, None, "float32", "tiny-random")
    pipeline = open_pipeline(config, device, 1.0)
    served = MODES[kind]
    for mode in {"none", "single", "start", "end", "both"} - set(served):
        with pytest.raises(UnsupportedRequest, match=f"serves {', '.join(served)}$") as refused:
            pipeline.plan(ask(mode=mode))
        assert refused.value.field == "reference_mode"


def test_the_image_encoder_is_a_component_of_the_condition_phase(image_root, device, ask):
    config = ModelConfig("wan", "wan", image_root / "first frame", None, "float32", "tiny-random")
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
