"""A component folder is read as each library reads it, and its bytes are known beforehand."""

import json
import threading
from pathlib import Path
from typing import Any

import diffusers
import pytest
import torch
from safetensors.torch import load_file, save_file
from torch import nn
from transformers import (
    CLIPTextConfig,
    CLIPTextModel,
    CLIPTextModelWithProjection,
    T5Config,
    T5EncoderModel,
)

from pipelines.arena import module_tensors
from pipelines.component import Component
from pipelines.device import Device
from pipelines.sources import FolderSource
from pipelines.weights import CheckpointError

pytestmark = pytest.mark.slow

DTYPES = [torch.float32, torch.float16, torch.bfloat16]
CLIP = {
    "vocab_size": 64,
    "hidden_size": 32,
    "intermediate_size": 64,
    "num_hidden_layers": 2,
    "num_attention_heads": 2,
}
VAE = {
    "block_out_channels": (8,),
    "down_block_types": ("DownEncoderBlock2D",),
    "up_block_types": ("UpDecoderBlock2D",),
    "norm_num_groups": 2,
    "sample_size": 16,
}
T5 = {"vocab_size": 64, "d_model": 16, "d_kv": 8, "d_ff": 32, "num_layers": 2, "num_heads": 2}


def make(kind: str) -> nn.Module:
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(4)
        if kind == "clip":
            return CLIPTextModel(CLIPTextConfig(**CLIP))
        if kind == "clip-projection":
            return CLIPTextModelWithProjection(CLIPTextConfig(**CLIP, projection_dim=16))
        if kind == "t5":
            return T5EncoderModel(T5Config(**T5))
        return diffusers.AutoencoderKL(**VAE)


@pytest.mark.parametrize("kind", ["clip", "clip-projection", "t5", "vae"])
@pytest.mark.parametrize("stored", DTYPES, ids=str)
@pytest.mark.parametrize("wanted", DTYPES, ids=str)
def test_bytes_types_and_values_are_the_librarys(
    tmp_path: Path, device: Device, kind: str, stored: torch.dtype, wanted: torch.dtype
) -> None:
    module = make(kind).to(stored)
    module.save_pretrained(tmp_path)
    reference = type(module).from_pretrained(str(tmp_path), dtype=wanted, local_files_only=True)
    component = Component("part", FolderSource(tmp_path, type(module), wanted), device)
    component.stage()
    component.load()
    ours = dict(module_tensors(component.module))
    theirs = dict(module_tensors(reference.to(device.torch)))
    assert {n: (t.dtype, t.shape) for n, t in ours.items()} == {
        n: (t.dtype, t.shape) for n, t in theirs.items()
    }
    assert all(torch.equal(ours[name], theirs[name]) for name in theirs)
    assert torch.get_default_dtype() == torch.float32


def sharded(folder: Path, kind: str) -> type[Any]:
    module = make(kind)
    module.save_pretrained(folder, max_shard_size="8KB")
    assert len(list(folder.glob("*-of-*.safetensors"))) > 1
    return type(module)


@pytest.mark.parametrize("kind", ["clip", "vae"])
def test_shards_are_read_whole(tmp_path: Path, device: Device, kind: str) -> None:
    model_class = sharded(tmp_path, kind)
    source = FolderSource(tmp_path, model_class, torch.float32)
    assert set(source.files) == set(tmp_path.glob("*-of-*.safetensors"))
    component = Component("part", source, device)
    component.stage()
    component.load()
    original = dict(module_tensors(make(kind).to(device.torch)))
    assert all(torch.equal(t, original[n]) for n, t in module_tensors(component.module))


@pytest.mark.parametrize("kind", ["clip", "vae"])
def test_a_lost_shard_is_named(tmp_path: Path, kind: str) -> None:
    model_class = sharded(tmp_path, kind)
    lost = max(tmp_path.glob("*-of-*.safetensors"))
    lost.unlink()
    with pytest.raises(CheckpointError, match="no such file") as caught:
        FolderSource(tmp_path, model_class, torch.float32)
    assert caught.value.path == lost


@pytest.mark.parametrize(("kind", "stem"), [("clip", "model"), ("vae", "diffusion_pytorch_model")])
def test_the_variant_is_what_is_read(tmp_path: Path, device: Device, kind: str, stem: str) -> None:
    module = make(kind)
    module.save_pretrained(tmp_path)
    name, parameter = next(iter(module.named_parameters()))
    with torch.no_grad():
        parameter.add_(1)
    module.half().save_pretrained(tmp_path, variant="fp16")
    for dtype, file, offset in (
        (torch.float32, f"{stem}.safetensors", 0),
        (torch.float16, f"{stem}.fp16.safetensors", 1),
    ):
        source = FolderSource(tmp_path, type(module), dtype)
        assert [path.name for path in source.files] == [file]
        component = Component("part", source, device)
        component.stage()
        component.load()
        found = dict(module_tensors(component.module))[name].float().cpu()
        expected = dict(module_tensors(make(kind)))[name] + offset
        assert torch.allclose(found, expected, atol=1e-2)


def prefixed(folder: Path) -> Path:
    """CLIP as checkpoints from before the library dropped ``text_model.`` name it."""
    make("clip").save_pretrained(folder)
    path = folder / "model.safetensors"
    tensors = {f"text_model.{k.removeprefix('text_model.')}": v for k, v in load_file(path).items()}
    path.unlink()
    save_file(tensors, path, metadata={"format": "pt"})
    return path


def test_older_names_are_understood(tmp_path: Path, device: Device) -> None:
    prefixed(tmp_path)
    component = Component("part", FolderSource(tmp_path, CLIPTextModel, torch.float32), device)
    component.stage()
    component.load()
    original = dict(module_tensors(make("clip").to(device.torch)))
    assert all(torch.equal(t, original[n]) for n, t in module_tensors(component.module))


def test_another_shape_under_an_older_name_is_refused(tmp_path: Path, device: Device) -> None:
    path = prefixed(tmp_path)
    tensors = load_file(path)
    tensors["text_model.final_layer_norm.weight"] = torch.ones(31)
    path.unlink()
    save_file(tensors, path, metadata={"format": "pt"})
    with pytest.raises(CheckpointError, match=r"shape \[31\], where .* expects \[32\]"):
        Component("part", FolderSource(tmp_path, CLIPTextModel, torch.float32), device).stage()


def test_pickles_are_never_read(tmp_path: Path) -> None:
    module = make("clip")
    module.save_pretrained(tmp_path)
    torch.save(module.state_dict(), tmp_path / "pytorch_model.bin")
    (tmp_path / "model.safetensors").unlink()
    with pytest.raises(CheckpointError, match=r"pickles such as pytorch_model\.bin are never"):
        FolderSource(tmp_path, CLIPTextModel, torch.float32)


@pytest.mark.parametrize(
    "values",
    [{"hidden_size": "wide"}, {"num_attention_heads": 5}, {"hidden_size": 0}, {"vocab_size": -1}],
    ids=str,
)
def test_a_configuration_that_makes_no_model_is_refused(tmp_path: Path, values: Any) -> None:
    make("clip").save_pretrained(tmp_path)
    path = tmp_path / "config.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | values))
    with pytest.raises(CheckpointError):
        FolderSource(tmp_path, CLIPTextModel, torch.float32)


def test_a_folder_without_a_configuration_is_refused(tmp_path: Path) -> None:
    with pytest.raises(CheckpointError, match=r"has no config\.json"):
        FolderSource(tmp_path, CLIPTextModel, torch.float32)


def test_real_loaders_in_many_threads_leave_nothing_on_meta(tmp_path: Path, device: Device) -> None:
    kinds = ["clip", "clip-projection", "t5", "vae"]
    components = []
    for kind in kinds * 2:
        folder = tmp_path / kind
        if not folder.exists():
            make(kind).save_pretrained(folder)
        source = FolderSource(folder, type(make(kind)), torch.bfloat16)
        components.append(Component(kind, source, device))
    failures: list[BaseException] = []

    def stage(component: Component) -> None:
        try:
            component.stage()
        except (CheckpointError, RuntimeError) as error:
            failures.append(error)

    threads = [threading.Thread(target=stage, args=(component,)) for component in components]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert failures == []
    assert {component.tier for component in components} == {"staged"}
    assert not nn.Linear(1, 1).weight.is_meta
    assert torch.get_default_dtype() == torch.float32
