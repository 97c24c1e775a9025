"""Text generation, one token a step."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from transformers import Qwen2ForCausalLM

from pipelines import cancel
from pipelines.base import (
    CancelToken,
    Output,
    PhasePlan,
    RunCancelled,
    Sharing,
    TextDelta,
    TextOutput,
    UnsupportedRequest,
)
from pipelines.component import Component
from pipelines.device import Device
from pipelines.qwen.decode import caches_kept, next_logits
from pipelines.qwen.folder import load_config, load_tokenizer, resolve_snapshot, stop_ids
from pipelines.qwen.memory import TextShape
from pipelines.qwen.prompt import ChatEncoder
from pipelines.qwen.sampling import GREEDY_BELOW, choose, first_generator_state
from pipelines.qwen.text import Detokenizer
from pipelines.registry import ModelConfig
from pipelines.request import Request, TextRequest
from pipelines.sources import FolderSource
from pipelines.state import State

PHASE = "generate"
_SEED_MAX = 2**63 - 1
# expected of a card that is bound by reading the weights, where a row's own work counts for little;
# the service learns what it is
_TOGETHER_MAX = 16
_TOGETHER_EXPONENT = 0.15


def open_qwen(config: ModelConfig, device: Device, working_bytes_factor: float) -> QwenPipeline:
    """Read the configuration, the tokenizer and the weights' headers. Raises ``CheckpointError``.

    ``config.path`` is a model's folder or its hub cache (``models--<owner>--<name>``).
    """
    return QwenPipeline(config, device, working_bytes_factor)


class QwenPipeline:
    """Base or instruct: the checkpoint decides. One component, ``<name>.model``.

    One phase, ``generate``. Its first step reads the whole prompt and chooses the first token,
    every further step adds one token; so a text takes at most ``max_tokens`` steps, and fewer
    where it ends by itself. The state's ``values``: ``tokens`` (ids of prompt and text),
    ``prompt_tokens`` (how many of them are the prompt), ``text`` (given out so far) and ``held``
    (hexadecimal bytes of an unfinished character). Its tensors: ``kv.<layer>.k|v`` and, where the
    text is sampled, ``rng.0``.

    Shareable texts may take any of their steps together. A prompt is still read by itself; all that
    are past it go through the model in one pass. From its own logits each text chooses by itself.
    """

    def __init__(self, config: ModelConfig, device: Device, working_bytes_factor: float) -> None:
        folder = resolve_snapshot(Path(config.path))
        dtype = getattr(torch, config.dtype)
        self._name = config.name
        self._factor = working_bytes_factor
        model_config = load_config(folder)
        tokenizer = load_tokenizer(folder, model_config.vocab_size)
        source = FolderSource(folder, Qwen2ForCausalLM, dtype)
        self._model = Component(f"{config.name}.model", source, device)
        self._positions: int = model_config.max_position_embeddings
        self._shape = TextShape.of(model_config, dtype, device.torch)
        self._sharing = Sharing(
            f"{config.name}.{PHASE}", 1, _TOGETHER_MAX, _TOGETHER_EXPONENT, mid_phase=True
        )
        self._chat = ChatEncoder(tokenizer)
        self._detokenizer = Detokenizer(tokenizer)
        self._stop_ids = stop_ids(folder, model_config, tokenizer)

    @property
    def name(self) -> str:
        return self._name

    @property
    def components(self) -> Mapping[str, Component]:
        return {self._model.name: self._model}

    @property
    def stop_ids(self) -> frozenset[int]:
        """The ids that end a text; none of them is part of it."""
        return self._stop_ids

    def plan(self, request: Request) -> tuple[PhasePlan, ...]:
        """One phase; ``steps`` and ``working_bytes`` are bounds, for a text that never ends."""
        text, prompt = self._read(request)
        working = self._shape.working_bytes(len(prompt), text.max_tokens)
        return (
            PhasePlan(
                PHASE,
                (self._model.name,),
                math.ceil(working * self._factor),
                text.max_tokens,
                self._shape.state_bytes(len(prompt), text.max_tokens),
                self._sharing if text.shareable else None,
            ),
        )

    def warnings(self, request: Request) -> tuple[str, ...]:
        """Nothing is ever cut: what does not fit is refused by ``plan``."""
        if isinstance(request, TextRequest) and 0 < request.temperature < GREEDY_BELOW:
            return (
                f"temperature {request.temperature} is below {GREEDY_BELOW}: the most likely token"
                " is always taken, as with 0",
            )
        return ()

    def begin(self, request: Request) -> State:
        text, prompt = self._read(request)
        state = State(text, PHASE)
        state.values = {"tokens": prompt, "prompt_tokens": len(prompt), "text": "", "held": ""}
        generator_state = first_generator_state(text)
        if generator_state is not None:
            state.tensors["rng.0"] = generator_state
        return state

    def step(self, state: State, token: CancelToken) -> tuple[Output, ...]:
        """See the Protocol; yields a ``TextDelta`` where whole characters came out, and at the end
        a ``TextOutput`` whose text is all deltas together and whose ``tokens`` counts the one that
        ended it."""
        (outputs,) = self.step_together([state], [token])
        if outputs is None:
            raise RunCancelled
        return outputs

    def step_together(
        self, states: Sequence[State], tokens: Sequence[CancelToken]
    ) -> list[tuple[Output, ...] | None]:
        requests = [self._request(state) for state in states]
        if len(states) > 1 and not all(request.shareable for request in requests):
            raise ValueError(f"{self._name}: a text that is not shareable is decoded alone")
        with torch.no_grad(), caches_kept(states):
            logits = self._logits(states, tokens)
            chosen = [
                None if row is None else choose(request, row, state.tensors.get("rng.0"))
                for request, row, state in zip(requests, logits, states, strict=True)
            ]
        return [
            None if choice is None or token.cancelled else self._append(state, request, *choice)
            for state, request, token, choice in zip(states, requests, tokens, chosen, strict=True)
        ]

    def _request(self, state: State) -> TextRequest:
        if state.phase != PHASE or not isinstance(state.request, TextRequest):
            raise ValueError(f"no step of {self._name} is left in phase {state.phase!r}")
        return state.request

    def _logits(
        self, states: Sequence[State], tokens: Sequence[CancelToken]
    ) -> list[torch.Tensor | None]:
        """The logits after each text, ``None`` where its token was cancelled."""
        found: list[torch.Tensor | None] = [None] * len(states)
        groups = [[i] for i, state in enumerate(states) if not state.step]
        begun = [i for i, state in enumerate(states) if state.step]
        for group in [*groups, begun] if begun else groups:
            try:
                with cancel.active(cancel.AllOf([tokens[i] for i in group])):
                    rows = next_logits(self._model.module, [states[i] for i in group])
            except RunCancelled:
                continue
            for i, row in zip(group, rows, strict=True):
                found[i] = row
        return found

    def _append(
        self, state: State, request: TextRequest, chosen: int, generator_state: torch.Tensor | None
    ) -> tuple[Output, ...]:
        if generator_state is not None:
            state.tensors["rng.0"] = generator_state
        values = state.values
        values["tokens"].append(chosen)
        state.step += 1
        stopped = chosen in self._stop_ids
        ended = stopped or state.step == request.max_tokens
        text, held = "", bytes.fromhex(values["held"])
        if not stopped:
            text, held = self._detokenizer.push(held, chosen)
        if ended:
            text, held = text + self._detokenizer.flush(held), b""
        values["text"] += text
        values["held"] = held.hex()
        outputs: list[Output] = [TextDelta(text)] if text else []
        if ended:
            reason = "stop" if stopped else "length"
            outputs.append(TextOutput(values["text"], values["prompt_tokens"], state.step, reason))
            state.phase, state.step = "done", 0
            state.tensors.clear()
        return tuple(outputs)

    def _read(self, request: Request) -> tuple[TextRequest, list[int]]:
        """The request as a text's, checked, and its prompt's ids. Raises ``UnsupportedRequest``."""
        if not isinstance(request, TextRequest):
            raise UnsupportedRequest(
                "type", f"{self._name} makes text; it cannot run a {type(request).__name__}"
            )
        _check_numbers(request)
        prompt = self._chat.encode(request.messages)
        room = self._positions - len(prompt)
        if request.max_tokens > room:
            raise UnsupportedRequest(
                "messages",
                f"the messages take {len(prompt)} tokens and max_tokens is {request.max_tokens}:"
                f" together {len(prompt) + request.max_tokens}, where {self._name} holds"
                f" {self._positions}",
            )
        return request, prompt


def _check_numbers(request: TextRequest) -> None:
    checks: tuple[tuple[str, Any, bool, str], ...] = (
        ("max_tokens", request.max_tokens, request.max_tokens >= 1, "1 or more"),
        ("temperature", request.temperature, 0 <= request.temperature < math.inf, "0 or more"),
        ("top_p", request.top_p, 0 < request.top_p <= 1, "more than 0, at most 1"),
        ("seed", request.seed, 0 <= request.seed <= _SEED_MAX, f"0 to {_SEED_MAX}"),
    )
    for field, value, good, allowed in checks:
        if not good:
            raise UnsupportedRequest(field, f"{field} is {value}; allowed: {allowed}")
