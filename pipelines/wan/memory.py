"""Peak activation bytes of each phase, in closed form from shapes and configurations.

The coefficients were read off the modules' live storages on meta tensors, step by step, with fused
attention (which keeps no score matrix); they are sums over what is alive at the peak, so they carry
over from the published sizes to the tiny ones. Convolution workspaces are the device's own affair
and belong to the caller's safety factor. Weights are not counted, the run's state is.
"""

from __future__ import annotations

from typing import Any

from pipelines.request import VideoRequest
from pipelines.wan.prompt import TOKENS_MAX
from pipelines.wan.vae import SPATIAL, TEMPORAL, latent_frames

_FP32 = 4
_TABLES = 64 * 1024  # the scheduler's
_LATENTS_ALIVE = 12  # noise twice, latents, the scheduler's history and its temporaries
_LATENTS_CARRIED = 6  # latents, the last sample, the scheduler's two to four outputs
_DECODE_TENSORS = 6.5  # of the last block's width, per frame of a chunk
_ENCODE_TENSORS = 5.6  # of the first block's width, per frame of a chunk
_CHUNK_PIXELS = 36  # RGB values per pixel of a chunk, its masked copy and the given frames


def encode_bytes(config: dict[str, Any], itemsize: int, prompts: int) -> int:
    """umT5 over 512 tokens: the integer buckets of its position bias, attention with that bias, or
    the gated feed-forward, whichever is most."""
    tokens, width = TOKENS_MAX, config["d_model"]
    buckets = 56 * tokens**2
    attention = itemsize * tokens * (3 * tokens * config.get("num_heads", 6) + 6 * width)
    feed_forward = itemsize * tokens * 4 * (config.get("d_ff", 1024) + width)
    embeddings = itemsize * tokens * width * prompts
    return int(max(buckets, attention, feed_forward) + embeddings)


def denoise_bytes(
    config: dict[str, Any], itemsize: int, request: VideoRequest, extra_frames: int, prompts: int
) -> int:
    """The transformer over all latent patches, and what UniPC keeps.

    ``extra_frames``: latent frames before the video's own. A control video adds one hidden state
    for each VACE layer, kept until the layer that it is for.
    """
    heads, head = config.get("num_attention_heads", 40), config.get("attention_head_dim", 128)
    width, inner = heads * head, config.get("ffn_dim", 13824)
    pixels = (request.height // SPATIAL) * (request.width // SPATIAL)
    frames = latent_frames(request.frames) + extra_frames
    attention = (4 * itemsize + 14) * width
    feed_forward = itemsize * (4 * width + 2 * inner)
    patch = max(attention, feed_forward) + 2 * _FP32 * head
    if request.mode != "none" and "vace_layers" in config:
        patch += itemsize * width * (len(config["vace_layers"]) + 1)
    channels = config.get("out_channels", 16) * _LATENTS_ALIVE
    if request.mode != "none":
        channels += 2 * config.get("vace_in_channels", config.get("in_channels", 16))
    text = TOKENS_MAX * itemsize * (prompts * config.get("text_dim", 4096) + 8 * width)
    return int(frames * pixels * (patch / 4 + _FP32 * channels) + text) + _TABLES


def state_bytes(
    config: dict[str, Any], itemsize: int, request: VideoRequest, extra_frames: int, prompts: int
) -> int:
    """Embeddings, conditioning, latents and UniPC's history, between two denoising steps."""
    pixels = (request.height // SPATIAL) * (request.width // SPATIAL)
    frames = latent_frames(request.frames) + extra_frames
    channels = config.get("out_channels", 16) * _LATENTS_CARRIED
    if request.mode != "none":
        channels += config.get("vace_in_channels", config.get("in_channels", 16))
    text = TOKENS_MAX * itemsize * prompts * config.get("text_dim", 4096)
    return int(frames * pixels * _FP32 * channels + text) + _TABLES


def decode_bytes(config: dict[str, Any], request: VideoRequest) -> int:
    """The decoder over one chunk, its feature cache, and the frames made so far."""
    area, chunks = request.height * request.width, latent_frames(request.frames)
    widths, scales = _widths(config, "decoder_base_dim"), _scales(config)
    cached = config.get("z_dim", 16) / scales[-1] + 4 * widths[-1] / scales[-1]
    upsample = config.get("temperal_downsample", (False, True, True))[::-1]
    convolutions = 2 * (config.get("num_res_blocks", 2) + 1)
    for i, scale in enumerate(reversed(scales)):
        width = widths[-1 - i]
        before = widths[-1] if i == 0 else widths[-i] // 2
        cached += (before + (convolutions - 1) * width) / scale
        if i < len(scales) - 1 and upsample[i]:
            cached += width / scale
    cached += widths[0]
    frames = 1 if chunks == 1 else 2
    chunk = 1 if chunks == 1 else TEMPORAL
    floats = frames * cached + _DECODE_TENSORS * chunk * widths[0] + 2 * chunk * 3
    latents = 4 * config.get("z_dim", 16) * chunks / SPATIAL**2
    return int(_FP32 * area * (floats + latents)) + 3 * area * request.frames


def condition_bytes(config: dict[str, Any], request: VideoRequest) -> int:
    """The encoder over one chunk, its feature cache, and the pixels it is fed."""
    area, chunks = request.height * request.width, latent_frames(request.frames)
    widths, scales = _widths(config), _scales(config)
    downsample = config.get("temperal_downsample", (False, True, True))
    convolutions = 2 * config.get("num_res_blocks", 2)
    base = config.get("base_dim", 96)
    cached: float = 3
    for i, (width, scale) in enumerate(zip(widths, scales, strict=True)):
        before = widths[i - 1] if i else base
        cached += (before + (convolutions - 1) * width) / scale
        if i < len(scales) - 1 and downsample[i]:
            cached += width / scales[i + 1] / 2
    cached += 5 * widths[-1] / scales[-1]
    frames = 1 if chunks == 1 else 2
    chunk = 1 if chunks == 1 else TEMPORAL
    floats = frames * cached + _ENCODE_TENSORS * chunk * max(base, widths[0]) + _CHUNK_PIXELS
    latents = 10 * config.get("z_dim", 16) * (chunks + 1) / SPATIAL**2
    return int(_FP32 * area * (floats + latents))


def image_bytes(config: dict[str, Any], images: int) -> int:
    """The image encoder, in fp32, with every layer's hidden state as the library asks for them."""
    width, side = config.get("hidden_size", 768), config.get("image_size", 224)
    tokens = (side // config.get("patch_size", 32)) ** 2 + 1
    tensors = config.get("num_hidden_layers", 12) + 13
    inner = 2 * config.get("intermediate_size", 3072)
    return int(images * _FP32 * (tokens * (width * tensors + inner) + 6 * side**2))


def _widths(config: dict[str, Any], base_key: str = "base_dim") -> list[int]:
    """Channels at each resolution, finest first."""
    base = config.get(base_key) or config.get("base_dim", 96)
    return [base * factor for factor in config.get("dim_mult", (1, 2, 4, 4))]


def _scales(config: dict[str, Any]) -> list[int]:
    """Pixels of the video in one pixel of each resolution, finest first."""
    return [4**i for i in range(len(config.get("dim_mult", (1, 2, 4, 4))))]
