"""Texts decoded together: each as if alone, however they join, leave, fail or are cancelled."""

import weakref
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from support.states import dump

from pipelines.base import CancelToken, Sharing, TextOutput
from pipelines.component import NotResident
from pipelines.device import Device
from pipelines.qwen import QwenPipeline, open_qwen
from pipelines.qwen import pipeline as module_under_test
from pipelines.registry import ModelConfig
from pipelines.request import Message, TextRequest
from pipelines.state import State, restore
from pipelines.tiny.qwen import make_qwen

pytestmark = pytest.mark.slow


def asked(content: str, tokens: int, temperature: float = 0.0, seed: int = 3) -> TextRequest:
    messages = (Message("system", "Be brief."), Message("user", content))
    return TextRequest(messages, tokens, temperature, 0.9, seed, shareable=True)


SHORT = asked("Red.", 12)
MIDDLE = asked("A quiet street by the sea, ünder a grey sky.", 20)
LONG = asked("A woman at an open window. " * 12, 16)
WARM = asked("A golden city by the river.", 14, temperature=0.9)
ALL = (SHORT, MIDDLE, LONG, WARM)


@pytest.fixture(scope="module")
def pipeline(tiny_root: Path, device: Device) -> Iterator[QwenPipeline]:
    make_qwen(tiny_root)
    path = tiny_root / "qwen-instruct"
    opened = open_qwen(ModelConfig("qwen", "qwen", path, None, "float32"), device, 1.0)
    opened.components["qwen.model"].stage()
    opened.components["qwen.model"].load()
    yield opened
    opened.components["qwen.model"].evict()
    opened.components["qwen.model"].unstage()


class Heard:
    """Every text's logits, in the order of its tokens, as they reach the choice of a token."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.logits: dict[TextRequest, list[torch.Tensor]] = {}
        self.real = module_under_test.choose
        monkeypatch.setattr(module_under_test, "choose", self)

    def __call__(self, request: TextRequest, logits: torch.Tensor, rng: Any) -> Any:
        self.logits.setdefault(request, []).append(logits)
        return self.real(request, logits, rng)


@pytest.fixture
def heard(monkeypatch: pytest.MonkeyPatch) -> Heard:
    return Heard(monkeypatch)


def step(pipeline: QwenPipeline, *states: State) -> None:
    """One step together, which all of them take."""
    bounds = [pipeline.plan(state.request)[0].state_bytes for state in states]
    before = [state.step for state in states]
    outputs = pipeline.step_together(states, [CancelToken() for _ in states])
    assert None not in outputs
    for state, steps, bound in zip(states, before, bounds, strict=True):
        assert state.phase == "done" or state.step == steps + 1
        assert state.device_bytes <= bound


def begun(pipeline: QwenPipeline, *requests: TextRequest, steps: int = 0) -> list[State]:
    """Each alone for the first ``steps``."""
    states = [pipeline.begin(request) for request in requests]
    for _ in range(steps):
        for state in states:
            step(pipeline, state)
    return states


def finish(pipeline: QwenPipeline, *states: State) -> None:
    while running := [state for state in states if state.phase != "done"]:
        step(pipeline, *running)


def alone(pipeline: QwenPipeline, request: TextRequest) -> State:
    (state,) = begun(pipeline, request)
    finish(pipeline, state)
    return state


Values = dict[TextRequest, dict[str, Any]]


@pytest.fixture(scope="module")
def texts(pipeline: QwenPipeline) -> Values:
    """What each comes to alone."""
    return {request: alone(pipeline, request).values for request in ALL}


def ended_as(texts: Values, *states: State) -> bool:
    return all(state.values == texts[state.request] for state in states)


@contextmanager
def hooked(layer: Any, hook: Callable[[], Any]) -> Iterator[None]:
    def before(*_: Any) -> None:
        hook()

    handle = layer.register_forward_pre_hook(before)
    try:
        yield
    finally:
        handle.remove()


class Broken(Exception):
    pass


def broken() -> None:
    raise Broken


def layers(pipeline: QwenPipeline) -> Any:
    module: Any = pipeline.components["qwen.model"].module
    return module.model.layers


def same(state: State, other: State) -> bool:
    return (
        (state.phase, state.step, state.values) == (other.phase, other.step, other.values)
        and state.tensors.keys() == other.tensors.keys()
        and all(torch.equal(t, other.tensors[name]) for name, t in state.tensors.items())
    )


@pytest.mark.parametrize("joins", [(0, 0, 0, 0), (0, 3, 5, 1), (9, 0, 2, 9)])
def test_together_each_is_as_if_alone(
    pipeline: QwenPipeline, heard: Heard, joins: tuple[int, ...]
) -> None:
    """Of different lengths, joining at the given steps and leaving when they end."""
    ends = [alone(pipeline, request).values for request in ALL]
    expected, heard.logits = heard.logits, {}
    states, turn = [pipeline.begin(request) for request in ALL], 0
    while running := [s for s in states if s.phase != "done"]:
        step(pipeline, *(s for s in running if joins[states.index(s)] <= turn))
        turn += 1
    assert [state.values for state in states] == ends
    for request in ALL:
        ours, theirs = torch.stack(heard.logits[request]), torch.stack(expected[request])
        torch.testing.assert_close(ours, theirs, rtol=1e-4, atol=1e-4)


def test_the_model_is_gone_through_once_for_all_that_are_past_their_prompts(
    pipeline: QwenPipeline,
) -> None:
    states = [*begun(pipeline, SHORT, WARM, steps=2), *begun(pipeline, MIDDLE, steps=1)]
    late, seen = begun(pipeline, LONG), []
    with hooked(layers(pipeline)[0], lambda: seen.append(1)):
        step(pipeline, *states)
        assert len(seen) == 1
        step(pipeline, *states, *late)
        assert len(seen) == 3
        step(pipeline, *states, *late)
        assert len(seen) == 4


def test_a_cache_grows_to_what_it_is_alone(pipeline: QwenPipeline) -> None:
    states, expected = begun(pipeline, *ALL, steps=1), begun(pipeline, *ALL, steps=6)
    for _ in range(5):
        step(pipeline, *states)
    for state, other in zip(states, expected, strict=True):
        assert state.tensors.keys() == other.tensors.keys()
        for name, tensor in state.tensors.items():
            torch.testing.assert_close(tensor, other.tensors[name], rtol=1e-4, atol=1e-4)
            assert tensor.untyped_storage().nbytes() == tensor.numel() * tensor.itemsize


def test_a_text_may_leave_at_any_token_and_go_on_alone(
    pipeline: QwenPipeline, device: Device, texts: Values
) -> None:
    """Written down, with the weights gone meanwhile, and joined again by the others at the end."""
    component = pipeline.components["qwen.model"]
    for leaver in range(len(ALL)):
        states = begun(pipeline, *ALL)
        for _ in range(leaver + 2):
            step(pipeline, *states)
        written = dump(states[leaver])
        component.evict()
        with pytest.raises(NotResident):
            step(pipeline, *states)
        component.load()
        states[leaver] = restore(written, device.torch)
        step(pipeline, *(state for i, state in enumerate(states) if i != leaver))
        for _ in range(3):
            step(pipeline, states[leaver])
        finish(pipeline, *states)
        assert ended_as(texts, *states)


def test_a_text_alone_keeps_its_bits_after_others_were_together(pipeline: QwenPipeline) -> None:
    module: Any = pipeline.components["qwen.model"].module
    before = begun(pipeline, MIDDLE, steps=5)[0]
    finish(pipeline, *begun(pipeline, *ALL))
    assert same(begun(pipeline, MIDDLE, steps=5)[0], before)
    with hooked(layers(pipeline)[1], broken), pytest.raises(Broken):
        step(pipeline, *begun(pipeline, *ALL, steps=1))
    assert same(begun(pipeline, MIDDLE, steps=5)[0], before)
    assert module.config._attn_implementation == "sdpa"


@pytest.mark.parametrize("steps", [0, 1, 4])
def test_cancelled_before_a_step(pipeline: QwenPipeline, texts: Values, steps: int) -> None:
    states, tokens = begun(pipeline, *ALL, steps=steps), [CancelToken() for _ in ALL]
    tokens[1].cancel()
    outputs = pipeline.step_together(states, tokens)
    assert [made is None for made in outputs] == [False, True, False, False]
    others = [states[i] for i in (0, 2, 3)]
    assert [state.step for state in others] == [steps + 1] * 3
    finish(pipeline, *others)
    assert ended_as(texts, *others)


def test_cancelled_inside_a_step_the_others_take_theirs(
    pipeline: QwenPipeline, texts: Values
) -> None:
    states, tokens = begun(pipeline, *ALL, steps=3), [CancelToken() for _ in ALL]
    reached: list[int] = []
    with (
        hooked(layers(pipeline)[0].mlp, tokens[2].cancel),
        hooked(layers(pipeline)[2], lambda: reached.append(1)),
    ):
        outputs = pipeline.step_together(states, tokens)
    assert [made is None for made in outputs] == [False, False, True, False]
    assert reached == [1]
    others = [states[i] for i in (0, 1, 3)]
    finish(pipeline, *others)
    assert ended_as(texts, *others)


def test_a_prompt_is_broken_off_by_its_own_token_alone(pipeline: QwenPipeline) -> None:
    states = [*begun(pipeline, SHORT, steps=3), *begun(pipeline, LONG, MIDDLE)]
    tokens = [CancelToken() for _ in states]
    reached: list[int] = []
    with (
        hooked(layers(pipeline)[0].mlp, tokens[1].cancel),
        hooked(layers(pipeline)[1], lambda: reached.append(1)),
    ):
        outputs = pipeline.step_together(states, tokens)
    assert [made is None for made in outputs] == [False, True, False]
    assert len(reached) == 2
    assert [states[0].step, states[2].step] == [4, 1]


def test_a_step_ends_inside_once_all_are_cancelled(pipeline: QwenPipeline) -> None:
    states, tokens = begun(pipeline, *ALL, steps=3), [CancelToken() for _ in ALL]
    reached: list[int] = []
    with (
        hooked(layers(pipeline)[0].mlp, lambda: [token.cancel() for token in tokens]),
        hooked(layers(pipeline)[1], lambda: reached.append(1)),
    ):
        assert pipeline.step_together(states, tokens) == [None] * len(ALL)
    assert reached == []


@pytest.mark.parametrize("steps", [(2, 2, 2), (2, 0, 3), (0, 0, 0)])
@pytest.mark.parametrize("layer", [0, 2])
def test_an_error_leaves_every_text_as_it_was(
    pipeline: QwenPipeline, texts: Values, steps: tuple[int, ...], layer: int
) -> None:
    requests = (SHORT, WARM, LONG)
    states = [begun(pipeline, r, steps=n)[0] for r, n in zip(requests, steps, strict=True)]
    before = [state.copy() for state in states]
    with hooked(layers(pipeline)[layer].mlp, broken), pytest.raises(Broken):
        step(pipeline, *states)
    assert all(map(same, states, before))
    bounds = [pipeline.plan(request)[0].state_bytes for request in requests]
    assert all(s.device_bytes <= bound for s, bound in zip(states, bounds, strict=True))
    finish(pipeline, *states)
    assert ended_as(texts, *states)


def test_an_error_while_a_token_is_chosen_leaves_every_text_as_it_was(
    pipeline: QwenPipeline, monkeypatch: pytest.MonkeyPatch
) -> None:
    real = module_under_test.choose
    states = [*begun(pipeline, SHORT, steps=2), *begun(pipeline, WARM, LONG)]
    before = [state.copy() for state in states]

    def choose(request: TextRequest, *args: Any) -> Any:
        if request is LONG:
            broken()
        return real(request, *args)

    monkeypatch.setattr(module_under_test, "choose", choose)
    with pytest.raises(Broken):
        step(pipeline, *states)
    assert all(map(same, states, before))


def test_a_text_alone_is_as_it_was_after_an_error(pipeline: QwenPipeline) -> None:
    for steps in (0, 3):
        state, expected = begun(pipeline, MIDDLE, MIDDLE, steps=steps)
        with hooked(layers(pipeline)[1].mlp, broken), pytest.raises(Broken):
            pipeline.step(state, CancelToken())
        assert same(state, expected)
        finish(pipeline, state)
        finish(pipeline, expected)
        assert state.values == expected.values


def test_a_copy_taken_before_outlives_the_step(pipeline: QwenPipeline, texts: Values) -> None:
    states = begun(pipeline, *ALL, steps=2)
    copies = [state.copy() for state in states]
    step(pipeline, *states)
    finish(pipeline, *copies)
    assert ended_as(texts, *copies)


def test_the_caches_have_one_owner(pipeline: QwenPipeline) -> None:
    """What the first layer's caches were is gone by the time the second layer computes."""
    states = begun(pipeline, SHORT, LONG, steps=1)
    old = [weakref.ref(s.tensors[name]) for s in states for name in ("kv.0.k", "kv.0.v")]
    seen: list[object] = []
    with hooked(layers(pipeline)[1], lambda: seen.extend(reference() for reference in old)):
        step(pipeline, *states)
    assert seen == [None] * 4


def test_a_seed_draws_the_same_numbers_together(pipeline: QwenPipeline) -> None:
    others = [replace(WARM, seed=seed) for seed in (4, 5)]
    states, expected = begun(pipeline, WARM, *others), begun(pipeline, WARM, *others, steps=7)
    for _ in range(7):
        step(pipeline, *states)
    for state, other in zip(states, expected, strict=True):
        assert torch.equal(state.tensors["rng.0"], other.tensors["rng.0"])
        assert state.values == other.values
    assert len({tuple(state.values["tokens"]) for state in states}) == 3


def test_who_may_share_is_said_in_the_plan(pipeline: QwenPipeline) -> None:
    (phase,) = pipeline.plan(SHORT)
    assert phase.sharing == Sharing("qwen.generate", 1, 16, 0.15, mid_phase=True)
    (phase,) = pipeline.plan(replace(SHORT, shareable=False))
    assert phase.sharing is None


def test_a_text_that_is_not_shareable_is_never_decoded_with_others(pipeline: QwenPipeline) -> None:
    states = begun(pipeline, SHORT, replace(MIDDLE, shareable=False))
    with pytest.raises(ValueError, match="not shareable"):
        pipeline.step_together(states, [CancelToken(), CancelToken()])


def test_outputs_stand_at_their_texts_places(pipeline: QwenPipeline) -> None:
    states = begun(pipeline, replace(LONG, max_tokens=2), replace(SHORT, max_tokens=1))
    _, second = pipeline.step_together(states, [CancelToken(), CancelToken()])
    assert second is not None
    assert isinstance(second[-1], TextOutput)
    assert [state.phase for state in states] == ["generate", "done"]
