"""What one step of each SDXL phase computes, bit for bit as the library's own pipeline does.

Between steps a run is: ``embeds`` (1 or 2, 77, width), the negative prompt first; ``pooled``
(1 or 2, width); ``time_ids`` (1, 6); ``latents`` (rows, 4, height / 8, width / 8); ``rng.i``, one
generator state a row; and the scheduler's history. A row is an image that is denoised.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from diffusers.utils.torch_utils import randn_tensor

from pipelines.base import ImageOutput, Output
from pipelines.component import Component
from pipelines.images import load_reference, to_pixels
from pipelines.request import ImageRequest
from pipelines.sdxl.checkpoint import Checkpoint
from pipelines.sdxl.denoise import denoise_step
from pipelines.sdxl.generators import generators, keep_generators
from pipelines.state import State

_NEEDED_TO_DECODE = frozenset({"latents"})


class Phases:
    """The steps, by phase name. Holds nothing of a run."""

    def __init__(
        self,
        name: str,
        checkpoint: Checkpoint,
        components: Mapping[str, Component],
        device: torch.device,
        scale: int,
    ) -> None:
        self._name = name
        self._checkpoint = checkpoint
        self._components = components
        self._device = device
        self._scale = scale
        # Padding and truncation are settings of the tokenizer object, and prompts are counted in
        # another thread than they are encoded in.
        self._tokenizing = threading.Lock()
        self._steps: Mapping[str, Callable[[State, ImageRequest], tuple[Output, ...]]] = {
            "encode": self._encode,
            "condition": self._condition,
            "denoise": self._denoise,
            "decode": self._decode,
        }

    def run(self, state: State, request: ImageRequest) -> tuple[Output, ...]:
        """One step of ``state.phase``; the caller moves the counters on."""
        return self._steps[state.phase](state, request)

    def denoise(self, states: Sequence[State]) -> None:
        """One denoising step of each state; see ``denoise_step``."""
        denoise_step(self._module("unet"), self._checkpoint.sampler, states)

    def finish(self, state: State) -> None:
        """Drop what no later phase reads."""
        if state.phase == "denoise":
            self._checkpoint.sampler.forget(state)
            state.tensors = {n: t for n, t in state.tensors.items() if n in _NEEDED_TO_DECODE}
        elif state.phase == "decode":
            state.tensors.clear()

    def count_tokens(self, text: str) -> tuple[int, int]:
        """The tokens that ``text`` makes, begin and end marks counted, and how many are read."""
        with self._tokenizing:
            counts = [
                (len(tokenizer(text).input_ids), int(tokenizer.model_max_length))
                for tokenizer in self._checkpoint.tokenizers
            ]
        return max(counts, key=lambda count: count[0] - count[1])

    def _module(self, part: str) -> Any:
        return self._components[f"{self._name}.{part}"].module

    def _encode(self, state: State, request: ImageRequest) -> tuple[Output, ...]:
        embeds, pooled = self._embed(request.prompt)
        if request.guidance_scale > 1:
            if not request.negative_prompt and self._checkpoint.zero_negative:
                negative, negative_pooled = torch.zeros_like(embeds), torch.zeros_like(pooled)
            else:
                negative, negative_pooled = self._embed(request.negative_prompt)
            embeds = torch.cat([negative, embeds])
            pooled = torch.cat([negative_pooled, pooled])
        size = [request.height, request.width]
        state.tensors["embeds"] = embeds
        state.tensors["pooled"] = pooled
        state.tensors["time_ids"] = torch.tensor(
            [[*size, 0, 0, *size]], dtype=embeds.dtype, device=self._device
        )
        if request.strength is None:
            noise = self._draw(state, request)
            state.tensors["latents"] = noise * self._checkpoint.sampler.initial_scale(request.steps)
        return ()

    def _embed(self, prompt: str) -> tuple[torch.Tensor, torch.Tensor]:
        """Embeddings (1, 77, both widths) and the second encoder's pooled output (1, width)."""
        encoders = self._module("text_encoders")
        hidden = []
        for name, tokenizer in zip(
            ("text_encoder", "text_encoder_2"), self._checkpoint.tokenizers, strict=True
        ):
            with self._tokenizing:
                ids = tokenizer(
                    prompt,
                    padding="max_length",
                    max_length=tokenizer.model_max_length,
                    truncation=True,
                    return_tensors="pt",
                ).input_ids
            output = encoders[name](ids.to(self._device), output_hidden_states=True)
            hidden.append(output.hidden_states[-2])
            pooled: torch.Tensor = output[0]
        return torch.cat(hidden, dim=-1).to(self._checkpoint.dtype), pooled

    def _draw(self, state: State, request: ImageRequest) -> torch.Tensor:
        """Unit noise for every image, each from its own generator, which moves on."""
        shape = (
            len(request.rows),
            self._checkpoint.unet["in_channels"],
            request.height // self._scale,
            request.width // self._scale,
        )
        drawn = generators(state, range(len(request.rows)))
        noise: torch.Tensor = randn_tensor(shape, drawn, self._device, self._checkpoint.dtype)
        keep_generators(state, range(len(request.rows)), drawn)
        return noise

    def _condition(self, state: State, request: ImageRequest) -> tuple[Output, ...]:
        """The reference is encoded once; each image samples its posterior and adds its noise."""
        found = self._checkpoint
        assert request.image_path is not None
        pixels = load_reference(
            Path(request.image_path), request.width, request.height, "image_path"
        )
        posterior = self._module("vae").encode(pixels.to(self._device)).latent_dist
        drawn = generators(state, range(len(request.rows)))
        sampled = torch.cat([posterior.sample(generator) for generator in drawn])
        keep_generators(state, range(len(request.rows)), drawn)
        clean = self._normalise(sampled.to(found.dtype))
        noise = self._draw(state, request)
        scheduler = found.sampler.fresh(request.steps, request.strength)
        first = found.sampler.timesteps(request.steps, request.strength)[:1]
        firsts = first.repeat(len(request.rows))
        state.tensors["latents"] = scheduler.add_noise(clean, noise, firsts)
        return ()

    def _denoise(self, state: State, _request: ImageRequest) -> tuple[Output, ...]:
        self.denoise([state])
        return ()

    def _decode(self, state: State, request: ImageRequest) -> tuple[Output, ...]:
        index = request.made[state.step]
        row = request.rows.index(index)
        latents = state.tensors["latents"][row : row + 1].to(torch.float32)
        decoded = self._module("vae").decode(self._denormalise(latents), return_dict=False)[0]
        return (ImageOutput(index, to_pixels(decoded)),)

    def _normalise(self, latents: torch.Tensor) -> torch.Tensor:
        """From the VAE's own range to the UNet's."""
        factor = float(self._checkpoint.vae["scaling_factor"])
        statistics = self._statistics(latents)
        if statistics is None:
            return factor * latents
        mean, deviation = statistics
        return (latents - mean) * factor / deviation

    def _denormalise(self, latents: torch.Tensor) -> torch.Tensor:
        factor = float(self._checkpoint.vae["scaling_factor"])
        statistics = self._statistics(latents)
        if statistics is None:
            return latents / factor
        mean, deviation = statistics
        return latents * deviation / factor + mean

    def _statistics(self, latents: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor] | None:
        """Mean and standard deviation a channel, where the VAE's configuration gives them."""
        values = (self._checkpoint.vae["latents_mean"], self._checkpoint.vae["latents_std"])
        if values[0] is None or values[1] is None:
            return None
        mean, deviation = (torch.tensor(v).view(1, -1, 1, 1).to(latents) for v in values)
        return mean, deviation
