"""WAN checkpoints small enough for tests: the real architectures, random weights, fixed seeds.

Their pictures mean nothing; what runs through them is every module, cache and scheduler branch
that the published checkpoints take.
"""

from __future__ import annotations

import json
import string
from functools import partial
from pathlib import Path
from typing import Any

import torch
from diffusers import (
    AutoencoderKLWan,
    UniPCMultistepScheduler,
    WanTransformer3DModel,
    WanVACETransformer3DModel,
)
from transformers import T5Tokenizer, UMT5Config, UMT5EncoderModel

from pipelines.sources import LOAD_LOCK
from pipelines.tiny.publish import publish

_TEXT_WIDTH = 32
_LATENT_CHANNELS = 16
_TRANSFORMER = {
    "num_attention_heads": 2,
    "attention_head_dim": 12,
    "in_channels": _LATENT_CHANNELS,
    "out_channels": _LATENT_CHANNELS,
    "text_dim": _TEXT_WIDTH,
    "freq_dim": 32,
    "ffn_dim": 48,
    "num_layers": 3,
}
# two latents times (kept + generated) and the 8x8 mask pixels of each latent pixel
_VACE_CHANNELS = 2 * _LATENT_CHANNELS + 64
# at the usual initial scale prompts and references would not move one pixel value, and a test
# could not tell a swapped embedding from the right one
_GAIN = 2.0


def make_wan(root: Path) -> None:
    """Make ``root/wan-t2v`` and ``root/wan-vace`` in diffusers' layout, each unless it exists."""
    publish(root / "wan-t2v", partial(_write, "WanPipeline", 11))
    publish(root / "wan-vace", partial(_write, "WanVACEPipeline", 12))


def _write(pipeline: str, seed: int, folder: Path) -> None:
    tokenizer = _tokenizer()
    with LOAD_LOCK, torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        transformer = _transformer(pipeline)
        vae = AutoencoderKLWan(
            base_dim=4, z_dim=_LATENT_CHANNELS, dim_mult=[1, 2, 2, 2], num_res_blocks=1
        )
        text_encoder = UMT5EncoderModel(_text_config(len(tokenizer)))
    _amplify(transformer)
    _amplify(vae)
    scheduler = UniPCMultistepScheduler(
        prediction_type="flow_prediction", use_flow_sigmas=True, flow_shift=3.0
    )
    parts = {
        "transformer": transformer,
        "vae": vae,
        "text_encoder": text_encoder,
        "tokenizer": tokenizer,
        "scheduler": scheduler,
    }
    for name, part in parts.items():
        part.save_pretrained(folder / name)
    index: dict[str, Any] = {"_class_name": pipeline}
    for name, part in parts.items():
        library = "transformers" if name in ("text_encoder", "tokenizer") else "diffusers"
        index[name] = [library, type(part).__name__]
    (folder / "model_index.json").write_text(json.dumps(index, indent=2) + "\n")


def _transformer(pipeline: str) -> WanTransformer3DModel | WanVACETransformer3DModel:
    if pipeline == "WanPipeline":
        return WanTransformer3DModel(**_TRANSFORMER)
    return WanVACETransformer3DModel(
        **_TRANSFORMER, vace_layers=[0, 2], vace_in_channels=_VACE_CHANNELS
    )


@torch.no_grad()
def _amplify(module: torch.nn.Module) -> None:
    for parameter in module.parameters():
        if parameter.ndim > 1:
            parameter.mul_(_GAIN)


def _tokenizer() -> T5Tokenizer:
    """One piece for each printable character: any prompt tokenizes, long ones overflow."""
    special = ["<pad>", "</s>", "<unk>"]
    pieces = [(piece, 0.0) for piece in special] + [("▁", -2.0)]
    pieces += [(char, -3.0) for char in string.printable if not char.isspace()]
    return T5Tokenizer(vocab=pieces, extra_ids=0)


def _text_config(vocab_size: int) -> UMT5Config:
    return UMT5Config(
        vocab_size=vocab_size,
        d_model=_TEXT_WIDTH,
        d_kv=8,
        d_ff=64,
        num_layers=2,
        num_heads=4,
        relative_attention_num_buckets=8,
        relative_attention_max_distance=16,
    )
