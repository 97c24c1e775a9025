"""What an SDXL checkpoint is made of, read from its configurations and headers alone."""

from __future__ import annotations

import inspect
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from diffusers import AutoencoderKL, UNet2DConditionModel
from transformers import CLIPTextConfig, CLIPTextModel, CLIPTextModelWithProjection, CLIPTokenizer
from transformers.convert_slow_tokenizer import bytes_to_unicode

from pipelines.registry import ModelConfig
from pipelines.sdxl.sampler import Sampler
from pipelines.sdxl.single_file import SingleFileSource
from pipelines.sources import FolderSource, GroupSource, Source
from pipelines.weights import CheckpointError, read_config

_LAYOUT = (
    "the diffusers layout is needed: model_index.json with unet, vae, text_encoder,"
    " text_encoder_2, tokenizer, tokenizer_2 and scheduler folders"
)
_PIPELINES = ("StableDiffusionXLPipeline", "StableDiffusionXLImg2ImgPipeline")
_TEXT_CLASSES = {"text_encoder": CLIPTextModel, "text_encoder_2": CLIPTextModelWithProjection}
_DTYPES = {"float32": torch.float32, "float16": torch.float16, "bfloat16": torch.bfloat16}


@dataclass(frozen=True, slots=True)
class Checkpoint:
    """``dtype`` is the UNet's and the text encoders'; the VAE is always float32, because it
    overflows in float16 and masters are not upcast in place.

    ``zero_negative``: an empty negative prompt stands for zero embeddings.
    """

    sources: Mapping[str, Source]
    tokenizers: tuple[Any, Any]
    sampler: Sampler
    text: tuple[Mapping[str, Any], Mapping[str, Any]]
    unet: Mapping[str, Any]
    vae: Mapping[str, Any]
    dtype: torch.dtype
    zero_negative: bool


def read_checkpoint(config: ModelConfig, device: torch.device) -> Checkpoint:
    """Raises ``CheckpointError`` naming what is wrong and where."""
    dtype = _DTYPES.get(config.dtype)
    if dtype is None:
        raise CheckpointError(config.path, f"dtype {config.dtype!r} is none of {list(_DTYPES)}")
    folder = _config_folder(config)
    index = read_config(folder / "model_index.json")
    if index.get("_class_name") not in _PIPELINES:
        raise CheckpointError(
            folder / "model_index.json",
            f"_class_name is {index.get('_class_name')!r}, not {' or '.join(_PIPELINES)}",
        )
    if index.get("requires_aesthetics_score"):
        raise CheckpointError(folder / "model_index.json", "is a refiner; a base model is needed")
    sources = _sources(config, folder, dtype)
    text = (_text_config(folder / "text_encoder"), _text_config(folder / "text_encoder_2"))
    unet = _part_config(folder / "unet", UNet2DConditionModel)
    vae = _part_config(folder / "vae", AutoencoderKL)
    _check_fit(folder / "unet" / "config.json", unet, vae, text)
    return Checkpoint(
        sources=sources,
        tokenizers=(
            _tokenizer(folder / "tokenizer", text[0]),
            _tokenizer(folder / "tokenizer_2", text[1]),
        ),
        sampler=Sampler(folder / "scheduler", device),
        text=text,
        unet=unet,
        vae=vae,
        dtype=dtype,
        zero_negative=bool(index.get("force_zeros_for_empty_prompt", True)),
    )


def _config_folder(config: ModelConfig) -> Path:
    if config.path.is_dir():
        if not (config.path / "model_index.json").is_file():
            raise CheckpointError(config.path, f"has no model_index.json; {_LAYOUT}")
        return config.path
    if not config.path.exists():
        raise CheckpointError(config.path, "no such file or folder")
    if config.config_path is None:
        raise CheckpointError(
            config.path, f"is a single file and needs a config_path beside it; {_LAYOUT}"
        )
    if not (config.config_path / "model_index.json").is_file():
        raise CheckpointError(config.config_path, f"has no model_index.json; {_LAYOUT}")
    return config.config_path


def _part_config(folder: Path, model_class: Any) -> Mapping[str, Any]:
    """The configuration with the class's own defaults for what it leaves out."""
    parameters = inspect.signature(model_class.__init__).parameters
    defaults = {name: p.default for name, p in parameters.items() if p.default is not p.empty}
    return defaults | read_config(folder / "config.json")


def _text_config(folder: Path) -> Mapping[str, Any]:
    config = CLIPTextConfig.from_pretrained(str(folder), local_files_only=True)
    values: dict[str, Any] = config.to_dict()
    return values


def _sources(config: ModelConfig, folder: Path, dtype: torch.dtype) -> Mapping[str, Source]:
    if config.path.is_dir():
        text = {n: FolderSource(folder / n, c, dtype) for n, c in _TEXT_CLASSES.items()}
        return {
            "text_encoders": GroupSource(text),
            "unet": FolderSource(folder / "unet", UNet2DConditionModel, dtype),
            "vae": FolderSource(folder / "vae", AutoencoderKL, torch.float32),
        }
    file = config.path
    unet, vae = {"unet": UNet2DConditionModel}, {"vae": AutoencoderKL}
    return {
        "text_encoders": SingleFileSource(file, folder, dict(_TEXT_CLASSES), dtype),
        "unet": SingleFileSource(file, folder, unet, dtype),
        "vae": SingleFileSource(file, folder, vae, torch.float32),
    }


def _tokenizer(folder: Path, text: Mapping[str, Any]) -> Any:
    """The tokenizer, checked to be whole and to fit the text encoder that ``text`` describes."""
    if not folder.is_dir():
        raise CheckpointError(folder, "no such folder; the SDXL tokenizer belongs there")
    try:
        tokenizer = CLIPTokenizer.from_pretrained(str(folder), local_files_only=True)
    # The library's Rust parser has no exception type of its own for a malformed vocabulary.
    except Exception as error:
        raise CheckpointError(folder, f"its tokenizer cannot be read: {error}") from error
    # From a folder without its vocabulary the library makes an empty tokenizer.
    if not tokenizer.get_vocab().keys() >= set(bytes_to_unicode().values()):
        raise CheckpointError(
            folder, "its tokenizer does not spell every byte; is vocab.json missing?"
        )
    if len(tokenizer) > text["vocab_size"]:
        problem = f"its tokenizer has {len(tokenizer)} ids, its text encoder {text['vocab_size']}"
        raise CheckpointError(folder, problem)
    longest, read = tokenizer.model_max_length, text["max_position_embeddings"]
    if longest > read:
        raise CheckpointError(
            folder,
            f"model_max_length is {longest}, the text encoder reads {read} tokens;"
            " is tokenizer_config.json missing?",
        )
    return tokenizer


def _check_fit(
    path: Path,
    unet: Mapping[str, Any],
    vae: Mapping[str, Any],
    text: tuple[Mapping[str, Any], Mapping[str, Any]],
) -> None:
    """The parts fit each other, and the UNet is of the kind that the loop drives."""
    channels = vae["latent_channels"]
    time_ids = 6 * (unet["addition_time_embed_dim"] or 0)
    expected = {
        "in_channels": channels,
        "out_channels": channels,
        "addition_embed_type": "text_time",
        "time_cond_proj_dim": None,
        "cross_attention_dim": sum(config["hidden_size"] for config in text),
        "projection_class_embeddings_input_dim": time_ids + text[1]["projection_dim"],
    }
    for key, value in expected.items():
        if unet[key] != value:
            raise CheckpointError(
                path, f"{key} is {unet[key]}, where SDXL's other parts need {value}"
            )
