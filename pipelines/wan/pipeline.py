"""WAN as a ``Pipeline``: one step of a request at a time."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
import torch
from PIL import Image
from transformers.models.clip.image_processing_pil_clip import CLIPImageProcessorPil

from pipelines import cancel
from pipelines.base import (
    CancelToken,
    ImageOutput,
    Output,
    PhasePlan,
    VideoOutput,
    step_alone,
)
from pipelines.component import Component
from pipelines.device import Device
from pipelines.request import Request, VideoRequest
from pipelines.state import State
from pipelines.wan.cache import drop
from pipelines.wan.checkpoint import Checkpoint
from pipelines.wan.denoise import LATENTS, RANDOM, denoise_step, seeded
from pipelines.wan.image_to_video import encode_images, image_step
from pipelines.wan.plan import CONDITION, DECODE, DENOISE, ENCODE, check, phase_steps, phases
from pipelines.wan.prompt import TOKENS_MAX, Tokenizer, encode_prompts, guided
from pipelines.wan.vace import reference_frames, vace_step
from pipelines.wan.vae import begin_decode, decode_chunk, end_decode, latent_frames

_FRAMES = "frames"


class Wan:
    """A text-to-video, VACE or image-to-video checkpoint. Use ``open_wan`` to make one.

    A VACE checkpoint serves mode ``none`` with the plain transformer inside it, which is bit-equal
    to ``WanPipeline`` on those weights and needs no conditioning.
    """

    def __init__(
        self,
        name: str,
        checkpoint: Checkpoint,
        parts: Mapping[str, Component],
        tokenizer: Tokenizer,
        image_processor: CLIPImageProcessorPil | None,
        dtype: torch.dtype,
        device: Device,
        working_bytes_factor: float,
    ) -> None:
        """``parts`` by their folder's name; ``dtype`` is the transformer's and text encoder's."""
        self._name = name
        self._checkpoint = checkpoint
        self._parts = dict(parts)
        self._tokenizer = tokenizer
        self._image_processor = image_processor
        self._dtype = dtype
        self._device = device
        self._factor = working_bytes_factor

    @property
    def name(self) -> str:
        return self._name

    @property
    def components(self) -> Mapping[str, Component]:
        return {component.name: component for component in self._parts.values()}

    def plan(self, request: Request) -> tuple[PhasePlan, ...]:
        """``encode``, ``condition`` where there are references, ``denoise``, ``decode``."""
        video = check(request, self._checkpoint)
        return phases(video, self._checkpoint, self._name, self._dtype, self._factor)

    def warnings(self, request: Request) -> tuple[str, ...]:
        video = check(request, self._checkpoint)
        prompts = {"prompt": video.prompt}
        if guided(video):
            prompts["negative_prompt"] = video.negative_prompt
        counts = {field: self._tokenizer.count(text) for field, text in prompts.items()}
        return tuple(
            f"{field}: has {count} tokens with its end mark, of which {TOKENS_MAX} are read;"
            f" the last {count - TOKENS_MAX} are cut"
            for field, count in counts.items()
            if count > TOKENS_MAX
        )

    def begin(self, request: Request) -> State:
        video = check(request, self._checkpoint)
        return State(video, ENCODE, tensors={RANDOM: seeded(video.seed)})

    def step(self, state: State, token: CancelToken) -> tuple[Output, ...]:
        request = check(state.request, self._checkpoint)
        steps = phase_steps(request, self._checkpoint)
        with torch.no_grad(), cancel.active(token):
            outputs = self._run(state, request)
        state.step += 1
        if state.step == steps[state.phase]:
            names = [*steps, "done"]
            state.phase, state.step = names[names.index(state.phase) + 1], 0
        return outputs

    def step_together(
        self, states: Sequence[State], tokens: Sequence[CancelToken]
    ) -> list[tuple[Output, ...] | None]:
        return step_alone(self, states, tokens)

    def _run(self, state: State, request: VideoRequest) -> tuple[Output, ...]:
        device = self._device.torch
        if state.phase == ENCODE:
            encoder = self._parts["text_encoder"].module
            encode_prompts(self._tokenizer, encoder, state, request, device)
        elif state.phase == CONDITION:
            self._condition(state, request)
        elif state.phase == DENOISE:
            transformer = self._parts["transformer"].module
            denoise_step(transformer, self._checkpoint.scheduler, state, request, device)
        else:
            assert state.phase == DECODE, state.phase
            return self._decode(state, request)
        return ()

    def _condition(self, state: State, request: VideoRequest) -> None:
        vae, device = self._parts["vae"].module, self._device.torch
        if self._checkpoint.vace:
            vace_step(vae, state, request, device)
        else:
            encode = None if self._checkpoint.image_encoder is None else self._encode_images
            image_step(vae, state, request, device, encode)

    def _encode_images(self, images: list[Image.Image]) -> torch.Tensor:
        encoder = self._parts["image_encoder"].module
        assert self._image_processor is not None
        return encode_images(images, encoder, self._image_processor, self._device.torch)

    def _decode(self, state: State, request: VideoRequest) -> tuple[Output, ...]:
        vae = self._parts["vae"].module
        if state.step == 0:
            latents = state.tensors.pop(LATENTS)[:, :, reference_frames(request) :]
            begin_decode(vae, state, latents)
        made = torch.from_numpy(decode_chunk(vae, state, state.step))
        state.tensors[f"{_FRAMES}.{state.step}"] = made
        chunks = latent_frames(request.frames)
        if state.step < chunks - 1:
            return ()
        end_decode(state)
        # after a restore the frames made before it lie on the device
        parts = [state.tensors[f"{_FRAMES}.{i}"].cpu().numpy() for i in range(chunks)]
        drop(state, _FRAMES)
        frames = np.concatenate(parts)
        if request.frames == 1:
            return (ImageOutput(0, frames[0]),)
        return (VideoOutput(frames),)
