"""Checkpoint files: which ones a folder offers, and what their headers promise.

Source: the safetensors format, https://huggingface.co/docs/safetensors: eight bytes of header
length (little endian), a JSON header, then the tensors' bytes without a gap.
"""

from __future__ import annotations

import json
import math
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

# The format's own limit.
_HEADER_BYTES_MAX = 100_000_000

_DTYPES: Mapping[str, torch.dtype] = {
    "F64": torch.float64,
    "F32": torch.float32,
    "F16": torch.float16,
    "BF16": torch.bfloat16,
    "F8_E4M3": torch.float8_e4m3fn,
    "F8_E5M2": torch.float8_e5m2,
    "I64": torch.int64,
    "I32": torch.int32,
    "I16": torch.int16,
    "I8": torch.int8,
    "U8": torch.uint8,
    "BOOL": torch.bool,
    "C64": torch.complex64,
}


class CheckpointError(Exception):
    """A checkpoint cannot be used. Trying again with the same files would fail the same way."""

    def __init__(self, path: Path, message: str) -> None:
        super().__init__(f"{path}: {message}")
        self.path = path


@dataclass(frozen=True, slots=True)
class TensorInfo:
    dtype: torch.dtype
    shape: tuple[int, ...]
    nbytes: int


@dataclass(frozen=True, slots=True)
class Header:
    """What one file holds. ``nbytes`` is the sum over its tensors."""

    path: Path
    tensors: Mapping[str, TensorInfo]
    metadata: Mapping[str, str]

    @property
    def nbytes(self) -> int:
        return sum(info.nbytes for info in self.tensors.values())


def read_header(path: Path) -> Header:
    """Read and check a safetensors header. Raises ``CheckpointError`` unless the file is whole."""
    try:
        size = path.stat().st_size
        with path.open("rb") as file:
            length = int.from_bytes(file.read(8), "little")
            if size >= 8 and length <= min(_HEADER_BYTES_MAX, size - 8):
                raw = file.read(length)
            else:
                file.seek(0)
                raise CheckpointError(path, _no_header(size, length, file.read(40)))
    except FileNotFoundError:
        raise CheckpointError(path, "no such file") from None
    except IsADirectoryError:
        raise CheckpointError(path, "a folder, where a safetensors file is expected") from None
    entries = _parse(path, raw)
    metadata = entries.pop("__metadata__", {})
    if not isinstance(metadata, dict):
        raise CheckpointError(path, "the __metadata__ of its safetensors header is no JSON object")
    tensors, ends = {}, []
    for name, entry in entries.items():
        tensors[name], span = _entry(path, name, entry)
        ends.append(span)
    _check_spans(path, sorted(ends), size - 8 - length)
    return Header(path, tensors, metadata)


def _no_header(size: int, length: int, start: bytes) -> str:
    if size == 0:
        return "an empty file, where a safetensors file is expected"
    if start.startswith(b"version https://git-lfs"):
        return "a Git LFS pointer, not the file itself; fetch it with `git lfs pull`"
    if start[:2] == b"PK" or start[:1] == b"\x80":
        return "a pickle (.bin/.ckpt), which is never read; convert it to safetensors"
    return (
        f"not a safetensors file, or truncated: {size} bytes, where its first eight bytes"
        f" announce a header of {length}"
    )


def _parse(path: Path, raw: bytes) -> dict[str, Any]:
    try:
        entries = json.loads(raw)
    except (ValueError, RecursionError):
        raise CheckpointError(path, "its safetensors header is no JSON") from None
    if not isinstance(entries, dict):
        raise CheckpointError(path, "its safetensors header is no JSON object")
    return entries


def _entry(path: Path, name: str, entry: Any) -> tuple[TensorInfo, tuple[int, int]]:
    try:
        dtype = _DTYPES[entry["dtype"]]
        shape = tuple(int(n) for n in entry["shape"])
        begin, end = (int(n) for n in entry["data_offsets"])
    except (KeyError, TypeError, ValueError):
        raise CheckpointError(
            path, f"tensor {name}: header entry {str(entry)[:200]!r} is not understood"
        ) from None
    nbytes = math.prod(shape) * dtype.itemsize
    if min(shape, default=0) < 0 or end - begin != nbytes:
        raise CheckpointError(
            path, f"tensor {name}: {entry['dtype']} {shape} takes {nbytes} bytes, not {end - begin}"
        )
    return TensorInfo(dtype, shape, nbytes), (begin, end)


def _check_spans(path: Path, spans: list[tuple[int, int]], payload: int) -> None:
    position = 0
    for begin, end in spans:
        if begin != position:
            raise CheckpointError(path, f"tensor bytes are missing or overlap at offset {position}")
        position = end
    if position != payload:
        raise CheckpointError(
            path, f"truncated or padded: {payload} bytes of tensors, the header names {position}"
        )


@dataclass(frozen=True, slots=True)
class Chosen:
    """The files the library's loader will read, and the ``variant`` to ask it for."""

    files: tuple[Path, ...]
    variant: str | None


_VARIANTS: Mapping[torch.dtype, str] = {torch.float16: "fp16", torch.bfloat16: "bf16"}


def choose_files(folder: Path, stem: str, dtype: torch.dtype) -> Chosen:
    """The weight files of ``folder``: ``stem`` is ``model`` or ``diffusion_pytorch_model``.

    The variant of the wanted dtype is preferred, then the plain files, then any other variant
    known; in each case the index of a sharded checkpoint or the one file.
    """
    known = [*_VARIANTS.values()]
    wanted = _VARIANTS.get(dtype)
    for variant in [wanted, None, *known] if wanted else [None, *known]:
        infix = f".{variant}" if variant else ""
        index = folder / f"{stem}.safetensors.index{infix}.json"
        single = folder / f"{stem}{infix}.safetensors"
        # Where both exist, transformers takes the single file and diffusers the shards.
        if single.is_file() and (stem == "model" or not index.is_file()):
            return Chosen((single,), variant)
        if index.is_file():
            return Chosen(_shards(index), variant)
    raise CheckpointError(folder, _no_files(folder, stem))


def _no_files(folder: Path, stem: str) -> str:
    if not folder.is_dir():
        return "no such folder"
    pickles = [p.name for p in sorted(folder.glob("*.bin"))]
    hint = f"; pickles such as {pickles[0]} are never read" if pickles else ""
    return f"holds neither {stem}.safetensors nor {stem}.safetensors.index.json{hint}"


def _shards(index: Path) -> tuple[Path, ...]:
    try:
        weight_map = json.loads(index.read_bytes())["weight_map"]
        names = sorted({str(name) for name in weight_map.values()})
    except (ValueError, KeyError, TypeError, AttributeError):
        raise CheckpointError(index, "no JSON object with a `weight_map` of shards") from None
    files = tuple(index.parent / name for name in names)
    held = {key for file in files for key in read_header(file).tensors}
    missing = sorted(set(weight_map) - held)
    if missing:
        raise CheckpointError(index, f"names tensor {missing[0]}, which no shard holds")
    return files


def read_config(path: Path) -> dict[str, Any]:
    """A JSON configuration file as a dict. Raises ``CheckpointError``."""
    try:
        config = json.loads(path.read_bytes())
    except FileNotFoundError:
        raise CheckpointError(path, "no such file") from None
    except (ValueError, RecursionError):
        raise CheckpointError(path, "no JSON") from None
    if not isinstance(config, dict):
        raise CheckpointError(path, "no JSON object")
    return config


def verify(path: Path) -> tuple[Header, ...]:
    """Check the headers of one safetensors file, or of every component of a model folder, each
    in the files that would be read for float32. Raises ``CheckpointError``."""
    if not path.is_dir():
        return (read_header(path),)
    headers: list[Header] = []
    folders = [path, *sorted(p for p in path.iterdir() if p.is_dir())]
    for folder in folders:
        for stem in ("diffusion_pytorch_model", "model"):
            if any(folder.glob(f"{stem}*.safetensors")):
                chosen = choose_files(folder, stem, torch.float32)
                headers += (read_header(file) for file in chosen.files)
    if not headers:
        raise CheckpointError(path, "holds no safetensors weights in the library's layout")
    return tuple(headers)
