"""What a request takes on one checkpoint: its phases, or why it cannot be run."""

from __future__ import annotations

import torch

from pipelines.base import PhasePlan, UnsupportedRequest
from pipelines.request import Request, VideoRequest
from pipelines.wan import memory
from pipelines.wan.checkpoint import Checkpoint
from pipelines.wan.image_to_video import image_steps
from pipelines.wan.prompt import guided
from pipelines.wan.vace import reference_frames, vace_steps
from pipelines.wan.vae import TEMPORAL, latent_frames

ENCODE = "encode"
CONDITION = "condition"
DENOISE = "denoise"
DECODE = "decode"

_SIZE_STEP = 16
_REFERENCES = {
    "none": (),
    "single": ("start_path",),
    "start": ("start_path",),
    "end": ("end_path",),
    "both": ("start_path", "end_path"),
}


def check(request: Request, checkpoint: Checkpoint) -> VideoRequest:
    """Raises ``UnsupportedRequest`` for what the checkpoint or these loops cannot do."""
    if not isinstance(request, VideoRequest):
        raise UnsupportedRequest("type", f"{type(request).__name__}: WAN makes videos only")
    for field in ("width", "height"):
        pixels = getattr(request, field)
        if pixels < _SIZE_STEP or pixels % _SIZE_STEP:
            raise UnsupportedRequest(field, f"{field} {pixels}: a multiple of {_SIZE_STEP} needed")
    if request.frames < 1 or request.frames % TEMPORAL != 1:
        raise UnsupportedRequest("frames", f"frames {request.frames}: 1, 5, 9... (4k+1) needed")
    if request.steps < 1:
        raise UnsupportedRequest("steps", f"steps {request.steps}: at least 1 needed")
    if not request.flow_shift > 0:
        raise UnsupportedRequest("flow_shift", f"flow_shift {request.flow_shift}: above 0 needed")
    _check_references(request, checkpoint)
    return request


def _check_references(request: VideoRequest, checkpoint: Checkpoint) -> None:
    mode = request.mode
    if mode not in checkpoint.modes:
        raise UnsupportedRequest("reference_mode", f"reference_mode {mode!r}: {checkpoint.ability}")
    if mode == "both" and request.frames == 1:
        raise UnsupportedRequest(
            "frames", "frames 1: reference_mode 'both' gives two frames, so 5 at least are needed"
        )
    for field in _REFERENCES[mode]:
        if not getattr(request, field):
            raise UnsupportedRequest(field, f"{field}: reference_mode {mode!r} needs this image")


def phase_steps(request: VideoRequest, checkpoint: Checkpoint) -> dict[str, int]:
    """Steps by phase, in the order of the phases."""
    steps = {ENCODE: 1}
    if request.mode != "none":
        steps[CONDITION] = vace_steps(request) if checkpoint.vace else image_steps(request)
    return {**steps, DENOISE: request.steps, DECODE: latent_frames(request.frames)}


def phases(
    request: VideoRequest, checkpoint: Checkpoint, prefix: str, dtype: torch.dtype, factor: float
) -> tuple[PhasePlan, ...]:
    """``prefix``: the model's name before each component's; ``factor``: the safety margin."""
    components = {
        ENCODE: ("text_encoder",),
        CONDITION: ("vae", "image_encoder") if checkpoint.image_encoder else ("vae",),
        DENOISE: ("transformer",),
        DECODE: ("vae",),
    }
    return tuple(
        PhasePlan(
            name,
            tuple(f"{prefix}.{part}" for part in components[name]),
            int(_working_bytes(name, request, checkpoint, dtype.itemsize) * factor),
            steps,
            int(_state_bytes(name, request, checkpoint, dtype.itemsize) * factor),
        )
        for name, steps in phase_steps(request, checkpoint).items()
    )


def _state_bytes(phase: str, request: VideoRequest, checkpoint: Checkpoint, itemsize: int) -> int:
    """The VAE's phases carry its feature cache, a large part of what they work in."""
    if phase in (CONDITION, DECODE):
        return _working_bytes(phase, request, checkpoint, itemsize)
    prompts = 2 if guided(request) else 1
    extra = reference_frames(request) if checkpoint.vace else 0
    size = memory.state_bytes(checkpoint.transformer, itemsize, request, extra, prompts)
    if checkpoint.image_encoder is None:
        return size
    return size + memory.image_bytes(checkpoint.image_encoder, len(_REFERENCES[request.mode]))


def _working_bytes(phase: str, request: VideoRequest, checkpoint: Checkpoint, itemsize: int) -> int:
    prompts = 2 if guided(request) else 1
    if phase == ENCODE:
        return memory.encode_bytes(checkpoint.text_encoder, itemsize, prompts)
    if phase == DENOISE:
        extra = reference_frames(request) if checkpoint.vace else 0
        return memory.denoise_bytes(checkpoint.transformer, itemsize, request, extra, prompts)
    if phase == DECODE:
        return memory.decode_bytes(checkpoint.vae, request)
    size = memory.condition_bytes(checkpoint.vae, request)
    if checkpoint.image_encoder is None:
        return size
    images = memory.image_bytes(checkpoint.image_encoder, len(_REFERENCES[request.mode]))
    return max(size, images)
