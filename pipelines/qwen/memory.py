"""Bytes that a text takes on the device beside the weights, in closed form."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch

_FLOAT32 = 4
_INT64 = 8
# A CPU generator's state has 5,056 bytes.
_GENERATOR = 8 * 1024
# float32 scores warped, sorted with int64 indices, their softmax, its sum, masks and noise
_SAMPLING = 48


@dataclass(frozen=True, slots=True)
class TextShape:
    """The sizes of a model that decide about memory.

    ``element`` is bytes per value. ``fused``: attention is computed without holding its scores.
    """

    layers: int
    hidden: int
    intermediate: int
    heads: int
    kv_heads: int
    head_size: int
    vocabulary: int
    element: int
    fused: bool

    @classmethod
    def of(cls, config: Any, dtype: torch.dtype, device: torch.device) -> TextShape:
        heads = config.num_attention_heads
        return cls(
            layers=config.num_hidden_layers,
            hidden=config.hidden_size,
            intermediate=config.intermediate_size,
            heads=heads,
            kv_heads=config.num_key_value_heads,
            head_size=getattr(config, "head_dim", None) or config.hidden_size // heads,
            vocabulary=config.vocab_size,
            element=dtype.itemsize,
            # CUDA's fused kernels for heads that share keys take half precision only
            fused=device.type == "cpu" or dtype.itemsize < _FLOAT32,
        )

    @property
    def kv_bytes(self) -> int:
        """KV cache of one token."""
        return 2 * self.layers * self.kv_heads * self.head_size * self.element

    def working_bytes(self, prompt_tokens: int, tokens: int) -> int:
        """An upper bound for ``prompt_tokens`` read at once and ``tokens`` generated after them:
        the wider of the prompt's activations and the last token's full cache.

        Texts together need no more than the sum of theirs: each has its row of every activation,
        and while one tensor of one cache grows, or one prompt is read, all others only lie there.
        """
        cache = self.kv_bytes * (prompt_tokens + tokens)
        # keys, then values, of one layer at a time are copied into longer ones
        growing = cache // (2 * self.layers)
        logits = self.vocabulary * (self.element + _FLOAT32 + _SAMPLING)
        first = self.kv_bytes * prompt_tokens + self._activations(prompt_tokens)
        last = cache + growing + self._activations(1) + logits
        return max(first, last)

    def state_bytes(self, prompt_tokens: int, tokens: int) -> int:
        """An upper bound for what a run carries between two tokens: the full cache, the generator
        and the last token's odds and ends."""
        return self.kv_bytes * (prompt_tokens + tokens) + _GENERATOR

    def _activations(self, tokens: int) -> int:
        """The widest moment of a layer: the feed-forward part, whose inner width is at least twice
        the model's in every Qwen 2.5; without fused attention, its scores and their softmax."""
        inside = 4 * self.hidden + 3 * self.intermediate + 2 * self.head_size
        linear = tokens * (inside * self.element + 2 * _INT64)
        scores = 0 if self.fused else 2 * _FLOAT32 * self.heads * tokens**2
        return linear + scores
