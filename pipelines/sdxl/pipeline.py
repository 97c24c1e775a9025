"""SDXL as a ``Pipeline``: phases, plans and the step from one to the next."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence

import torch

from pipelines import cancel
from pipelines.base import (
    CancelToken,
    Output,
    PhasePlan,
    RunCancelled,
    Sharing,
    UnsupportedRequest,
    step_alone,
)
from pipelines.component import Component
from pipelines.device import Device
from pipelines.registry import ModelConfig
from pipelines.request import ImageRequest, Request
from pipelines.sdxl import estimate
from pipelines.sdxl.checkpoint import Checkpoint, read_checkpoint
from pipelines.sdxl.phases import Phases
from pipelines.state import State

# A batch of so many fills the card; more would only make all of them wait for each other.
_TOGETHER_MAX = 6
_TOGETHER_EXPONENT = 0.92


def open_sdxl(config: ModelConfig, device: Device, working_bytes_factor: float) -> SdxlPipeline:
    """Read configurations and headers. Raises ``CheckpointError``."""
    checkpoint = read_checkpoint(config, device.torch)
    return SdxlPipeline(config.name, checkpoint, device, working_bytes_factor)


class SdxlPipeline:
    """``encode -> condition (with a reference image) -> denoise -> decode``.

    An empty negative prompt is the library's absent one. Images of a batch are denoised together,
    or with ``bitwise`` one after another; those that are wanted are decoded, one a step. Shareable
    requests from text alone are denoised together with others of the same size, steps and guidance
    scale.
    """

    def __init__(
        self, name: str, checkpoint: Checkpoint, device: Device, working_bytes_factor: float
    ) -> None:
        self.name = name
        self.components: Mapping[str, Component] = {
            f"{name}.{part}": Component(f"{name}.{part}", source, device)
            for part, source in checkpoint.sources.items()
        }
        self._checkpoint = checkpoint
        self._device = device
        self._factor = working_bytes_factor
        self._scale = 2 ** (len(checkpoint.vae["block_out_channels"]) - 1)
        self._phases = Phases(name, checkpoint, self.components, device.torch, self._scale)

    def plan(self, request: Request) -> tuple[PhasePlan, ...]:
        image = self._checked(request)
        found = self._checkpoint
        item_bytes = found.dtype.itemsize
        pixels = image.width * image.height
        state_bytes = estimate.state_bytes(
            found.unet,
            positions=pixels // self._scale**2,
            images=len(image.rows),
            guided=image.guidance_scale > 1,
            item_bytes=item_bytes,
        )

        def phase(
            name: str, part: str, working_bytes: int, steps: int, sharing: Sharing | None = None
        ) -> PhasePlan:
            padded = math.ceil(working_bytes * self._factor)
            return PhasePlan(name, (f"{self.name}.{part}",), padded, steps, state_bytes, sharing)

        encode_bytes = estimate.encode_bytes(found.text, item_bytes)
        phases = [phase("encode", "text_encoders", encode_bytes, 1)]
        if image.strength is not None:
            condition_bytes = estimate.vae_encode_bytes(found.vae, pixels)
            phases.append(phase("condition", "vae", condition_bytes, 1))
        rows = len(image.rows)
        rounds, together = (rows, 1) if image.bitwise else (1, rows)
        denoise_bytes = estimate.denoise_bytes(
            found.unet,
            positions=pixels // self._scale**2,
            images=together,
            guided=image.guidance_scale > 1,
            item_bytes=item_bytes,
        )
        schedule = len(found.sampler.timesteps(image.steps, image.strength))
        phases.append(
            phase("denoise", "unet", denoise_bytes, schedule * rounds, self._sharing(image))
        )
        decode_bytes = estimate.vae_decode_bytes(found.vae, pixels)
        phases.append(phase("decode", "vae", decode_bytes, len(image.made)))
        return tuple(phases)

    def warnings(self, request: Request) -> tuple[str, ...]:
        image = self._checked(request)
        found = []
        prompts = {"prompt": image.prompt}
        if image.guidance_scale > 1:
            prompts["negative_prompt"] = image.negative_prompt
        for field, text in prompts.items():
            count, limit = self._phases.count_tokens(text)
            if count > limit:
                found.append(
                    f"{field}: has {count} tokens with its two marks, of which {limit} are read;"
                    f" the last {count - limit} are cut"
                )
        if image.strength is not None and int(image.steps * image.strength) < 1:
            found.append(
                f"strength: {image.strength} of {image.steps} steps is less than one; one is run"
            )
        return tuple(found)

    def begin(self, request: Request) -> State:
        image = self._checked(request)
        state = State(image, "encode")
        for row, index in enumerate(image.rows):
            generator = torch.Generator().manual_seed(image.seed + index)
            state.tensors[f"rng.{row}"] = generator.get_state()
        return state

    def step(self, state: State, token: CancelToken) -> tuple[Output, ...]:
        image = self._checked(state.request)
        phase, following = self._place(state)
        with cancel.active(token), torch.no_grad():
            outputs = self._phases.run(state, image)
            self._device.synchronize()
        self._count(state, phase, following)
        return outputs

    def step_together(
        self, states: Sequence[State], tokens: Sequence[CancelToken]
    ) -> list[tuple[Output, ...] | None]:
        if len(states) == 1:
            return step_alone(self, states, tokens)
        places = [self._place(state) for state in states]
        self._check_alike(states, [phase.sharing for phase, _ in places])
        going = [i for i, token in enumerate(tokens) if not token.cancelled]
        try:
            with cancel.active(cancel.AllOf([tokens[i] for i in going])), torch.no_grad():
                self._phases.denoise([states[i] for i in going])
                self._device.synchronize()
        except RunCancelled:
            return [None] * len(states)
        for i in going:
            self._count(states[i], *places[i])
        return [None if token.cancelled else () for token in tokens]

    def _place(self, state: State) -> tuple[PhasePlan, str]:
        """The plan of the state's phase, and the phase that follows it."""
        plan = self.plan(state.request)
        for phase, following in zip(plan, [*(p.name for p in plan[1:]), "done"], strict=True):
            if phase.name == state.phase:
                return phase, following
        raise ValueError(f"{self.name}: phase {state.phase!r} is none of this request's")

    def _count(self, state: State, phase: PhasePlan, following: str) -> None:
        """Another step is done."""
        state.step += 1
        if state.step == phase.steps:
            self._phases.finish(state)
            state.phase, state.step = following, 0

    def _check_alike(self, states: Sequence[State], sharings: Sequence[Sharing | None]) -> None:
        found = [
            f"step {state.step} of {sharing.key if sharing else 'a phase that runs alone'}"
            for state, sharing in zip(states, sharings, strict=True)
        ]
        if None in sharings or len(set(found)) > 1:
            raise ValueError(f"{self.name}: cannot be taken together: {', '.join(found)}")

    def _sharing(self, image: ImageRequest) -> Sharing | None:
        """With whom the denoising may be shared: what the UNet or the schedule depends on is in the
        key, or the same for all of this pipeline."""
        if not image.shareable or image.bitwise or image.strength is not None:
            return None
        units = len(image.rows)
        if units >= _TOGETHER_MAX:
            return None
        size, guidance = f"{image.width}x{image.height}", float(image.guidance_scale)
        key = f"{self.name}.denoise.{size}.s{image.steps}.g{guidance}"
        return Sharing(key, units, _TOGETHER_MAX, _TOGETHER_EXPONENT, mid_phase=False)

    def _checked(self, request: Request) -> ImageRequest:
        if not isinstance(request, ImageRequest):
            raise UnsupportedRequest("type", f"{self.name} makes images only")
        for field, text in (
            ("prompt", request.prompt),
            ("negative_prompt", request.negative_prompt),
        ):
            if any("\ud800" <= letter <= "\udfff" for letter in text):
                raise UnsupportedRequest(field, f"{field}: holds half a surrogate pair")
        for field, value in (("width", request.width), ("height", request.height)):
            if value < self._scale or value % self._scale:
                raise UnsupportedRequest(
                    field, f"{field}: {value} is no positive multiple of {self._scale}"
                )
        steps_max = self._checkpoint.sampler.steps_max
        bounds = {
            "images": (request.images, 1, math.inf),
            "steps": (request.steps, 1, steps_max),
            "guidance_scale": (request.guidance_scale, 0, math.inf),
            "strength": (request.strength or 0, 0, 1),
            "seed": (request.seed, 0, 2**63 - 1 - request.images),
        }
        for field, (number, low, high) in bounds.items():
            if not (low <= number <= high and math.isfinite(number)):
                raise UnsupportedRequest(field, f"{field}: {number} is not within {low}..{high}")
        if request.made != tuple(sorted({i for i in request.made if 0 <= i < request.images})):
            raise UnsupportedRequest("only", f"only: {request.only} is not some of the images")
        if (request.strength is None) != (request.image_path is None):
            guilty = "image_path" if request.image_path is None else "strength"
            raise UnsupportedRequest(guilty, f"{guilty}: is missing; img2img needs it")
        return request
