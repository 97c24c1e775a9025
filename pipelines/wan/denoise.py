"""One scheduler step of the WAN transformer, in the form that its checkpoint asks for."""

from __future__ import annotations

from typing import Any

import torch
from diffusers import WanTransformer3DModel, WanVACETransformer3DModel
from diffusers.utils.torch_utils import randn_tensor

from pipelines.request import VideoRequest
from pipelines.state import State
from pipelines.wan.image_to_video import CONDITION, IMAGE_EMBEDS
from pipelines.wan.plain import plain_view
from pipelines.wan.prompt import NEGATIVE, POSITIVE
from pipelines.wan.schedule import scheduler_at, store_scheduler
from pipelines.wan.vace import CONTROL, reference_frames
from pipelines.wan.vae import SPATIAL, latent_frames

LATENTS = "latents"
RANDOM = "rng.0"


def seeded(seed: int) -> torch.Tensor:
    """The state of a CPU generator, which gives the same noise whatever the device."""
    return torch.Generator().manual_seed(seed).get_state()


def draw_latents(
    state: State, request: VideoRequest, channels: int, device: torch.device
) -> torch.Tensor:
    """Noise, (1, channels, latent frames, height / 8, width / 8), fp32; advances the generator."""
    generator = torch.Generator()
    generator.set_state(state.tensors[RANDOM])
    shape = (
        1,
        channels,
        latent_frames(request.frames) + reference_frames(request),
        request.height // SPATIAL,
        request.width // SPATIAL,
    )
    noise: torch.Tensor = randn_tensor(
        shape, generator=generator, device=device, dtype=torch.float32
    )
    state.tensors[RANDOM] = generator.get_state()
    return noise


def denoise_step(
    transformer: WanTransformer3DModel | WanVACETransformer3DModel,
    scheduler_config: dict[str, Any],
    state: State,
    request: VideoRequest,
    device: torch.device,
) -> None:
    """Predict the noise, with guidance where there are negative embeddings, and move ``latents``
    one scheduler step on. The last step leaves nothing else in the state."""
    if isinstance(transformer, WanVACETransformer3DModel) and CONTROL not in state.tensors:
        transformer = plain_view(transformer)
    if state.step == 0:
        state.tensors[LATENTS] = draw_latents(
            state, request, transformer.config.out_channels, device
        )
    scheduler = scheduler_at(scheduler_config, request.flow_shift, request.steps, state, device)
    latents, time = state.tensors[LATENTS], scheduler.timesteps[state.step]
    noise = _predict(transformer, state, latents, time, POSITIVE)
    if NEGATIVE in state.tensors:
        unguided = _predict(transformer, state, latents, time, NEGATIVE)
        noise = unguided + request.guidance_scale * (noise - unguided)
    latents = scheduler.step(noise, time, latents, return_dict=False)[0]
    if state.step == request.steps - 1:
        state.tensors, state.values = {LATENTS: latents}, {}
        return
    state.tensors[LATENTS] = latents
    store_scheduler(scheduler, state)


def _predict(
    transformer: WanTransformer3DModel | WanVACETransformer3DModel,
    state: State,
    latents: torch.Tensor,
    time: torch.Tensor,
    prompt: str,
) -> torch.Tensor:
    dtype = transformer.dtype
    inputs: dict[str, Any] = {"encoder_hidden_states": state.tensors[prompt].to(dtype)}
    if CONTROL in state.tensors:
        inputs["control_hidden_states"] = state.tensors[CONTROL].to(dtype)
    if CONDITION in state.tensors:
        latents = torch.cat([latents, state.tensors[CONDITION]], dim=1)
    if IMAGE_EMBEDS in state.tensors:
        inputs["encoder_hidden_states_image"] = state.tensors[IMAGE_EMBEDS].to(dtype)
    noise: torch.Tensor = transformer(
        hidden_states=latents.to(dtype),
        timestep=time.expand(latents.shape[0]),
        return_dict=False,
        **inputs,
    )[0]
    return noise
