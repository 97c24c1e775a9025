"""The VAE's causal feature cache, kept in the run's state instead of in the module.

A slot holds the last two frames of one convolution's input, ``None`` before its first chunk, or
the word that the library puts where the first chunk is repeated.
"""

from __future__ import annotations

import torch

from pipelines.state import State

Slot = torch.Tensor | str | None
_TENSOR = "tensor"


def store_cache(state: State, name: str, slots: list[Slot]) -> None:
    """Write the slots as ``name.0``, ``name.1``... with their kinds under ``values[name]``."""
    kinds: list[str | None] = []
    for i, slot in enumerate(slots):
        if isinstance(slot, torch.Tensor):
            state.tensors[f"{name}.{i}"] = slot
            kinds.append(_TENSOR)
        else:
            kinds.append(slot)
    state.values[name] = kinds


def take_cache(state: State, name: str, size: int) -> list[Slot]:
    """The slots as stored, or ``size`` empty ones before the first chunk.

    They leave the state, so that each old slot is freed as soon as the module replaces it: at
    480p two whole caches would be 3.5 GiB more than one.
    """
    kinds: list[str | None] = state.values.pop(name, [None] * size)
    return [
        state.tensors.pop(f"{name}.{i}") if kind == _TENSOR else kind
        for i, kind in enumerate(kinds)
    ]


def drop(state: State, name: str) -> None:
    """Forget the value and every tensor called ``name`` or ``name.*``."""
    state.values.pop(name, None)
    for key in [k for k in state.tensors if k == name or k.startswith(f"{name}.")]:
        del state.tensors[key]
