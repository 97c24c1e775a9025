"""``models``: exact bytes, what is wrong with a checkpoint, tiny ones on first use."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import orjson
import pytest
import torch
from safetensors.torch import load_file, save_file
from support.command import CONFIG, Cli

from ourvidz.cli.models import TINY_NAMES, TinyFailed, ensure_tiny, make, tiny_roots
from ourvidz.config import Settings, load

pytestmark = pytest.mark.slow

MODELS = {"sdxl": "sdxl", "wan": "wan-vace", "qwen_base": "qwen-base"}
MODELS |= {"qwen_instruct": "qwen-instruct"}


def at(root: Path, **others: Path) -> tuple[str, ...]:
    """Flags that put the configured models under ``root``, or where ``others`` says."""
    places = {name: root / folder for name, folder in MODELS.items()} | others
    flags = [("--set", f"models.{name}.path={path}") for name, path in places.items()]
    return ("--config", str(CONFIG), *(part for flag in flags for part in flag))


def settings_at(root: Path, **flags: Any) -> Settings:
    paths = {f"models.{name}.path": str(root / folder) for name, folder in MODELS.items()}
    return load(CONFIG, {}, {**paths, **flags})


@pytest.fixture
def copy(tiny: Path, tmp_path: Path) -> Callable[[str], Path]:
    """A copy of one tiny checkpoint, to damage."""

    def make_copy(name: str) -> Path:
        return Path(shutil.copytree(tiny / name, tmp_path / "damaged" / name))

    return make_copy


def change(file: Path, edit: Callable[[dict[str, torch.Tensor]], None]) -> None:
    tensors = load_file(file)
    edit(tensors)
    save_file(tensors, file, metadata={"format": "pt"})


def test_list_gives_the_bytes_of_every_component(cli: Cli, tiny: Path) -> None:
    done = cli("models", "list", "--json", *at(tiny))
    assert done.code == 0
    reports = {report["name"]: report for report in orjson.loads(done.out)}
    assert list(reports) == list(MODELS)
    assert set(reports["sdxl"]["components"]) == {"sdxl.text_encoders", "sdxl.unet", "sdxl.vae"}
    unet = load_file(tiny / "sdxl" / "unet" / "diffusion_pytorch_model.safetensors")
    held = sum(tensor.nbytes for tensor in unet.values())
    assert reports["sdxl"]["components"]["sdxl.unet"] == held
    assert "none, single, start, end, both" in reports["wan"]["capability"]
    assert [report["error"] for report in reports.values()] == [None] * 4


def test_list_for_people(cli: Cli, tiny: Path) -> None:
    done = cli("models", "list", *at(tiny, wan=tiny / "nowhere"))
    assert done.code == 0
    rows = [line.split() for line in done.out.splitlines()]
    assert ["name", "family", "dtype", "component", "bytes", "path"] in rows
    assert any(row[:1] == ["sdxl.vae"] for row in rows)
    assert f"wan: broken: {tiny / 'nowhere'}: no such folder" in done.out


def test_verify_reads_every_component(cli: Cli, tiny: Path) -> None:
    done = cli("models", "verify", *at(tiny))
    assert (done.code, done.err) == (0, "")
    good = [line.split(":")[0].strip() for line in done.out.splitlines() if "finite" in line]
    assert good == [
        *("sdxl.text_encoders", "sdxl.unet", "sdxl.vae"),
        *("wan.text_encoder", "wan.vae", "wan.transformer"),
        *("qwen_base.model", "qwen_instruct.model"),
    ]


def test_verify_of_one_model_by_name(cli: Cli, tiny: Path) -> None:
    done = cli("models", "verify", "qwen_base", *at(tiny, wan=tiny / "nowhere"))
    assert done.code == 0
    assert done.out.startswith(f"qwen_base: {tiny / 'qwen-base'}\n")


@pytest.mark.parametrize("name", ["sdxl", "wan-t2v", "qwen-base"])
def test_verify_of_a_folder_needs_no_configuration(cli: Cli, tiny: Path, name: str) -> None:
    done = cli("models", "verify", str(tiny / name))
    assert (done.code, done.err) == (0, "")
    assert "finite" in done.out


def test_verify_of_a_single_file(cli: Cli, tiny: Path) -> None:
    file = tiny / "sdxl.safetensors"
    alone = cli("models", "verify", str(file))
    assert alone.code == 0
    assert "headers are whole" in alone.out
    configured = at(tiny, sdxl=file)
    known = ("--set", f"models.sdxl.config_path={tiny / 'sdxl'}")
    assert "sdxl.unet" in cli("models", "verify", str(file), *configured, *known).out


def drop(tensors: dict[str, torch.Tensor]) -> None:
    del tensors["conv_in.weight"]


def spoil(tensors: dict[str, torch.Tensor]) -> None:
    tensors["conv_in.weight"][0, 0, 0, 0] = torch.nan


def reshape(tensors: dict[str, torch.Tensor]) -> None:
    tensors["conv_in.weight"] = tensors["conv_in.weight"][:, :1].contiguous()


@pytest.mark.parametrize("edit", [drop, spoil, reshape])
def test_verify_names_the_place_and_the_tensor(
    cli: Cli,
    tiny: Path,
    copy: Callable[[str], Path],
    edit: Callable[[dict[str, torch.Tensor]], None],
) -> None:
    broken = copy("sdxl")
    change(broken / "unet" / "diffusion_pytorch_model.safetensors", edit)
    done = cli("models", "verify", "sdxl", *at(tiny, sdxl=broken))
    assert done.code == 1
    assert str(broken / "unet") in done.err
    assert "tensor conv_in.weight" in done.err
    assert done.err.count("\n") == 1


def test_verify_goes_on_to_the_other_models(
    cli: Cli, tiny: Path, copy: Callable[[str], Path]
) -> None:
    broken = copy("qwen-base")
    file = broken / "model.safetensors"
    file.write_bytes(file.read_bytes()[:-7])
    done = cli("models", "verify", *at(tiny, qwen_base=broken))
    assert done.code == 1
    assert done.err.startswith(f"qwen_base: {file}: ")
    assert "truncated" in done.err
    assert "qwen_instruct.model" in done.out


@pytest.mark.parametrize(
    ("raw", "said"), [(b"", "empty"), (b"hello, world", "not a safetensors file")]
)
def test_verify_of_garbage(cli: Cli, tmp_path: Path, raw: bytes, said: str) -> None:
    file = tmp_path / "weights.safetensors"
    file.write_bytes(raw)
    done = cli("models", "verify", str(file))
    assert done.code == 1
    assert str(file) in done.err
    assert said in done.err


def test_verify_of_what_is_neither_a_name_nor_a_path(cli: Cli, tiny: Path) -> None:
    done = cli("models", "verify", "sdlx", *at(tiny))
    assert done.code == 2
    assert "'sdlx' is neither a configured model (sdxl, wan, qwen_base, qwen_instruct)" in done.err


def test_make_tiny_makes_what_the_configuration_names(cli: Cli, tmp_path: Path) -> None:
    root = tmp_path / "models" / "tiny"
    done = cli("models", "make-tiny", *at(root))
    assert done.out == f"{root}\n"
    assert {path.name for path in root.iterdir()} == TINY_NAMES
    before = (root / "sdxl.safetensors").stat()
    assert cli("models", "make-tiny", str(root)).code == 0
    assert (root / "sdxl.safetensors").stat() == before


def test_make_tiny_where_the_configuration_expects_none(cli: Cli, tmp_path: Path) -> None:
    done = cli("models", "make-tiny", *at(tmp_path / "large"))
    assert done.code == 2
    assert "name a folder" in done.err
    assert not (tmp_path / "large").exists()


def test_make_tiny_where_nothing_can_be_written(cli: Cli, tmp_path: Path) -> None:
    (tmp_path / "file").write_text("", encoding="utf-8")
    done = cli("models", "make-tiny", str(tmp_path / "file" / "tiny"))
    assert done.code == 1
    assert done.err.startswith("ourvidz: the tiny checkpoints cannot be made under ")
    with pytest.raises(TinyFailed):
        make(tmp_path / "file")


def test_tiny_roots_are_those_of_tiny_checkpoints_alone(tiny: Path, tmp_path: Path) -> None:
    assert tiny_roots(settings_at(tiny)) == [tiny]
    assert tiny_roots(settings_at(tiny), missing=True) == []
    assert tiny_roots(settings_at(tmp_path / "tiny"), missing=True) == [tmp_path / "tiny"]
    assert tiny_roots(settings_at(tmp_path / "large")) == []
    single = {"models.sdxl.path": str(tmp_path / "tiny" / "lustify.safetensors")}
    others = tmp_path / "others" / "tiny"
    single["models.sdxl.config_path"] = str(others / "sdxl")
    assert tiny_roots(settings_at(tiny, **single), missing=True) == [others]


_ENSURE = """
import json, sys
from pathlib import Path
from ourvidz.cli.models import ensure_tiny
from ourvidz.config import load
ensure_tiny(load(Path(sys.argv[1]), {}, json.loads(sys.argv[2])))
print("torch" in sys.modules)
"""


def test_what_is_there_costs_no_import(tiny: Path) -> None:
    flags = {f"models.{name}.path": str(tiny / folder) for name, folder in MODELS.items()}
    command = [sys.executable, "-c", _ENSURE, str(CONFIG), json.dumps(flags)]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    assert done.stdout == "False\n"


def test_what_is_missing_is_made(tmp_path: Path) -> None:
    settings = settings_at(tmp_path / "tiny")
    ensure_tiny(settings)
    assert all(model.path.exists() for model in settings.models.values())
