"""The forward pass over one text, with its KV cache kept in the state."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from transformers import DynamicCache

from pipelines.state import State


def next_logits(module: Any, state: State, tokens: Sequence[int]) -> torch.Tensor:
    """Append ``tokens`` to the text and return the logits after them: float32, (vocabulary,).

    ``kv.<layer>.k`` and ``.v`` of shape (1, heads, tokens so far, head size) are moved out of the
    state into the library's cache and its grown tensors moved back, never copied here; two owners
    would double the cache's peak. After an exception the state has lost them and cannot go on.
    """
    cache = _take_cache(module.config, state)
    ids = torch.tensor([tokens], device=module.device)
    output = module(input_ids=ids, past_key_values=cache, use_cache=True, logits_to_keep=1)
    for index, layer in enumerate(cache.layers):
        state.tensors[f"kv.{index}.k"] = layer.keys
        state.tensors[f"kv.{index}.v"] = layer.values
    logits: torch.Tensor = output.logits[0, -1].to(torch.float32, copy=True)
    return logits


def _take_cache(config: Any, state: State) -> Any:
    cache = DynamicCache(config=config)
    for index, layer in enumerate(cache.layers):
        keys = state.tensors.pop(f"kv.{index}.k", None)
        if keys is not None:
            layer.keys, layer.values = keys, state.tensors.pop(f"kv.{index}.v")
            layer.dtype, layer.device = keys.dtype, keys.device
            layer.is_initialized = True
    return cache
