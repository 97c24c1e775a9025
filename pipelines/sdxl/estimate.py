"""Peak activation bytes of each phase, from the modules' configured widths.

The constants are the peaks of live tensors in the real architecture, counted on meta tensors, and
are the same for every size: a lower bound of what a device takes, since a kernel's workspace and
the allocator's rounding come on top. The caller's factor covers those. Attention counts as
computed blockwise, as the fused kernels do.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

_FLOAT32 = 4
_LATENT_CHANNELS = 4
# Hidden states of all layers are kept; one layer needs 14 widths more while it computes.
_TEXT_WIDTHS = 14
_TEXT_TOKENS = 77
# The last up block holds its skip connections, the concatenation, its norm and the convolution.
_UNET_WIDTHS = 16
# Latents in the model's dtype and float32, the noise, its guided half and the scheduler's history.
_LATENT_COPIES = 8
# Four tables over the usual thousand training timesteps.
_SCHEDULER_BYTES = 4 * 1000 * _FLOAT32
# The last up block takes in the next level's width at full size, three tensors at a time.
_DECODER_INNER_WIDTHS = 3
_DECODER_OUTER_WIDTHS = 6
_LATENTS_WIDTH = 1
_ENCODER_WIDTHS = 5
# Latents and up to five more in the history of the multistep schedulers.
_LATENTS_CARRIED = 6
# The pooled embedding and the sizes are less than this many tokens' worth.
_POOLED = 2
# A CPU generator's state has 5,056 bytes.
_GENERATOR_BYTES = 8 * 1024


def encode_bytes(text_configs: Sequence[Mapping[str, Any]], item_bytes: int) -> int:
    """Both prompts go through one after the other, so the larger encoder makes the peak."""
    widths = [(c["num_hidden_layers"] + _TEXT_WIDTHS) * c["hidden_size"] for c in text_configs]
    return int(max(widths) * _TEXT_TOKENS * item_bytes)


def denoise_bytes(
    unet: Mapping[str, Any], positions: int, images: int, guided: bool, item_bytes: int
) -> int:
    """``positions`` are latent pixels of one image; ``images`` are denoised together."""
    width = unet["block_out_channels"][0]
    batch = images * (2 if guided else 1)
    activations = _UNET_WIDTHS * width * positions * batch * item_bytes
    embeddings = _TEXT_TOKENS * unet["cross_attention_dim"] * batch * item_bytes
    latents = _LATENT_COPIES * _LATENT_CHANNELS * positions * images * _FLOAT32
    return int(activations + embeddings + latents + _SCHEDULER_BYTES)


def state_bytes(
    unet: Mapping[str, Any], positions: int, images: int, guided: bool, item_bytes: int
) -> int:
    """Embeddings, latents with the scheduler's history, and one generator an image."""
    prompts = 2 if guided else 1
    embeddings = (_TEXT_TOKENS + _POOLED) * unet["cross_attention_dim"] * prompts * item_bytes
    latents = _LATENTS_CARRIED * _LATENT_CHANNELS * positions * images * _FLOAT32
    return int(embeddings + latents + images * _GENERATOR_BYTES + _SCHEDULER_BYTES)


def vae_decode_bytes(vae: Mapping[str, Any], pixels: int) -> int:
    """One image at a time, in float32."""
    widths = vae["block_out_channels"]
    inner = widths[min(1, len(widths) - 1)]
    peak = max(_DECODER_INNER_WIDTHS * inner, _DECODER_OUTER_WIDTHS * widths[0])
    return int((peak + _LATENTS_WIDTH) * pixels * _FLOAT32)


def vae_encode_bytes(vae: Mapping[str, Any], pixels: int) -> int:
    """One image at a time, in float32."""
    return int(_ENCODER_WIDTHS * vae["block_out_channels"][0] * pixels * _FLOAT32)
