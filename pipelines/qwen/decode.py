"""The forward pass over texts, whose KV caches are kept in their states.

``kv.<layer>.k`` and ``.v`` of shape (1, heads, tokens so far, head size) are each text's own at
every step boundary. A pass appends to them; the grown tensors are new ones, and an old one is freed
as soon as it was replaced: two whole caches would double the peak.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import torch
from transformers import DynamicCache

from pipelines.qwen.together import logits_together
from pipelines.state import State


def next_logits(module: Any, states: Sequence[State]) -> Sequence[torch.Tensor]:
    """Read what each text's cache lacks; the logits after it: float32, (vocabulary,).

    Several texts are read together and must lack one token each. One text goes the library's own
    way, bit for bit.
    """
    if len(states) > 1:
        return logits_together(module, states)
    return [_logits_alone(module, states[0])]


def cached_tokens(state: State) -> int:
    """How many of the text's tokens are in its cache."""
    keys = state.tensors.get("kv.0.k")
    return 0 if keys is None else keys.shape[2]


@contextmanager
def caches_kept(states: Sequence[State]) -> Iterator[None]:
    """After an exception inside, each text's cache holds what it held before, in a view of what it
    had grown to: no second cache is kept for that."""
    lengths = [cached_tokens(state) for state in states]
    try:
        yield
    except BaseException:
        for state, length in zip(states, lengths, strict=True):
            for name in [name for name in state.tensors if name.startswith("kv.")]:
                if length:
                    state.tensors[name] = state.tensors[name][:, :, :length]
                else:
                    del state.tensors[name]
        raise


def _logits_alone(module: Any, state: State) -> torch.Tensor:
    new = state.values["tokens"][cached_tokens(state) :]
    cache = _take_cache(module.config, state)
    ids = torch.tensor([new], device=module.device)
    try:
        output = module(input_ids=ids, past_key_values=cache, use_cache=True, logits_to_keep=1)
    finally:
        for index, layer in enumerate(cache.layers):
            if layer.is_initialized:
                state.tensors[f"kv.{index}.k"] = layer.keys
                state.tensors[f"kv.{index}.v"] = layer.values
    logits: torch.Tensor = output.logits[0, -1].to(torch.float32, copy=True)
    return logits


def _take_cache(config: Any, state: State) -> Any:
    """The library's cache, the only owner of the text's tensors as long as it is in use."""
    cache = DynamicCache(config=config)
    for index, layer in enumerate(cache.layers):
        keys = state.tensors.pop(f"kv.{index}.k", None)
        if keys is not None:
            layer.keys, layer.values = keys, state.tensors.pop(f"kv.{index}.v")
            layer.dtype, layer.device = keys.dtype, keys.device
            layer.is_initialized = True
    return cache
