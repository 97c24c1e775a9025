"""A checkpoint that is not whole is refused by name: file, tensor or key, and what is needed."""

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file

from pipelines.registry import ModelConfig, open_pipeline
from pipelines.sdxl import SdxlPipeline
from pipelines.weights import CheckpointError, read_header, verify

pytestmark = pytest.mark.slow

Open = Callable[..., SdxlPipeline]
UNET = "unet/diffusion_pytorch_model.safetensors"
VAE = "vae/diffusion_pytorch_model.safetensors"
TEXT = "text_encoder/model.safetensors"
TEXT_2 = "text_encoder_2/model.safetensors"


@pytest.fixture
def folder(sdxl_root: Path, tmp_path: Path) -> Path:
    """A copy to break."""
    return shutil.copytree(sdxl_root / "sdxl", tmp_path / "sdxl")


def change_weights(path: Path, change: Callable[[dict[str, torch.Tensor]], object]) -> None:
    tensors = load_file(path)
    change(tensors)
    path.unlink()
    save_file(tensors, path, metadata={"format": "pt"})


def change_json(path: Path, **values: Any) -> None:
    path.write_text(json.dumps(json.loads(path.read_text()) | values))


def stage_all(pipeline: SdxlPipeline) -> None:
    for component in pipeline.components.values():
        component.stage()


def payload(*paths: Path) -> int:
    return sum(read_header(path).nbytes for path in paths)


def test_weight_bytes_are_the_headers_and_the_buffers(sdxl_root: Path, open_folder: Open) -> None:
    folder = sdxl_root / "sdxl"
    components = open_folder(folder).components
    # Each encoder keeps 77 position ids of eight bytes, which no file holds.
    text = payload(folder / TEXT, folder / TEXT_2) + 2 * 77 * 8
    assert {name: c.weight_bytes for name, c in components.items()} == {
        "sdxl.text_encoders": text,
        "sdxl.unet": payload(folder / UNET),
        "sdxl.vae": payload(folder / VAE),
    }
    for component in components.values():
        assert component.tier == "absent"
        component.stage()
        assert component.arena is not None
        assert component.arena.nbytes == component.weight_bytes


@pytest.mark.parametrize("dtype", ["float16", "bfloat16"])
@pytest.mark.parametrize("single", [False, True])
def test_half_precision_halves_all_but_the_vae(
    sdxl_root: Path, open_folder: Open, dtype: str, single: bool
) -> None:
    folder = sdxl_root / "sdxl"
    path = sdxl_root / "sdxl.safetensors" if single else folder
    pipeline = open_folder(path, folder if single else None, dtype)
    assert {name: c.weight_bytes for name, c in pipeline.components.items()} == {
        "sdxl.text_encoders": payload(folder / TEXT, folder / TEXT_2) // 2 + 2 * 77 * 8,
        "sdxl.unet": payload(folder / UNET) // 2,
        "sdxl.vae": payload(folder / VAE),
    }
    stage_all(pipeline)


@pytest.mark.parametrize(
    ("file", "tensor"),
    [
        (UNET, "mid_block.attentions.0.proj_in.bias"),
        (VAE, "decoder.conv_out.weight"),
        (TEXT_2, "text_projection.weight"),
        (TEXT, "encoder.layers.1.mlp.fc1.bias"),
    ],
)
def test_a_missing_tensor_is_named(folder: Path, open_folder: Open, file: str, tensor: str) -> None:
    def remove(tensors: dict[str, torch.Tensor]) -> None:
        (name,) = [name for name in tensors if name.endswith(tensor)]
        del tensors[name]

    change_weights(folder / file, remove)
    pipeline = open_folder(folder)
    with pytest.raises(CheckpointError, match=rf"tensor {tensor} is missing") as caught:
        stage_all(pipeline)
    assert caught.value.path == (folder / file).parent


def test_many_missing_tensors_are_counted(folder: Path, open_folder: Open) -> None:
    def remove(tensors: dict[str, torch.Tensor]) -> None:
        for name in [name for name in tensors if name.startswith("up_blocks.0.attentions.0")]:
            del tensors[name]

    change_weights(folder / UNET, remove)
    with pytest.raises(CheckpointError, match=r"tensor up_blocks.0.* is missing and \d+ more"):
        open_folder(folder).components["sdxl.unet"].stage()


@pytest.mark.parametrize("file", [UNET, VAE, TEXT, TEXT_2])
def test_nan_weights_are_refused(folder: Path, open_folder: Open, file: str) -> None:
    name = max(load_file(folder / file))
    change_weights(folder / file, lambda t: t[name].view(-1)[-1:].fill_(float("nan")))
    with pytest.raises(CheckpointError, match="holds NaN or infinite values"):
        stage_all(open_folder(folder))


@pytest.mark.parametrize("file", [UNET, VAE, TEXT])
@pytest.mark.parametrize(
    ("damage", "message"),
    [
        (lambda data: data[:-4], "truncated or padded"),
        (lambda data: b"", "an empty file"),
        (lambda data: b"not weights at all, whatever the name says", "not a safetensors file"),
        (lambda data: b"version https://git-lfs.github.com/spec/v1\n", "Git LFS pointer"),
    ],
    ids=["truncated", "empty", "garbage", "pointer"],
)
def test_a_damaged_file_is_refused_when_opened(
    folder: Path, open_folder: Open, file: str, damage: Callable[[bytes], bytes], message: str
) -> None:
    path = folder / file
    data = path.read_bytes()
    path.unlink()
    path.write_bytes(damage(data))
    with pytest.raises(CheckpointError, match=message) as caught:
        open_folder(folder)
    assert caught.value.path == path
    with pytest.raises(CheckpointError, match=message):
        verify(folder)


def test_a_file_damaged_after_opening_is_refused_when_staged(
    folder: Path, open_folder: Open
) -> None:
    pipeline = open_folder(folder)
    path = folder / UNET
    data = path.read_bytes()
    path.unlink()
    path.write_bytes(data[: len(data) // 2])
    component = pipeline.components["sdxl.unet"]
    with pytest.raises(CheckpointError, match="truncated"):
        component.stage()
    assert component.tier == "absent"
    path.write_bytes(data)
    component.stage()
    assert component.tier == "staged"


def test_weights_of_another_architecture_are_refused(folder: Path, open_folder: Open) -> None:
    shutil.copy(folder / TEXT_2, folder / TEXT)
    with pytest.raises(CheckpointError, match=r"has shape \[.*64\], where .* expects \[.*32\]"):
        stage_all(open_folder(folder))
    shutil.copy(folder / VAE, folder / UNET)
    with pytest.raises(CheckpointError, match=r"tensor conv_in\.\w+ is missing and|has shape"):
        stage_all(open_folder(folder))


def test_a_configuration_of_another_width_is_refused(folder: Path, open_folder: Open) -> None:
    change_json(folder / "unet/config.json", block_out_channels=[16, 32, 96])
    with pytest.raises(CheckpointError, match=r"tensor .* has shape .* configuration expects"):
        open_folder(folder)


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"block_out_channels": []}, "does not describe a UNet2DConditionModel"),
        ({"down_block_types": ["NoSuchBlock"]}, "does not describe a UNet2DConditionModel"),
        ({"norm_num_groups": 7}, "does not describe a UNet2DConditionModel"),
        ({"norm_num_groups": 0}, "does not describe a UNet2DConditionModel"),
        ({"block_out_channels": "wide"}, "does not describe a UNet2DConditionModel"),
    ],
    ids=str,
)
def test_a_configuration_that_makes_no_model_is_refused(
    folder: Path, open_folder: Open, values: Any, message: str
) -> None:
    change_json(folder / "unet/config.json", **values)
    with pytest.raises(CheckpointError, match=message) as caught:
        open_folder(folder)
    assert caught.value.path == folder / "unet/config.json"


@pytest.mark.parametrize(
    ("part", "values", "message"),
    [
        ("unet", {"in_channels": 9}, r"conv_in\.weight has shape .* expects \[\d+, 9, 3, 3\]"),
        ("unet", {"time_cond_proj_dim": 8}, "time_cond_proj_dim is 8, where .* need None"),
        ("vae", {"latent_channels": 16}, "has shape"),
        ("text_encoder_2", {"projection_dim": 32}, r"text_projection\.weight has shape"),
        ("unet", {"addition_embed_type": None}, "addition_embed_type is None, where .* text_time"),
    ],
)
def test_parts_that_do_not_fit_each_other_are_refused(
    folder: Path, open_folder: Open, part: str, values: Any, message: str
) -> None:
    change_json(folder / part / "config.json", **values)
    with pytest.raises(CheckpointError, match=message):
        open_folder(folder)


@pytest.mark.parametrize(
    ("lost", "message"),
    [
        ("model_index.json", "has no model_index.json; the diffusers layout is needed"),
        ("unet", "unet: has no config.json"),
        ("unet/config.json", "unet: has no config.json"),
        (UNET, "holds neither diffusion_pytorch_model.safetensors nor"),
        (TEXT, "holds neither model.safetensors nor"),
        ("tokenizer_2", "tokenizer_2: no such folder"),
        ("scheduler", "scheduler_config.json: no such file"),
    ],
)
def test_a_lost_part_is_named(folder: Path, open_folder: Open, lost: str, message: str) -> None:
    path = folder / lost
    shutil.rmtree(path) if path.is_dir() else path.unlink()
    with pytest.raises(CheckpointError, match=message):
        open_folder(folder)


@pytest.mark.parametrize(
    ("file", "values", "message"),
    [
        ("model_index.json", {"_class_name": "WanPipeline"}, "_class_name is 'WanPipeline', not"),
        ("model_index.json", {"requires_aesthetics_score": True}, "is a refiner"),
        (
            "scheduler/scheduler_config.json",
            {"_class_name": "PNDMScheduler"},
            "'PNDMScheduler'; supported are DDIMScheduler, ",
        ),
        (
            "scheduler/scheduler_config.json",
            {"beta_schedule": "wild"},
            "does not make a EulerDiscreteScheduler",
        ),
        (
            "scheduler/scheduler_config.json",
            {"use_karras_sigmas": True, "use_exponential_sigmas": True},
            "does not make a EulerDiscreteScheduler",
        ),
    ],
)
def test_another_kind_of_checkpoint_is_refused(
    folder: Path, open_folder: Open, file: str, values: Any, message: str
) -> None:
    change_json(folder / file, **values)
    with pytest.raises(CheckpointError, match=message) as caught:
        open_folder(folder)
    assert caught.value.path == folder / file


@pytest.mark.parametrize("content", ["{", "[]", '{"version": "1.0"}', ""])
def test_a_broken_tokenizer_is_refused(folder: Path, open_folder: Open, content: str) -> None:
    for path in (folder / "tokenizer").iterdir():
        if path.name != "tokenizer_config.json":
            path.write_text(content)
    with pytest.raises(CheckpointError, match="tokenizer cannot be read") as caught:
        open_folder(folder)
    assert caught.value.path == folder / "tokenizer"


@pytest.mark.parametrize("name", ["tokenizer", "tokenizer_2"])
@pytest.mark.parametrize(
    ("kept", "message"),
    [
        ((), "does not spell every byte"),
        (("tokenizer_config.json",), "does not spell every byte"),
        (("tokenizer.json", "vocab.json", "merges.txt"), "is tokenizer_config.json missing"),
    ],
)
def test_a_tokenizer_that_lost_a_file_is_refused(
    folder: Path, open_folder: Open, name: str, kept: tuple[str, ...], message: str
) -> None:
    for path in (folder / name).iterdir():
        if path.name not in kept:
            path.unlink()
    with pytest.raises(CheckpointError, match=message) as caught:
        open_folder(folder)
    assert caught.value.path == folder / name


def test_a_tokenizer_with_more_words_than_its_encoder_is_refused(
    folder: Path, open_folder: Open
) -> None:
    path = folder / "tokenizer_2" / "tokenizer.json"
    content = json.loads(path.read_text())
    vocabulary = content["model"]["vocab"]
    vocabulary |= {f"word{n}": len(vocabulary) + n for n in range(2000)}
    path.write_text(json.dumps(content))
    with pytest.raises(CheckpointError, match="ids, its text encoder") as caught:
        open_folder(folder)
    assert caught.value.path == folder / "tokenizer_2"


def test_the_original_layout_of_another_model_is_told_what_is_needed(
    tmp_path: Path, open_folder: Open
) -> None:
    save_file({"a": torch.zeros(2)}, tmp_path / "Wan2.1_VAE.safetensors")
    with pytest.raises(CheckpointError, match=r"has no model_index.json; the diffusers layout"):
        open_folder(tmp_path)
    with pytest.raises(CheckpointError, match="no such file or folder"):
        open_folder(tmp_path / "absent")
    with pytest.raises(CheckpointError, match="dtype 'int4' is none of"):
        open_folder(tmp_path, dtype="int4")


@pytest.fixture
def file(sdxl_root: Path, tmp_path: Path) -> Path:
    """A copy to break."""
    return Path(shutil.copy(sdxl_root / "sdxl.safetensors", tmp_path / "sdxl.safetensors"))


def test_one_file_needs_its_configuration_beside_it(
    file: Path, tmp_path: Path, open_folder: Open
) -> None:
    with pytest.raises(CheckpointError, match="is a single file and needs a config_path"):
        open_folder(file)
    with pytest.raises(CheckpointError, match=r"has no model_index\.json; the diffusers layout"):
        open_folder(file, tmp_path)


@pytest.mark.parametrize(
    ("component", "tensor", "named"),
    [
        ("unet", "model.diffusion_model.out.2.bias", r"conv_out\.bias"),
        (
            "unet",
            "model.diffusion_model.middle_block.1.proj_in.bias",
            r"mid_block\..*proj_in\.bias",
        ),
        ("vae", "first_stage_model.decoder.mid.block_1.conv1.weight", r"decoder\.mid_block\..*"),
        ("vae", "first_stage_model.quant_conv.weight", r"quant_conv\.weight"),
        (
            "text_encoders",
            "conditioner.embedders.0.transformer.text_model.encoder.layers.1.layer_norm1.bias",
            r".*layers\.1\.layer_norm1\.bias",
        ),
        (
            "text_encoders",
            "conditioner.embedders.1.model.transformer.resblocks.0.attn.in_proj_weight",
            r".*layers\.0\.self_attn.*weight",
        ),
    ],
)
def test_a_tensor_missing_from_one_file_is_named(
    sdxl_root: Path, file: Path, open_folder: Open, component: str, tensor: str, named: str
) -> None:
    whole = open_folder(file, sdxl_root / "sdxl").components[f"sdxl.{component}"]
    change_weights(file, lambda tensors: tensors.pop(tensor))
    with pytest.raises(CheckpointError, match=rf"tensor {named} is missing") as caught:
        open_folder(file, sdxl_root / "sdxl")
    assert caught.value.path == file
    with pytest.raises(CheckpointError, match=rf"tensor {named} is missing"):
        whole.stage()


def test_one_file_without_a_part_is_refused_when_opened(
    sdxl_root: Path, file: Path, open_folder: Open
) -> None:
    def remove(tensors: dict[str, torch.Tensor]) -> None:
        for name in [name for name in tensors if name.startswith("conditioner.embedders.1.")]:
            del tensors[name]

    change_weights(file, remove)
    with pytest.raises(CheckpointError, match=r"embedders\.1.* is missing; an SDXL checkpoint"):
        open_folder(file, sdxl_root / "sdxl")


@pytest.mark.parametrize(
    ("part", "values"),
    [
        ("unet", {"cross_attention_dim": 80}),
        ("vae", {"block_out_channels": [8, 16, 16, 32]}),
        ("text_encoder_2", {"intermediate_size": 128}),
        ("text_encoder_2", {"hidden_size": 48}),
    ],
)
def test_one_file_of_another_architecture_is_refused(
    folder: Path, file: Path, open_folder: Open, part: str, values: Any
) -> None:
    change_json(folder / part / "config.json", **values)
    with pytest.raises(CheckpointError):
        stage_all(open_folder(file, folder))


def test_one_truncated_file_is_refused(sdxl_root: Path, file: Path, open_folder: Open) -> None:
    file.write_bytes(file.read_bytes()[:-1])
    with pytest.raises(CheckpointError, match="truncated"):
        open_folder(file, sdxl_root / "sdxl")


def test_nan_in_one_file_is_refused(sdxl_root: Path, file: Path, open_folder: Open) -> None:
    name = "first_stage_model.decoder.conv_out.bias"
    change_weights(file, lambda tensors: tensors[name].fill_(float("nan")))
    with pytest.raises(CheckpointError, match=r"decoder\.conv_out\.bias holds NaN"):
        stage_all(open_folder(file, sdxl_root / "sdxl"))


def test_models_are_opened_by_name(sdxl_root: Path, device: Any) -> None:
    def config(name: str) -> ModelConfig:
        return ModelConfig(name, "sdxl", sdxl_root / "sdxl", None, "float32")

    for name in ("a", "b"):
        found = open_pipeline(config(name), device, 1.25)
        assert found.name == name
        assert list(found.components) == [f"{name}.text_encoders", f"{name}.unet", f"{name}.vae"]
