"""Headers tell whole files from broken ones, and folders which files are meant."""

import json
import struct
from pathlib import Path
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from safetensors.torch import save, save_file

from pipelines.weights import CheckpointError, choose_files, read_config, read_header, verify


def packed(header: Any, payload: bytes = b"") -> bytes:
    raw = header if isinstance(header, bytes) else json.dumps(header).encode()
    return struct.pack("<Q", len(raw)) + raw + payload


def entry(dtype: str, shape: list[int], begin: int, end: int) -> dict[str, Any]:
    return {"dtype": dtype, "shape": shape, "data_offsets": [begin, end]}


def test_a_header_gives_exact_bytes_shapes_and_metadata(tmp_path: Path) -> None:
    tensors = {
        "a": torch.zeros(3, 5, dtype=torch.bfloat16),
        "b": torch.zeros(7, dtype=torch.float32),
        "scalar": torch.zeros((), dtype=torch.int64),
        "none": torch.zeros(0, 4),
    }
    save_file(tensors, tmp_path / "x.safetensors", metadata={"format": "pt"})
    header = read_header(tmp_path / "x.safetensors")
    assert header.nbytes == 30 + 28 + 8
    assert {n: (i.dtype, i.shape) for n, i in header.tensors.items()} == {
        n: (t.dtype, tuple(t.shape)) for n, t in tensors.items()
    }
    assert header.metadata == {"format": "pt"}


WHOLE = save({"a": torch.zeros(4), "b": torch.ones(2, 3)})


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"", "an empty file"),
        (b"1234", "truncated"),
        (b"this is no checkpoint at all, just text", "not a safetensors file"),
        (b"version https://git-lfs.github.com/spec/v1\noid sha256:0", "Git LFS pointer"),
        (b"PK\x03\x04" + b"\xff" * 60, "a pickle"),
        (b"\x80\x02" + b"\xff" * 60, "a pickle"),
        (struct.pack("<Q", 2**63) + b"{}", "announce a header of 9223372036854775808"),
        (struct.pack("<Q", 100_000_001) + b"{}", "announce a header of 100000001"),
        (WHOLE[:-1], "truncated or padded: 39 bytes of tensors, the header names 40"),
        (WHOLE + b"\0", "truncated or padded: 41 bytes"),
        (WHOLE[:20], "truncated"),
        (packed(b"{not json"), "is no JSON"),
        (packed(b"\xff\xfe{}"), "is no JSON"),
        (packed(b"[" * 90_000), "is no JSON"),
        (packed([]), "no JSON object"),
        (packed({"__metadata__": 3}), "__metadata__ of its safetensors header is no JSON object"),
        (packed({"a": entry("F32", [2], 0, 4)}, b"0000"), "tensor a: F32 .* takes 8 bytes, not 4"),
        (packed({"a": entry("F32", [-1], 0, -4)}), "tensor a"),
        (packed({"a": entry("Q9", [1], 0, 4)}, b"0000"), "tensor a: .* is not understood"),
        (packed({"a": {"dtype": "F32"}}), "tensor a: .* is not understood"),
        (packed({"a": "nothing"}), "tensor a: .* is not understood"),
        (packed({"a": entry("F32", [1], 4, 8)}, b"0" * 8), "missing or overlap at offset 0"),
        (
            packed({"a": entry("F32", [1], 0, 4), "b": entry("F32", [1], 0, 4)}, b"0000"),
            "missing or overlap at offset 4",
        ),
    ],
)
def test_a_broken_file_is_refused_by_name(tmp_path: Path, content: bytes, message: str) -> None:
    path = tmp_path / "broken.safetensors"
    path.write_bytes(content)
    with pytest.raises(CheckpointError, match=message) as caught:
        read_header(path)
    assert caught.value.path == path
    assert str(caught.value).startswith(f"{path}: ")


@given(st.binary(max_size=200))
@settings(max_examples=200, deadline=None)
def test_no_bytes_crash_the_header(tmp_path_factory: pytest.TempPathFactory, tail: bytes) -> None:
    path = tmp_path_factory.getbasetemp() / "fuzzed.safetensors"
    for content in (tail, packed(tail)):
        path.write_bytes(content)
        try:
            read_header(path)
        except CheckpointError:
            continue
        assert content[8:10] == b"{}"


def test_an_absent_file_and_a_folder_are_told_apart(tmp_path: Path) -> None:
    with pytest.raises(CheckpointError, match="no such file"):
        read_header(tmp_path / "absent.safetensors")
    with pytest.raises(CheckpointError, match="a folder, where"):
        read_header(tmp_path)


STEM = "diffusion_pytorch_model"


def make(folder: Path, *names: str) -> None:
    for name in names:
        save_file({"a": torch.zeros(2)}, folder / name)


def test_the_variant_of_the_wanted_dtype_comes_first(tmp_path: Path) -> None:
    make(tmp_path, f"{STEM}.safetensors", f"{STEM}.fp16.safetensors", f"{STEM}.ema.safetensors")
    for dtype, name, variant in (
        (torch.float32, f"{STEM}.safetensors", None),
        (torch.bfloat16, f"{STEM}.safetensors", None),
        (torch.float16, f"{STEM}.fp16.safetensors", "fp16"),
    ):
        chosen = choose_files(tmp_path, STEM, dtype)
        assert ([f.name for f in chosen.files], chosen.variant) == ([name], variant)


def test_the_only_variant_there_is_will_do(tmp_path: Path) -> None:
    make(tmp_path, f"{STEM}.fp16.safetensors")
    chosen = choose_files(tmp_path, STEM, torch.float32)
    assert ([f.name for f in chosen.files], chosen.variant) == (
        [f"{STEM}.fp16.safetensors"],
        "fp16",
    )


def shard(folder: Path, stem: str, weight_map: dict[str, str]) -> None:
    for name in set(weight_map.values()):
        held = {key: torch.zeros(2) for key, value in weight_map.items() if value == name}
        save_file(held, folder / name)
    index = folder / f"{stem}.safetensors.index.json"
    index.write_text(json.dumps({"metadata": {}, "weight_map": weight_map}))


@pytest.mark.parametrize(("stem", "single_first"), [("model", True), (STEM, False)])
def test_shards_and_a_single_file_are_chosen_as_each_library_does(
    tmp_path: Path, stem: str, single_first: bool
) -> None:
    shard(tmp_path, stem, {"a": "1.safetensors", "b": "2.safetensors", "c": "1.safetensors"})
    sharded = [tmp_path / "1.safetensors", tmp_path / "2.safetensors"]
    assert list(choose_files(tmp_path, stem, torch.float32).files) == sharded
    make(tmp_path, f"{stem}.safetensors")
    single = [tmp_path / f"{stem}.safetensors"]
    chosen = choose_files(tmp_path, stem, torch.float32).files
    assert list(chosen) == (single if single_first else sharded)


def test_a_bad_index_is_refused_by_name(tmp_path: Path) -> None:
    shard(tmp_path, "model", {"a": "1.safetensors", "b": "2.safetensors"})
    index = tmp_path / "model.safetensors.index.json"
    whole = json.loads(index.read_text())
    whole["weight_map"]["lost"] = "2.safetensors"
    index.write_text(json.dumps(whole))
    with pytest.raises(CheckpointError, match="names tensor lost, which no shard holds"):
        choose_files(tmp_path, "model", torch.float32)
    for content in ("{", "[]", "{}", '{"weight_map": 3}'):
        index.write_text(content)
        with pytest.raises(CheckpointError, match="weight_map"):
            choose_files(tmp_path, "model", torch.float32)
    shard(tmp_path, "model", {"a": "1.safetensors", "b": "2.safetensors"})
    (tmp_path / "2.safetensors").unlink()
    with pytest.raises(CheckpointError, match=r"2\.safetensors: no such file"):
        choose_files(tmp_path, "model", torch.float32)


def test_a_folder_without_weights_says_what_is_looked_for(tmp_path: Path) -> None:
    (tmp_path / "pytorch_model.bin").write_bytes(b"x")
    with pytest.raises(CheckpointError, match=r"neither model\.safetensors .*_model\.bin"):
        choose_files(tmp_path, "model", torch.float32)
    with pytest.raises(CheckpointError, match="no such folder"):
        choose_files(tmp_path / "absent", "model", torch.float32)


@pytest.mark.parametrize(("content", "message"), [("{", "no JSON"), ("[1]", "no JSON object")])
def test_a_bad_configuration_is_refused(tmp_path: Path, content: str, message: str) -> None:
    path = tmp_path / "config.json"
    with pytest.raises(CheckpointError, match="no such file"):
        read_config(path)
    path.write_text(content)
    with pytest.raises(CheckpointError, match=message):
        read_config(path)


def test_verify_reads_one_file_or_every_component_of_a_folder(tmp_path: Path) -> None:
    for part, stem in (("unet", STEM), ("text_encoder", "model")):
        (tmp_path / part).mkdir()
        make(tmp_path / part, f"{stem}.safetensors")
    make(tmp_path / "unet", f"{STEM}.fp16.safetensors")
    assert {h.path.parent.name for h in verify(tmp_path)} == {"unet", "text_encoder"}
    (header,) = verify(tmp_path / "unet" / f"{STEM}.fp16.safetensors")
    assert header.nbytes == 8
    broken = tmp_path / "text_encoder" / "model.safetensors"
    broken.write_bytes(broken.read_bytes()[:-1])
    with pytest.raises(CheckpointError, match="truncated") as caught:
        verify(tmp_path)
    assert caught.value.path == broken


def test_verify_names_the_layout_that_a_foreign_folder_lacks(tmp_path: Path) -> None:
    make(tmp_path, "Wan2.1_VAE.safetensors")
    with pytest.raises(CheckpointError, match="no safetensors weights in the library's layout"):
        verify(tmp_path)
