"""A tiny SDXL: the real architecture with narrow layers, as a folder and as one file."""

from __future__ import annotations

from functools import partial
from pathlib import Path
from typing import Any

import torch
from diffusers import (
    AutoencoderKL,
    EulerDiscreteScheduler,
    StableDiffusionXLPipeline,
    UNet2DConditionModel,
)
from safetensors.torch import save_file
from transformers import CLIPTextConfig, CLIPTextModel, CLIPTextModelWithProjection, CLIPTokenizer

from pipelines.sources import LOAD_LOCK
from pipelines.tiny.publish import publish
from pipelines.tiny.sdxl_original import original_state_dict

_SEED = 20250701
# Loading from one file tells the encoders apart by their width.
_TEXT_WIDTHS = (32, 64)
_PROJECTION = 64
_TIME_EMBED = 8


def make_sdxl(root: Path) -> None:
    """Make ``root/sdxl`` and ``root/sdxl.safetensors``, each unless it exists."""
    publish(root / "sdxl", _build_folder)
    publish(root / "sdxl.safetensors", partial(_build_file, root / "sdxl"))


def _build_folder(target: Path) -> None:
    with LOAD_LOCK, torch.random.fork_rng(devices=[]):
        torch.manual_seed(_SEED)
        pipeline = StableDiffusionXLPipeline(
            vae=_vae(),
            text_encoder=CLIPTextModel(_text_config(_TEXT_WIDTHS[0], "quick_gelu")),
            text_encoder_2=CLIPTextModelWithProjection(_text_config(_TEXT_WIDTHS[1], "gelu")),
            tokenizer=clip_tokenizer("<|endoftext|>"),
            tokenizer_2=clip_tokenizer("!"),
            unet=_unet(),
            scheduler=_scheduler(),
            add_watermarker=False,
        )
        pipeline.save_pretrained(target)


def _build_file(folder: Path, target: Path) -> None:
    with LOAD_LOCK:
        pipeline = StableDiffusionXLPipeline.from_pretrained(
            str(folder), local_files_only=True, use_safetensors=True
        )
        save_file(original_state_dict(pipeline), target)


def clip_tokenizer(pad: str) -> CLIPTokenizer:
    """CLIP's byte-level vocabulary without any merge: one token a byte, 77 at most."""
    alphabet = _byte_alphabet()
    words = [*alphabet, *(letter + "</w>" for letter in alphabet)]
    words += ["<|startoftext|>", "<|endoftext|>"]
    vocabulary = {word: number for number, word in enumerate(words)}
    return CLIPTokenizer(vocab=vocabulary, merges=[], pad_token=pad, model_max_length=77)


def _byte_alphabet() -> list[str]:
    """A printable character for each byte, in the order of byte-level BPE: printable bytes stand
    for themselves, the others are moved up to 256 and beyond."""
    printable = [*range(33, 127), *range(161, 173), *range(174, 256)]
    hidden = [byte for byte in range(256) if byte not in printable]
    return [chr(byte) for byte in printable] + [chr(256 + i) for i in range(len(hidden))]


def _text_config(width: int, activation: str) -> CLIPTextConfig:
    return CLIPTextConfig(
        vocab_size=514,
        hidden_size=width,
        intermediate_size=4 * width,
        num_hidden_layers=2,
        num_attention_heads=width // 16,
        max_position_embeddings=77,
        hidden_act=activation,
        projection_dim=_PROJECTION,
        bos_token_id=512,
        eos_token_id=513,
        pad_token_id=513 if activation == "quick_gelu" else 0,
    )


def _unet() -> Any:
    return UNet2DConditionModel(
        sample_size=16,
        block_out_channels=(4, 8, 16),
        # Attention at the smallest level only: at 1024x1024 the others would take minutes.
        down_block_types=("DownBlock2D", "DownBlock2D", "CrossAttnDownBlock2D"),
        up_block_types=("CrossAttnUpBlock2D", "UpBlock2D", "UpBlock2D"),
        layers_per_block=1,
        transformer_layers_per_block=(1, 1, 2),
        attention_head_dim=(1, 1, 2),
        norm_num_groups=4,
        use_linear_projection=True,
        cross_attention_dim=sum(_TEXT_WIDTHS),
        addition_embed_type="text_time",
        addition_time_embed_dim=_TIME_EMBED,
        projection_class_embeddings_input_dim=6 * _TIME_EMBED + _PROJECTION,
    )


def _vae() -> Any:
    return AutoencoderKL(
        sample_size=128,
        block_out_channels=(4, 8, 8, 8),
        mid_block_add_attention=False,  # as in the UNet: 16,384 positions at 1024x1024
        down_block_types=("DownEncoderBlock2D",) * 4,
        up_block_types=("UpDecoderBlock2D",) * 4,
        layers_per_block=1,
        latent_channels=4,
        norm_num_groups=4,
        scaling_factor=0.13025,
    )


def _scheduler() -> Any:
    return EulerDiscreteScheduler(
        beta_start=0.00085,
        beta_end=0.012,
        beta_schedule="scaled_linear",
        steps_offset=1,
        timestep_spacing="leading",
    )
