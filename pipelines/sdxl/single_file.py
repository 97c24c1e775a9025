"""SDXL weights from one safetensors file in the original layout."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import torch
from diffusers import StableDiffusionXLPipeline
from diffusers.loaders.single_file_utils import (
    convert_ldm_clip_checkpoint,
    convert_ldm_unet_checkpoint,
    convert_ldm_vae_checkpoint,
    convert_open_clip_checkpoint,
)
from torch import nn

from pipelines.integrity import check_missing, check_shapes
from pipelines.sources import build_skeleton, packed_bytes
from pipelines.weights import CheckpointError, read_header

_PARTS = ("text_encoder", "text_encoder_2", "unet", "vae")
_OTHERS = ("tokenizer", "tokenizer_2", "scheduler", "feature_extractor", "image_encoder")
_OPEN_CLIP = "conditioner.embedders.1.model."
# One tensor that only this part of the original layout has.
_LANDMARKS = {
    "text_encoder": "conditioner.embedders.0.transformer.text_model.final_layer_norm.weight",
    "text_encoder_2": f"{_OPEN_CLIP}ln_final.weight",
    "unet": "model.diffusion_model.input_blocks.0.0.weight",
    "vae": "first_stage_model.decoder.conv_in.weight",
}
# The library's own renaming, which reads shapes only and so needs no data.
_RENAME: Mapping[str, Callable[[dict[str, torch.Tensor], Any], dict[str, torch.Tensor]]] = {
    "text_encoder": lambda held, _: convert_ldm_clip_checkpoint(held),
    "text_encoder_2": lambda held, module: convert_open_clip_checkpoint(module, held, _OPEN_CLIP),
    "unet": lambda held, module: convert_ldm_unet_checkpoint(held, module.config),
    "vae": lambda held, module: convert_ldm_vae_checkpoint(held, module.config),
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
        self._dtype = dtype
        self._skeletons = {
            name: build_skeleton(config_folder / name, model_class, dtype)
            for name, model_class in classes.items()
        }
        self._check()
        self.weight_bytes = sum(map(packed_bytes, self._skeletons.values()))

    @property
    def files(self) -> tuple[Path, ...]:
        return (self._file,)

    def read(self) -> nn.Module:
        self._check()
        unused = [part for part in (*_PARTS, *_OTHERS) if part not in self._skeletons]
        pipeline = StableDiffusionXLPipeline.from_single_file(
            str(self._file),
            config=str(self._config_folder),
            dtype=self._dtype,
            local_files_only=True,
            add_watermarker=False,
            **dict.fromkeys(unused),
        )
        parts: dict[str, nn.Module] = {name: getattr(pipeline, name) for name in self._skeletons}
        return nn.ModuleDict(parts) if len(parts) > 1 else next(iter(parts.values()))

    def _check(self) -> None:
        """Names and shapes against the configuration, from the header alone: the library would
        leave a missing tensor without data, and fail over it without its name."""
        header = read_header(self._file)
        held = {
            name: torch.empty(info.shape, dtype=info.dtype, device="meta")
            for name, info in header.tensors.items()
        }
        for part, skeleton in self._skeletons.items():
            if _LANDMARKS[part] not in held:
                raise CheckpointError(
                    self._file,
                    f"tensor {_LANDMARKS[part]} is missing; an SDXL checkpoint in the original"
                    " one-file layout is expected",
                )
            try:
                renamed = _RENAME[part](dict(held), skeleton)
            except KeyError as error:
                check_missing(self._file, [str(error.args[0])])
                raise
            if not hasattr(skeleton, "text_model"):
                renamed = {name.removeprefix("text_model."): t for name, t in renamed.items()}
            check_shapes(self._file, {n: tuple(t.shape) for n, t in renamed.items()}, skeleton)
            check_missing(self._file, set(skeleton.state_dict()) - set(renamed))
