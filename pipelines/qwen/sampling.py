"""Choosing the next token from one text's logits, with that text's own generator.

Adding Gumbel noise to the logits and taking the largest draws from their softmax. The noise comes
from the CPU's Mersenne Twister whatever the device, so that a seed gives the same numbers anywhere,
alone or among other texts.

Only what the caller gives counts: a checkpoint's ``generation_config.json`` often holds
``repetition_penalty``, ``top_k`` or a temperature of its own; they are not applied.
"""

from __future__ import annotations

import torch
from transformers import TemperatureLogitsWarper, TopPLogitsWarper

from pipelines.request import TextRequest

# below it the division overflows, and the most likely token wins anyway
GREEDY_BELOW = 1e-5
# half of the generator's resolution: keeps the logarithm of a drawn zero finite
_UNIFORM_MIN = 2.0**-25


class GumbelSampler:
    """Temperature, nucleus (``top_p``), then noise: the largest score is the token drawn.

    Called like a ``LogitsProcessor`` of the library's ``generate``: ``scores`` float32 of shape
    (1, vocabulary). Each call advances ``generator`` (of the CPU) by one number per score.
    """

    def __init__(self, temperature: float, top_p: float, generator: torch.Generator) -> None:
        self._warpers = [TemperatureLogitsWarper(temperature)]
        if top_p < 1.0:
            self._warpers.append(TopPLogitsWarper(top_p))
        self._generator = generator

    def __call__(self, input_ids: torch.Tensor, scores: torch.Tensor) -> torch.Tensor:
        uniform = torch.rand(scores.shape, generator=self._generator).clamp_min_(_UNIFORM_MIN)
        for warper in self._warpers:
            scores = warper(input_ids, scores)
        return scores - uniform.to(scores.device).log_().neg_().log_()


def first_generator_state(request: TextRequest) -> torch.Tensor | None:
    """The generator's state before the first token; ``None`` where nothing is drawn."""
    if request.temperature < GREEDY_BELOW:
        return None
    return torch.Generator().manual_seed(request.seed).get_state()


def choose(
    request: TextRequest, logits: torch.Tensor, generator_state: torch.Tensor | None
) -> tuple[int, torch.Tensor | None]:
    """The next token for float32 ``logits`` of shape (vocabulary,), and the generator's new state.

    Waits for the device.
    """
    if generator_state is None:
        return int(logits.argmax()), None
    generator = torch.Generator()
    generator.set_state(generator_state)
    sampler = GumbelSampler(request.temperature, request.top_p, generator)
    scores = sampler(torch.empty(1, 0, dtype=torch.long), logits.unsqueeze(0))
    return int(scores.argmax()), generator.get_state()
