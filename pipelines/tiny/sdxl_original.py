"""The names that SDXL's weights have in the original one-file layout.

Source: the inverse of what ``diffusers.loaders.single_file_utils`` reads.
"""

from __future__ import annotations

import re
from collections.abc import Collection
from typing import Any

import torch

Tensors = dict[str, torch.Tensor]

_RESNET = {
    "norm1": "in_layers.0",
    "conv1": "in_layers.2",
    "norm2": "out_layers.0",
    "conv2": "out_layers.3",
    "time_emb_proj": "emb_layers.1",
    "conv_shortcut": "skip_connection",
}
_UNET_ENDS = {
    "time_embedding.linear_1": "time_embed.0",
    "time_embedding.linear_2": "time_embed.2",
    "add_embedding.linear_1": "label_emb.0.0",
    "add_embedding.linear_2": "label_emb.0.2",
    "conv_in": "input_blocks.0.0",
    "conv_norm_out": "out.0",
    "conv_out": "out.2",
}
_OPEN_CLIP = {
    "layer_norm1": "ln_1",
    "layer_norm2": "ln_2",
    "mlp.fc1": "mlp.c_fc",
    "mlp.fc2": "mlp.c_proj",
    "self_attn.out_proj": "attn.out_proj",
}


def original_state_dict(pipeline: Any) -> Tensors:
    """All weights of an SDXL pipeline, whose VAE has no attention, under their original names."""
    clip = {_wrapped(k): v for k, v in pipeline.text_encoder.state_dict().items()}
    open_clip = {_wrapped(k): v for k, v in pipeline.text_encoder_2.state_dict().items()}
    unet = pipeline.unet.state_dict()
    layers = pipeline.unet.config.layers_per_block
    levels = len(pipeline.vae.config.block_out_channels)
    named: Tensors = {}
    for key, value in unet.items():
        named["model.diffusion_model." + _unet_name(key, layers, unet)] = value
    for key, value in pipeline.vae.state_dict().items():
        named["first_stage_model." + _vae_name(key, levels)] = value
    for key, value in clip.items():
        named["conditioner.embedders.0.transformer." + key] = value
    for key, value in _open_clip(open_clip).items():
        named["conditioner.embedders.1.model." + key] = value
    return {name: value.contiguous() for name, value in named.items()}


def _wrapped(key: str) -> str:
    return key if key.startswith(("text_model.", "text_projection.")) else f"text_model.{key}"


def _renamed(key: str, table: dict[str, str]) -> str:
    for ours, theirs in table.items():
        if key.startswith(f"{ours}."):
            return theirs + key[len(ours) :]
    return key


def _unet_name(key: str, layers: int, every: Collection[str]) -> str:
    if match := re.match(r"mid_block\.(resnets|attentions)\.(\d)\.(.*)", key):
        kind, number, rest = match.groups()
        place = 1 if kind == "attentions" else 2 * int(number)
        return f"middle_block.{place}.{_renamed(rest, _RESNET)}"
    if match := re.match(r"(down|up)_blocks\.(\d+)\.(\w+)\.(\d+)\.(.*)", key):
        way, level, kind, number, rest = match.groups()
        first = int(level) * (layers + 1)
        if kind == "downsamplers":
            return f"input_blocks.{first + layers + 1}.0.op.{rest.removeprefix('conv.')}"
        if kind == "upsamplers":
            attention = f"up_blocks.{level}.attentions.0.norm.weight" in every
            return f"output_blocks.{first + layers}.{2 if attention else 1}.{rest}"
        block = f"input_blocks.{first + int(number) + 1}"
        if way == "up":
            block = f"output_blocks.{first + int(number)}"
        place = 1 if kind == "attentions" else 0
        return f"{block}.{place}.{_renamed(rest, _RESNET)}"
    return _renamed(key, _UNET_ENDS)


def _vae_name(key: str, levels: int) -> str:
    key = key.replace("conv_norm_out", "norm_out").replace("conv_shortcut", "nin_shortcut")
    if match := re.match(r"(\w+)\.mid_block\.resnets\.(\d)\.(.*)", key):
        side, number, rest = match.groups()
        return f"{side}.mid.block_{int(number) + 1}.{rest}"
    match = re.match(r"(\w+)\.(down|up)_blocks\.(\d+)\.(\w+)\.(\d+)\.(.*)", key)
    if match is None:
        return key
    side, way, block, kind, number, rest = match.groups()
    level = int(block) if way == "down" else levels - 1 - int(block)
    if kind == "resnets":
        return f"{side}.{way}.{level}.block.{number}.{rest}"
    return f"{side}.{way}.{level}.{way}sample.{rest}"


def _open_clip(weights: Tensors) -> Tensors:
    named = {
        "token_embedding.weight": weights["text_model.embeddings.token_embedding.weight"],
        "positional_embedding": weights["text_model.embeddings.position_embedding.weight"],
        "ln_final.weight": weights["text_model.final_layer_norm.weight"],
        "ln_final.bias": weights["text_model.final_layer_norm.bias"],
        "text_projection": weights["text_projection.weight"].T,
    }
    for key, value in weights.items():
        if match := re.match(r"text_model\.encoder\.layers\.(\d+)\.(.*)", key):
            number, rest = match.groups()
            block = f"transformer.resblocks.{number}"
            if rest.startswith("self_attn.q_proj."):
                kind = rest.removeprefix("self_attn.q_proj.")
                joined = [weights[key.replace("q_proj", f"{part}_proj")] for part in "qkv"]
                named[f"{block}.attn.in_proj_{kind}"] = torch.cat(joined)
            elif not rest.startswith(("self_attn.k_proj.", "self_attn.v_proj.")):
                named[f"{block}.{_renamed(rest, _OPEN_CLIP)}"] = value
    return named
