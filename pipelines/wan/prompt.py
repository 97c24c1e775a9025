"""Prompts through the text encoder, cleaned, cut and padded as the library does."""

from __future__ import annotations

import threading

import torch
from diffusers.pipelines.wan.pipeline_wan import prompt_clean
from transformers import PreTrainedTokenizerBase, UMT5EncoderModel

from pipelines.request import VideoRequest
from pipelines.state import State

# What the transformer was trained on; longer prompts are cut, shorter ones padded with zeros.
TOKENS_MAX = 512
POSITIVE = "prompt_embeds"
NEGATIVE = "negative_prompt_embeds"


def guided(request: VideoRequest) -> bool:
    """Whether classifier-free guidance runs, with its second pass over the negative prompt."""
    return request.guidance_scale > 1.0


class Tokenizer:
    """A T5 tokenizer that may be asked from several threads: the library's sets truncation and
    padding on shared state for each call, and plans are made while another job is encoded."""

    def __init__(self, tokenizer: PreTrainedTokenizerBase) -> None:
        self._tokenizer = tokenizer
        self._lock = threading.Lock()

    def count(self, prompt: str) -> int:
        """Tokens of the cleaned prompt with its end mark, were it not cut."""
        with self._lock:
            return len(self._tokenizer(prompt_clean(prompt)).input_ids)

    def __call__(self, prompt: str) -> tuple[torch.Tensor, torch.Tensor]:
        """Ids and attention mask, (1, 512) each, of the cleaned prompt."""
        with self._lock:
            tokens = self._tokenizer(
                [prompt_clean(prompt)],
                padding="max_length",
                max_length=TOKENS_MAX,
                truncation=True,
                return_attention_mask=True,
                return_tensors="pt",
            )
        return tokens.input_ids, tokens.attention_mask


def encode_prompts(
    tokenizer: Tokenizer,
    text_encoder: UMT5EncoderModel,
    state: State,
    request: VideoRequest,
    device: torch.device,
) -> None:
    """Write the embeddings, (1, 512, text width) each; the negative ones only under guidance."""
    prompts = {POSITIVE: request.prompt}
    if guided(request):
        prompts[NEGATIVE] = request.negative_prompt
    for name, prompt in prompts.items():
        ids, mask = tokenizer(prompt)
        hidden = text_encoder(ids.to(device), mask.to(device)).last_hidden_state
        embeds = hidden.to(text_encoder.dtype)
        # behind the end token the transformer expects zeros, not what the encoder makes of padding
        embeds[:, int(mask.sum()) :] = 0
        state.tensors[name] = embeds
