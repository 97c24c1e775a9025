"""The WAN VAE one chunk at a time: bit-equal to ``vae.encode`` and ``vae.decode``.

Both are causal in time and run in chunks inside the library too: one frame first, then four at a
time, each latent frame one chunk. What links the chunks is the feature cache, which lives in the
state. The module's own cache attributes are never touched, so no run can find another's data.
"""

from __future__ import annotations

import numpy as np
import torch
from diffusers import AutoencoderKLWan
from numpy.typing import NDArray

from pipelines.images import to_pixels
from pipelines.state import State
from pipelines.wan.cache import drop, store_cache, take_cache

# Frames of video in a latent frame; the first latent frame holds one.
TEMPORAL = 4
# Pixels of an image in a latent pixel, on each side.
SPATIAL = 8

_CACHE = "vae.cache"
_INPUT = "vae.input"


def latent_frames(frames: int) -> int:
    """Chunks, and latent frames, of a video of 4k+1 frames."""
    return (frames - 1) // TEMPORAL + 1


def chunk_range(chunk: int) -> range:
    """The frames of a chunk."""
    if chunk == 0:
        return range(1)
    return range(1 + TEMPORAL * (chunk - 1), 1 + TEMPORAL * chunk)


def encode_chunk(
    vae: AutoencoderKLWan, state: State, stream: str, chunk: int, pixels: torch.Tensor
) -> None:
    """Encode one chunk, (1, 3, frames, height, width) in -1..1, as part ``stream.chunk``.

    Streams share one cache: each is encoded to its end before the next.
    """
    slots = take_cache(state, _CACHE, vae._cached_conv_counts["encoder"])
    part = vae.encoder(pixels.to(vae.dtype), feat_cache=slots, feat_idx=[0])
    store_cache(state, _CACHE, slots)
    state.tensors[f"{stream}.{chunk}"] = part


def encoded_latents(vae: AutoencoderKLWan, state: State, stream: str, chunks: int) -> torch.Tensor:
    """The stream's normalised latents (the distribution's mode), once every chunk is encoded.

    The parts and the cache leave the state.
    """
    parts = [state.tensors[f"{stream}.{i}"] for i in range(chunks)]
    mode, _ = vae.quant_conv(torch.cat(parts, 2)).chunk(2, dim=1)
    drop(state, stream)
    drop(state, _CACHE)
    mean, inverse_std = _statistics(vae, mode.device, torch.float32)
    latents: torch.Tensor = (mode.float() - mean) * inverse_std
    return latents.to(vae.dtype)


def begin_decode(vae: AutoencoderKLWan, state: State, latents: torch.Tensor) -> None:
    """Denormalise latents, (1, channels, latent frames, height / 8, width / 8)."""
    latents = latents.to(vae.dtype)
    mean, inverse_std = _statistics(vae, latents.device, latents.dtype)
    state.tensors[_INPUT] = vae.post_quant_conv(latents / inverse_std + mean)


def decode_chunk(vae: AutoencoderKLWan, state: State, chunk: int) -> NDArray[np.uint8]:
    """The frames of one latent frame, (frames, height, width, 3). Raises ``NotFinite``."""
    slots = take_cache(state, _CACHE, vae._cached_conv_counts["decoder"])
    latent = state.tensors[_INPUT][:, :, chunk : chunk + 1]
    decoded = vae.decoder(latent, feat_cache=slots, feat_idx=[0], first_chunk=chunk == 0)
    store_cache(state, _CACHE, slots)
    decoded = torch.clamp(decoded, min=-1.0, max=1.0)
    return np.stack([to_pixels(frame) for frame in decoded.unbind(2)])


def end_decode(state: State) -> None:
    """Drop what decoding kept."""
    drop(state, _INPUT)
    drop(state, _CACHE)


def _statistics(
    vae: AutoencoderKLWan, device: torch.device, dtype: torch.dtype
) -> tuple[torch.Tensor, torch.Tensor]:
    shape = (1, vae.config.z_dim, 1, 1, 1)
    # dtypes are named throughout: a load in another thread changes torch's default meanwhile
    mean, std = (
        torch.tensor(values, dtype=torch.float32).view(shape).to(device, dtype)
        for values in (vae.config.latents_mean, vae.config.latents_std)
    )
    return mean, 1.0 / std
