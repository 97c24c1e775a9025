"""Each image's own random generator, kept in the run's state as ``rng.i`` between two steps.

They are of the CPU whatever the device, so that a seed gives the same numbers anywhere.
"""

from __future__ import annotations

import torch

from pipelines.state import State


def generators(state: State, images: range) -> list[torch.Generator]:
    """As they were kept."""
    made = []
    for i in images:
        generator = torch.Generator()
        generator.set_state(state.tensors[f"rng.{i}"])
        made.append(generator)
    return made


def keep_generators(state: State, images: range, moved: list[torch.Generator]) -> None:
    for i, generator in zip(images, moved, strict=True):
        state.tensors[f"rng.{i}"] = generator.get_state()
