"""One forward pass over the newest token of several texts.

All of the model but attention treats each token by itself: there the texts are the rows of one
batch, and the weights, whose reading is most of what a token costs, are read once for all.
Attention is computed text by text over the text's own cache.

The other way, a padded cache for all of them with a mask, was weighed for Qwen 2.5 7B (57,344 bytes
a token) and 16 texts of 1,000 to 3,000 tokens, whose own caches take 1.8 GB. Kept from token to
token it takes up to 2.8 GB more, and is made anew whenever a text joins or leaves; made anew at
every token, a layer at a time, it takes 0.1 GB and moves 4.6 GB a token beyond what attention
reads; and what a text needs depends on the longest beside it, which no plan of its own can bound.
This way nothing is padded, masked or kept, a text joins and leaves at no cost, and the texts need
no more memory together than each by itself. Its price is one small kernel for each text and layer,
448 a token at 16 texts.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import torch
from transformers import AttentionInterface
from transformers.integrations.sdpa_attention import sdpa_attention_forward

from pipelines.state import State

_ATTENTION = "ourvidz_text_by_text"


def logits_together(module: Any, states: Sequence[State]) -> Sequence[torch.Tensor]:
    """Append each text's newest token to its cache; the logits after it: float32, (vocabulary,)."""
    tokens = [state.values["tokens"] for state in states]
    with _attention_text_by_text(module.config):
        output = module(
            input_ids=torch.tensor([[ids[-1]] for ids in tokens], device=module.device),
            position_ids=torch.tensor([[len(ids) - 1] for ids in tokens], device=module.device),
            # what the library makes of a mask; one new token sees all of its own text
            attention_mask={"full_attention": None},
            past_key_values=_Caches(states),
            use_cache=True,
        )
    return list(output.logits[:, -1].to(torch.float32, copy=True))


class _Caches:
    """In the place of the library's cache: the texts' own, which grow in their states."""

    def __init__(self, states: Sequence[State]) -> None:
        self._states = states

    def update(
        self, keys: torch.Tensor, values: torch.Tensor, layer: int
    ) -> tuple[list[torch.Tensor], list[torch.Tensor]]:
        """Append the new token's, (texts, heads, 1, head size); all of one layer's, by text."""
        return self._grown(f"kv.{layer}.k", keys), self._grown(f"kv.{layer}.v", values)

    def _grown(self, name: str, new: torch.Tensor) -> list[torch.Tensor]:
        for state, row in zip(self._states, torch.split(new, 1), strict=True):
            state.tensors[name] = torch.cat([state.tensors[name], row], dim=2)
        return [state.tensors[name] for state in self._states]


def _attend(
    module: Any,
    query: torch.Tensor,
    keys: Sequence[torch.Tensor],
    values: Sequence[torch.Tensor],
    _mask: None,
    **options: Any,
) -> tuple[torch.Tensor, None]:
    """The library's attention for each text; its interface, but with lists of keys and values."""
    rows = zip(torch.split(query, 1), keys, values, strict=True)
    made = [sdpa_attention_forward(module, q, k, v, None, **options)[0] for q, k, v in rows]
    return torch.cat(made), None


AttentionInterface.register(_ATTENTION, _attend)


@contextmanager
def _attention_text_by_text(config: Any) -> Iterator[None]:
    """A model's layers look their attention up in its configuration. Only one run steps a model at
    a time, so nobody else sees this."""
    usual = config._attn_implementation
    config._attn_implementation = _ATTENTION
    try:
        yield
    finally:
        config._attn_implementation = usual
