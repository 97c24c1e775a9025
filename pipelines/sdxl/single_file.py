"""SDXL weights from one safetensors file in the original layout."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from diffusers import StableDiffusionXLPipeline
from torch import nn

from pipelines.sources import build_skeleton, packed_bytes
from pipelines.weights import CheckpointError, read_header

_PARTS = ("text_encoder", "text_encoder_2", "unet", "vae")
_OTHERS = ("tokenizer", "tokenizer_2", "scheduler", "feature_extractor", "image_encoder")
# One tensor that only this part of the original layout has.
_LANDMARKS = {
    "text_encoder": "conditioner.embedders.0.transformer.text_model.final_layer_norm.weight",
    "text_encoder_2": "conditioner.embedders.1.model.ln_final.weight",
    "unet": "model.diffusion_model.input_blocks.0.0.weight",
    "vae": "first_stage_model.decoder.conv_in.weight",
}


class SingleFileSource:
    """One or more parts of the file, as a module or an ``nn.ModuleDict``.

    ``classes`` maps a part to its class; ``config_folder`` has a sub-folder with a
    ``config.json`` for each. Raises ``CheckpointError``.
    """

    def __init__(
        self, file: Path, config_folder: Path, classes: dict[str, type[Any]], dtype: torch.dtype
    ) -> None:
        self._file = file
        self._config_folder = config_folder
        self._names = tuple(classes)
        self._dtype = dtype
        _check_layout(file, self._names)
        self.weight_bytes = sum(
            packed_bytes(build_skeleton(config_folder / name, model_class, dtype))
            for name, model_class in classes.items()
        )

    @property
    def files(self) -> tuple[Path, ...]:
        return (self._file,)

    def read(self) -> nn.Module:
        _check_layout(self._file, self._names)
        unused = [part for part in (*_PARTS, *_OTHERS) if part not in self._names]
        try:
            pipeline = StableDiffusionXLPipeline.from_single_file(
                str(self._file),
                config=str(self._config_folder),
                dtype=self._dtype,
                local_files_only=True,
                add_watermarker=False,
                **dict.fromkeys(unused),
            )
        except KeyError as error:
            raise CheckpointError(self._file, f"tensor {error.args[0]} is missing") from error
        # The library's converter answers a foreign architecture with whatever it stumbles over.
        except (AttributeError, IndexError, TypeError, ValueError) as error:
            message = f"does not fit the configuration in {self._config_folder}: {error}"
            raise CheckpointError(self._file, message) from error
        parts = {name: getattr(pipeline, name) for name in self._names}
        if len(parts) > 1:
            return nn.ModuleDict(parts)
        (module,) = parts.values()
        assert isinstance(module, nn.Module)
        return module


def _check_layout(file: Path, names: Sequence[str]) -> None:
    tensors = read_header(file).tensors
    for name in names:
        if _LANDMARKS[name] not in tensors:
            raise CheckpointError(
                file,
                f"tensor {_LANDMARKS[name]} is missing; an SDXL checkpoint in the original"
                " one-file layout is expected",
            )
