"""From a folder to a pipeline: configurations, headers and the tokenizer, no weights."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch
from diffusers import AutoencoderKLWan, WanTransformer3DModel, WanVACETransformer3DModel
from transformers import AutoTokenizer, CLIPVisionModel, UMT5EncoderModel
from transformers.models.clip.image_processing_pil_clip import CLIPImageProcessorPil

from pipelines.component import Component
from pipelines.device import Device
from pipelines.registry import ModelConfig
from pipelines.sources import FolderSource, Source
from pipelines.wan.checkpoint import Checkpoint, read_checkpoint
from pipelines.wan.pipeline import Wan
from pipelines.wan.plain import VaceSource
from pipelines.wan.prompt import Tokenizer
from pipelines.weights import CheckpointError


def open_wan(config: ModelConfig, device: Device, working_bytes_factor: float) -> Wan:
    """Raises ``CheckpointError``. The VAE and an image encoder stay in fp32 whatever
    ``config.dtype`` is."""
    checkpoint = read_checkpoint(config.path)
    dtype: torch.dtype = getattr(torch, config.dtype)
    parts = {
        part: Component(f"{config.name}.{part}", source, device)
        for part, source in _sources(checkpoint, dtype).items()
    }
    processor = None
    if checkpoint.image_encoder is not None:
        processor = _read(CLIPImageProcessorPil, config.path / "image_processor")
    tokenizer = Tokenizer(_read(AutoTokenizer, config.path / "tokenizer"))
    return Wan(
        config.name, checkpoint, parts, tokenizer, processor, dtype, device, working_bytes_factor
    )


def _sources(checkpoint: Checkpoint, dtype: torch.dtype) -> dict[str, Source]:
    path = checkpoint.path
    sources: dict[str, Source] = {
        "text_encoder": FolderSource(path / "text_encoder", UMT5EncoderModel, dtype),
        "vae": FolderSource(path / "vae", AutoencoderKLWan, torch.float32),
    }
    if checkpoint.vace:
        sources["transformer"] = VaceSource(path / "transformer", WanVACETransformer3DModel, dtype)
    else:
        sources["transformer"] = FolderSource(path / "transformer", WanTransformer3DModel, dtype)
    if checkpoint.image_encoder is not None:
        sources["image_encoder"] = FolderSource(
            path / "image_encoder", CLIPVisionModel, torch.float32
        )
    return sources


def _read(reader: Any, folder: Path) -> Any:
    if not folder.is_dir():
        raise CheckpointError(folder, "no such folder")
    try:
        return reader.from_pretrained(str(folder), local_files_only=True)
    # Foreign files in the library's parsers: each format fails in its own way.
    except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
        raise CheckpointError(folder, f"cannot be read: {error}") from error
