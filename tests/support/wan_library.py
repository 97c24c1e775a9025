"""A call of the library's own WAN pipelines."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from diffusers import UniPCMultistepScheduler

from pipelines.request import VideoRequest


def library_frames(pipe: Any, request: VideoRequest, **conditioning: Any) -> np.ndarray:
    """The library's frames, rounded as its processor rounds: (frames, height, width, 3)."""
    pipe.scheduler = UniPCMultistepScheduler.from_config(
        pipe.scheduler.config, flow_shift=request.flow_shift
    )
    frames = pipe(
        prompt=request.prompt,
        negative_prompt=request.negative_prompt,
        width=request.width,
        height=request.height,
        num_frames=request.frames,
        num_inference_steps=request.steps,
        guidance_scale=request.guidance_scale,
        generator=torch.Generator().manual_seed(request.seed),
        output_type="pil",
        **conditioning,
    ).frames[0]
    return np.stack([np.asarray(frame) for frame in frames])
