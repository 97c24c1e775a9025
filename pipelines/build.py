"""What a run's bits follow from beside its request: who goes on with a state must be the same."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Mapping
from importlib import metadata
from pathlib import Path
from typing import Any

import torch

from pipelines.device import Device

# Those that compute, and the one that writes states down.
_LIBRARIES = ("torch", "diffusers", "transformers", "safetensors", "numpy")


def build_facts(device: Device) -> Mapping[str, str]:
    """The software to its last line, and the device; threads sum up in another order."""
    facts: Mapping[str, Any] = device.describe()
    libraries = {name: metadata.version(name) for name in _LIBRARIES}
    kernels = "" if device.kind == "cuda" else torch.backends.cpu.get_cpu_capability()
    return {
        **libraries,
        "pipelines": _source_digest(),
        "cuda": str(facts["cuda"]) if device.kind == "cuda" else "",
        "device": f"{facts['kind']} {facts['name']} {kernels}".strip(),
        "threads": str(torch.get_num_threads()) if device.kind == "cpu" else "",
    }


def model_facts(paths: Iterable[Path], dtype: str) -> Mapping[str, str]:
    """A checkpoint as its files' names, sizes and times tell it apart from others: to read all of
    it takes minutes."""
    digest = hashlib.sha256()
    for path in paths:
        for file in sorted(path.rglob("*")) if path.is_dir() else [path]:
            if file.is_file():
                stat = file.stat()
                name = file.relative_to(path.parent)
                digest.update(f"{name} {stat.st_size} {stat.st_mtime_ns}\n".encode())
    return {"model": digest.hexdigest(), "dtype": dtype}


def _source_digest() -> str:
    digest = hashlib.sha256()
    for file in sorted(Path(__file__).parent.rglob("*.py")):
        digest.update(file.read_bytes())
    return digest.hexdigest()
