"""Conditioning of a VACE transformer, one VAE chunk per step.

The control video is encoded twice, once showing only what is given (*inactive*) and once only what
is to be made (*reactive*); the mask, folded to latent size, follows as further channels. A
reference image goes before the first latent frame. Source: ``WanVACEPipeline`` of diffusers.
"""

from __future__ import annotations

import torch
from diffusers import AutoencoderKLWan

from pipelines.request import VideoRequest
from pipelines.state import State
from pipelines.wan.cache import drop
from pipelines.wan.references import as_frame, grey_frame, on_canvas, read_image
from pipelines.wan.vae import (
    SPATIAL,
    chunk_range,
    encode_chunk,
    encoded_latents,
    latent_frames,
)

CONTROL = "control"
_INACTIVE = "control.inactive"
_REACTIVE = "control.reactive"
_REFERENCE = "control.reference"
_GIVEN = "given"


def vace_steps(request: VideoRequest) -> int:
    """VAE chunks to encode for the request's reference mode."""
    return sum(chunks for _, chunks in _streams(request))


def reference_frames(request: VideoRequest) -> int:
    """Latent frames that the conditioning puts before the video's own."""
    return 1 if request.mode == "single" else 0


def vace_step(
    vae: AutoencoderKLWan, state: State, request: VideoRequest, device: torch.device
) -> None:
    """Encode the next chunk; the last step leaves only ``control`` in the state."""
    if state.step == 0:
        _load_references(state, request, device)
    stream, chunk, chunks = _locate(request, state.step)
    encode_chunk(vae, state, stream, chunk, _pixels(state, request, stream, chunk, device))
    if chunk == chunks - 1:
        state.tensors[stream] = encoded_latents(vae, state, stream, chunks)
    if state.step == vace_steps(request) - 1:
        control = _assemble(state, request)
        drop(state, CONTROL)
        drop(state, _GIVEN)
        state.tensors[CONTROL] = control


def _streams(request: VideoRequest) -> tuple[tuple[str, int], ...]:
    chunks = latent_frames(request.frames)
    if request.mode == "single":
        # with nothing given, what is kept and what is to be made are the same empty video
        return (_INACTIVE, chunks), (_REFERENCE, 1)
    return (_INACTIVE, chunks), (_REACTIVE, chunks)


def _locate(request: VideoRequest, step: int) -> tuple[str, int, int]:
    for stream, chunks in _streams(request):
        if step < chunks:
            return stream, step, chunks
        step -= chunks
    raise AssertionError(f"condition has {vace_steps(request)} steps")


def _given(request: VideoRequest) -> dict[int, str]:
    """Which frames are given, by the request's field."""
    given = {}
    if request.mode in ("start", "both"):
        given[0] = "start_path"
    if request.mode in ("end", "both"):
        given[request.frames - 1] = "end_path"
    return given


def _load_references(state: State, request: VideoRequest, device: torch.device) -> None:
    if request.mode == "single":
        image = read_image(request, "start_path")
        state.tensors[f"{_GIVEN}.canvas"] = on_canvas(image, request, device)
    for frame, field in _given(request).items():
        image = read_image(request, field)
        state.tensors[f"{_GIVEN}.{frame}"] = as_frame(image, request, device)


def _pixels(
    state: State, request: VideoRequest, stream: str, chunk: int, device: torch.device
) -> torch.Tensor:
    """One chunk of a stream, (1, 3, frames, height, width)."""
    if stream == _REFERENCE:
        return state.tensors[f"{_GIVEN}.canvas"][None, :, None]
    frames = chunk_range(chunk)
    if request.mode == "single":
        shape = (1, 3, len(frames), request.height, request.width)
        return torch.zeros(shape, device=device, dtype=torch.float32)
    grey = grey_frame(request, device)
    video = torch.stack([state.tensors.get(f"{_GIVEN}.{i}", grey) for i in frames], dim=1)
    mask = _frame_mask(request, device)[frames.start : frames.stop].view(1, -1, 1, 1)
    shown = video * (1 - mask) if stream == _INACTIVE else video * mask
    return shown[None]


def _frame_mask(request: VideoRequest, device: torch.device) -> torch.Tensor:
    """0 for a given frame, 1 for one to be made."""
    mask = torch.ones(request.frames, device=device, dtype=torch.float32)
    mask[list(_given(request))] = 0
    return mask


def _assemble(state: State, request: VideoRequest) -> torch.Tensor:
    """(1, latents twice and mask, latent frames, height / 8, width / 8)."""
    inactive = state.tensors[_INACTIVE]
    reactive = state.tensors.get(_REACTIVE, inactive)
    latents = torch.cat([inactive, reactive], dim=1)
    chunks, height, width = latents.shape[2:]
    # every pixel of a frame has the same mask, so folding 8x8 pixels into channels repeats it
    mask = torch.nn.functional.interpolate(
        _frame_mask(request, latents.device).view(1, 1, -1, 1, 1),
        size=(chunks, 1, 1),
        mode="nearest-exact",
    ).expand(1, SPATIAL * SPATIAL, chunks, height, width)
    reference = state.tensors.get(_REFERENCE)
    if reference is not None:
        head = torch.cat([reference, torch.zeros_like(reference)], dim=1)
        latents = torch.cat([head, latents], dim=2)
        mask = torch.cat([torch.zeros_like(mask[:, :, :1]), mask], dim=2)
    return torch.cat([latents, mask], dim=1)
