"""What the checkpoints hold, and whether they can be used: everything that a run would find out."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, Literal

from ourvidz.config.settings import Model
from pipelines.base import Pipeline
from pipelines.device import Device
from pipelines.qwen.folder import resolve_snapshot
from pipelines.registry import ModelConfig, open_pipeline
from pipelines.setup import prepare
from pipelines.wan.checkpoint import read_checkpoint
from pipelines.weights import CheckpointError, Header, read_config, verify

Family = Literal["sdxl", "wan", "qwen"]
Dtype = Literal["float32", "float16", "bfloat16"]

_CAPABILITIES = {
    "sdxl": "text to image, image to image",
    "qwen": "enhance, chat",
}
_DTYPES: Mapping[str, Dtype] = {
    "torch.float32": "float32",
    "torch.float16": "float16",
    "torch.bfloat16": "bfloat16",
}


class Broken(Exception):
    """A checkpoint cannot be used; the message names the file, and the tensor if it is one's."""


def model_report(name: str, model: Model) -> Mapping[str, Any]:
    """One model in plain values; ``error`` says why it cannot be opened. Reads no weights."""
    report: dict[str, Any] = {
        "name": name,
        "family": model.family,
        "label": model.label,
        "path": str(model.path),
        "dtype": model.dtype,
        "components": {},
        "capability": None,
        "error": None,
    }
    try:
        components = _open(name, model).components
        report["components"] = {key: part.weight_bytes for key, part in components.items()}
        report["capability"] = _capability(model)
    except (CheckpointError, OSError) as error:
        report["error"] = str(error)
    return report


def verified(name: str, path: Path, model: Model | None) -> Iterator[str]:
    """Check headers, then read every component and check its values; yields what was found good.

    Without ``model`` its family is told from the files; where they do not tell, the headers are all
    that is checked. Raises ``Broken``.
    """
    try:
        folder = resolve_snapshot(path)
        # First what names a wrong layout, where it is known which one is wanted.
        pipeline = None if model is None else _open(name, model)
        headers = verify(folder)
        for header in headers:
            yield f"{header.path}: {len(header.tensors)} tensors, {header.nbytes:,} bytes"
        if pipeline is None and (guessed := _guessed(folder, headers)) is not None:
            pipeline = _open(name, guessed)
        if pipeline is None:
            yield "headers are whole; no model_index.json or config.json says what the weights are"
            return
        for component in pipeline.components.values():
            component.stage()
            component.unstage()
            yield f"{component.name}: {component.weight_bytes:,} bytes, every tensor there, finite"
    except (CheckpointError, OSError) as error:
        raise Broken(str(error)) from error


def _open(name: str, model: Model) -> Pipeline:
    """On the CPU, whatever device is configured: a service may be using that one."""
    prepare()
    config = ModelConfig(name, model.family, model.path, model.config_path, model.dtype)
    return open_pipeline(config, Device("cpu"), 1.0)


def _capability(model: Model) -> str:
    if model.family == "wan":
        return f"video, reference modes {', '.join(read_checkpoint(model.path).modes)}"
    return _CAPABILITIES[model.family]


def _guessed(folder: Path, headers: tuple[Header, ...]) -> Model | None:
    """The model that a folder holds, in the dtype of most of its tensors."""
    family = _family(folder)
    if family is None:
        return None
    held = Counter(str(info.dtype) for header in headers for info in header.tensors.values())
    dtypes = [_DTYPES[dtype] for dtype, _ in held.most_common() if dtype in _DTYPES]
    return Model(family=family, path=folder, dtype=dtypes[0] if dtypes else "float32")


def _family(folder: Path) -> Family | None:
    if (folder / "model_index.json").is_file():
        pipeline = str(read_config(folder / "model_index.json").get("_class_name"))
        if pipeline.startswith("StableDiffusionXL"):
            return "sdxl"
        return "wan" if pipeline.startswith("Wan") else None
    if (folder / "config.json").is_file():
        return "qwen" if read_config(folder / "config.json").get("model_type") == "qwen2" else None
    return None
