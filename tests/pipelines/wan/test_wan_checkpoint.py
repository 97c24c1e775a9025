"""What a folder is opened as, and every folder that is refused by name."""

import json
import shutil
from pathlib import Path

import pytest

from pipelines.registry import ModelConfig, open_pipeline
from pipelines.weights import CheckpointError


def open_wan(path: Path, device, dtype="float32"):
    return open_pipeline(ModelConfig("wan", "wan", path, None, dtype), device, 1.0)


@pytest.fixture
def folder(wan_root, tmp_path):
    """A copy of the text-to-video checkpoint, to be spoilt."""
    shutil.copytree(wan_root / "wan-t2v", tmp_path / "wan")
    return tmp_path / "wan"


def edit(path, **changes):
    config = json.loads(path.read_text())
    path.write_text(json.dumps({**config, **changes}))


def test_opening_reads_no_weights(wan_root, device):
    pipeline = open_wan(wan_root / "wan-vace", device)
    assert pipeline.name == "wan"
    assert sorted(pipeline.components) == ["wan.text_encoder", "wan.transformer", "wan.vae"]
    for name, component in pipeline.components.items():
        assert component.name == name
        assert component.tier == "absent"
        assert component.weight_bytes > 0


def test_bytes_follow_the_dtype(wan_root, device):
    """The VAE stays in fp32, and so do some of the transformer's modules."""
    path = wan_root / "wan-t2v"
    full, half = (
        {name: part.weight_bytes for name, part in open_wan(path, device, dtype).components.items()}
        for dtype in ("float32", "bfloat16")
    )
    assert half["wan.vae"] == full["wan.vae"]
    assert half["wan.text_encoder"] * 2 == full["wan.text_encoder"]
    assert full["wan.transformer"] / 2 < half["wan.transformer"] < full["wan.transformer"]


def test_the_view_for_plain_text_to_video_costs_no_bytes(vace):
    component = vace.components["wan.transformer"]
    assert component.arena.nbytes == component.weight_bytes
    parameters = [*component.module.parameters(), *component.module.buffers()]
    assert component.weight_bytes == sum(p.numel() * p.element_size() for p in parameters)


@pytest.mark.parametrize(
    ("names", "message"),
    [
        (
            ["Wan2.1_VAE.pth", "models_t5_umt5-xxl-enc-bf16.pth", "config.json"],
            "original layout of WAN; the layout of diffusers is needed: model_index.json",
        ),
        ([], "has no model_index.json; the layout of diffusers is needed"),
        (None, "no such folder"),
    ],
)
def test_another_layout_is_named(tmp_path, device, names, message):
    path = tmp_path / "wan"
    if names is not None:
        path.mkdir()
        for name in names:
            (path / name).write_text("{}")
    with pytest.raises(CheckpointError, match=message):
        open_wan(path, device)


SPOILT = {
    "two transformers": ("model_index.json", {"boundary_ratio": 0.9}, "WAN 2.2"),
    "a second stage": (
        "model_index.json",
        {"transformer_2": ["diffusers", "WanTransformer3DModel"]},
        "WAN 2.2",
    ),
    "token times": ("model_index.json", {"expand_timesteps": True}, "WAN 2.2"),
    "a residual VAE": ("vae/config.json", {"is_residual": True}, "WAN 2.2 VAE"),
    "another scale": (
        "vae/config.json",
        {"scale_factor_spatial": 16},
        "16x in space, 4x in time, not 8x and 4x",
    ),
    "other latents": ("vae/config.json", {"z_dim": 48}, "48 latent channels"),
    "a noise scheduler": (
        "scheduler/scheduler_config.json",
        {"prediction_type": "epsilon"},
        "prediction_type is 'epsilon', not 'flow_prediction'",
    ),
    "dynamic shifting": (
        "scheduler/scheduler_config.json",
        {"use_dynamic_shifting": True},
        "use_dynamic_shifting",
    ),
    "another patch": ("transformer/config.json", {"patch_size": [1, 4, 4]}, "patch_size"),
    "another text width": (
        "text_encoder/config.json",
        {"d_model": 64},
        "d_model is 64, the transformer reads 32",
    ),
    "other control": (
        "transformer/config.json",
        {"_class_name": "WanVACETransformer3DModel", "vace_in_channels": 48},
        "vace_in_channels is 48, not 96",
    ),
    "20 channels": ("transformer/config.json", {"in_channels": 20}, "20 input channels"),
    "another class": (
        "transformer/config.json",
        {"_class_name": "WanAnimateTransformer3DModel"},
        "WanAnimateTransformer3DModel with 16 input channels is neither",
    ),
    "another width": ("transformer/config.json", {"ffn_dim": 96}, "has shape"),
    "a width that is no number": ("transformer/config.json", {"ffn_dim": "wide"}, "config.json"),
    "an image encoder that is missing": (
        "transformer/config.json",
        {"in_channels": 36, "image_dim": 16},
        "image_encoder/config.json: no such file",
    ),
}


@pytest.mark.parametrize("case", SPOILT)
def test_a_configuration_that_cannot_be_run_is_named(folder, device, case):
    file, changes, message = SPOILT[case]
    edit(folder / file, **changes)
    with pytest.raises(CheckpointError, match=message):
        open_wan(folder, device)


@pytest.mark.parametrize(
    "file",
    [
        "vae/config.json",
        "transformer/config.json",
        "text_encoder/config.json",
        "scheduler/scheduler_config.json",
        "transformer/diffusion_pytorch_model.safetensors",
        "vae/diffusion_pytorch_model.safetensors",
        "text_encoder/model.safetensors",
        "tokenizer",
    ],
)
def test_a_part_that_is_missing_is_named(folder, device, file):
    path = folder / file
    shutil.rmtree(path) if path.is_dir() else path.unlink()
    with pytest.raises(CheckpointError, match=file.split("/")[0]):
        open_wan(folder, device)


@pytest.mark.parametrize("text", ["", "{", "[]", "null"])
@pytest.mark.parametrize("file", ["model_index.json", "transformer/config.json", "vae/config.json"])
def test_a_configuration_that_is_no_object_is_named(folder, device, file, text):
    (folder / file).write_text(text)
    with pytest.raises(CheckpointError, match=file):
        open_wan(folder, device)


def test_a_tokenizer_that_cannot_be_read_is_named(folder, device):
    for file in (folder / "tokenizer").iterdir():
        file.write_text("{")
    with pytest.raises(CheckpointError, match="tokenizer"):
        open_wan(folder, device)


def test_a_truncated_file_is_named_before_anything_runs(folder, device):
    file = folder / "transformer" / "diffusion_pytorch_model.safetensors"
    file.write_bytes(file.read_bytes()[:-8])
    with pytest.raises(CheckpointError, match="truncated"):
        open_wan(folder, device)
