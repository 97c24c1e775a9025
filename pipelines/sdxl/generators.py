"""Each image's own random generator, kept in the run's state by its row, as ``rng.i``.

They are of the CPU whatever the device, so that a seed gives the same numbers anywhere.
"""

from __future__ import annotations

import torch

from pipelines.state import State


def generators(state: State, rows: range) -> list[torch.Generator]:
    """As they were kept."""
    made = []
    for i in rows:
        generator = torch.Generator()
        generator.set_state(state.tensors[f"rng.{i}"])
        made.append(generator)
    return made


def keep_generators(state: State, rows: range, moved: list[torch.Generator]) -> None:
    for i, generator in zip(rows, moved, strict=True):
        state.tensors[f"rng.{i}"] = generator.get_state()
