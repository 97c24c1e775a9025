"""Conditioning of a 36-channel image-to-video transformer, one VAE chunk per step.

The given frames, with zeros between, are encoded once; four mask channels (one for each frame in a
latent frame) and these latents join the noise as input channels. Checkpoints with an image encoder
see the given images through it as well. Source: ``WanImageToVideoPipeline`` of diffusers.
"""

from __future__ import annotations

from collections.abc import Callable

import torch
from diffusers import AutoencoderKLWan
from PIL import Image
from transformers import CLIPVisionModel

from pipelines.request import VideoRequest
from pipelines.state import State
from pipelines.wan.cache import drop
from pipelines.wan.references import as_frame, read_image
from pipelines.wan.vae import (
    TEMPORAL,
    chunk_range,
    encode_chunk,
    encoded_latents,
    latent_frames,
)

CONDITION = "condition"
IMAGE_EMBEDS = "image_embeds"
_VIDEO = "condition.video"
_GIVEN = "given"

ImageEncoder = Callable[[list[Image.Image]], torch.Tensor]


def image_steps(request: VideoRequest) -> int:
    """VAE chunks to encode."""
    return latent_frames(request.frames)


def encode_images(
    images: list[Image.Image],
    encoder: CLIPVisionModel,
    processor: Callable[..., dict[str, torch.Tensor]],
    device: torch.device,
) -> torch.Tensor:
    """What the transformer sees of the images: the last hidden state but one."""
    pixels = processor(images=images, return_tensors="pt")["pixel_values"]
    states = encoder(pixel_values=pixels.to(device), output_hidden_states=True).hidden_states
    embeds: torch.Tensor = states[-2]
    return embeds


def image_step(
    vae: AutoencoderKLWan,
    state: State,
    request: VideoRequest,
    device: torch.device,
    encode_image: ImageEncoder | None,
) -> None:
    """Encode the next chunk; the last step leaves ``condition`` (and ``image_embeds``)."""
    if state.step == 0:
        images = {frame: read_image(request, field) for frame, field in _given(request).items()}
        for frame, image in images.items():
            state.tensors[f"{_GIVEN}.{frame}"] = as_frame(image, request, device)
        if encode_image is not None:
            state.tensors[IMAGE_EMBEDS] = encode_image(list(images.values()))
    chunk, chunks = state.step, latent_frames(request.frames)
    empty = torch.zeros(3, request.height, request.width, device=device, dtype=torch.float32)
    frames = [state.tensors.get(f"{_GIVEN}.{i}", empty) for i in chunk_range(chunk)]
    encode_chunk(vae, state, _VIDEO, chunk, torch.stack(frames, dim=1)[None])
    if chunk == chunks - 1:
        latents = encoded_latents(vae, state, _VIDEO, chunks)
        mask = _mask(request, latents)
        drop(state, _GIVEN)
        state.tensors[CONDITION] = torch.cat([mask, latents], dim=1)


def _given(request: VideoRequest) -> dict[int, str]:
    given = {0: "start_path"}
    if request.mode == "both":
        given[request.frames - 1] = "end_path"
    return given


def _mask(request: VideoRequest, latents: torch.Tensor) -> torch.Tensor:
    """1 for a given frame; (1, 4, latent frames, height / 8, width / 8)."""
    frames = torch.zeros(request.frames, device=latents.device, dtype=torch.float32)
    frames[list(_given(request))] = 1
    # the first latent frame holds one frame of video, which stands for four
    padded = torch.cat([frames[:1].repeat(TEMPORAL - 1), frames])
    folded = padded.view(-1, TEMPORAL).T[None, :, :, None, None]
    return folded.expand(-1, -1, -1, *latents.shape[3:]).to(latents.dtype)
