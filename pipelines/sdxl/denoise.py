"""One denoising step of one run, or of several that share a pass through the UNet.

Alone it is the library's, bit for bit. Together the runs' images are the rows of one batch, with
their negative halves before their positive ones; every run's scheduler, with its history, and its
generators see that run's rows only.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch

from pipelines.request import ImageRequest
from pipelines.sdxl.generators import generators, keep_generators
from pipelines.sdxl.sampler import Sampler
from pipelines.state import State


@dataclass(frozen=True, slots=True)
class _Part:
    """What one run brings: the latents of those ``rows`` that it denoises now."""

    state: State
    request: ImageRequest
    rows: range
    latents: torch.Tensor
    scheduler: Any


def denoise_step(unet: Any, sampler: Sampler, states: Sequence[State]) -> None:
    """Move the states on by one step. Several have the same size, schedule, guidance scale and
    steps done. After an exception all are as they were."""
    first = states[0]
    assert isinstance(first.request, ImageRequest)
    timesteps = sampler.timesteps(first.request.steps, first.request.strength)
    parts = [_part(sampler, state, len(timesteps)) for state in states]
    timestep = timesteps[first.step % len(timesteps)]
    noises = _predict(unet, parts, timestep)
    moves = [
        _moved(sampler, part, noise, timestep) for part, noise in zip(parts, noises, strict=True)
    ]
    for part, (latents, moved) in zip(parts, moves, strict=True):
        keep_generators(part.state, part.rows, moved)
        sampler.keep(part.scheduler, part.state)
        part.state.tensors["latents"] = latents


def _part(sampler: Sampler, state: State, schedule: int) -> _Part:
    request = state.request
    assert isinstance(request, ImageRequest)
    rows = range(len(request.rows))
    if request.bitwise:
        row = state.step // schedule
        rows = range(row, row + 1)
    if state.step % schedule:
        scheduler = sampler.restored(state, request.steps, request.strength)
    else:
        scheduler = sampler.fresh(request.steps, request.strength)
    latents = state.tensors["latents"][rows.start : rows.stop]
    return _Part(state, request, rows, latents, scheduler)


def _predict(unet: Any, parts: Sequence[_Part], timestep: torch.Tensor) -> list[torch.Tensor]:
    """The guided noise of each part."""
    guidance = parts[0].request.guidance_scale
    halves = 2 if guidance > 1 else 1
    inputs = [part.scheduler.scale_model_input(part.latents, timestep) for part in parts]
    conditions = {
        "text_embeds": _rows(parts, "pooled", halves),
        "time_ids": torch.cat([_rows(parts, "time_ids", 1)] * halves),
    }
    noise = unet(
        torch.cat(inputs * halves),
        timestep,
        encoder_hidden_states=_rows(parts, "embeds", halves),
        added_cond_kwargs=conditions,
        return_dict=False,
    )[0]
    if halves == 2:
        negative, positive = noise.chunk(2)
        noise = negative + guidance * (positive - negative)
    # Copies: what a scheduler keeps of its run's rows must not keep the others' alive.
    return [rows.clone() for rows in noise.split([len(part.rows) for part in parts])]


def _rows(parts: Sequence[_Part], name: str, halves: int) -> torch.Tensor:
    """A row an image: all parts' images for the first half of the batch, then for the second."""
    rows = []
    for half in range(halves):
        for part in parts:
            row = part.state.tensors[name][half]
            rows.append(row.expand(len(part.rows), *row.shape))
    return torch.cat(rows)


def _moved(
    sampler: Sampler, part: _Part, noise: torch.Tensor, timestep: torch.Tensor
) -> tuple[torch.Tensor, list[torch.Generator]]:
    """All of the run's latents after the step, and the generators as it left them."""
    drawn = generators(part.state, part.rows)
    moved: torch.Tensor = part.scheduler.step(
        noise, timestep, part.latents, **sampler.arguments(drawn), return_dict=False
    )[0]
    if len(part.rows) < len(part.request.rows):
        # A clone has the layout of the whole, by which kernels are chosen; a concatenation with an
        # empty rest has not.
        whole = part.state.tensors["latents"].clone()
        whole[part.rows.start : part.rows.stop] = moved
        moved = whole
    return moved, drawn
