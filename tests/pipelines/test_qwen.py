"""Generation: bit-equal to the library's, paused, evicted and interleaved at every token."""

import weakref
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from support.states import dump
from torch import nn
from transformers import Qwen2ForCausalLM

from pipelines.base import CancelToken, Output, RunCancelled, TextDelta, TextOutput
from pipelines.component import NotResident
from pipelines.device import Device
from pipelines.qwen import QwenPipeline, open_qwen
from pipelines.qwen.sampling import GumbelSampler
from pipelines.registry import ModelConfig
from pipelines.request import ImageRequest, Message, TextRequest
from pipelines.state import State, restore
from pipelines.tiny.qwen import make_qwen

GREEDY = TextRequest(
    messages=(
        Message("system", "Describe the picture."),
        Message("user", "A quiet street by the sea, ünder a grey sky."),
    ),
    max_tokens=24,
    temperature=0.0,
    top_p=1.0,
    seed=7,
)
SAMPLED = replace(GREEDY, temperature=0.9, top_p=0.8)


@pytest.fixture(scope="module", params=["base", "instruct"])
def pipeline(request: Any, tiny_root: Path, device: Device) -> Iterator[QwenPipeline]:
    make_qwen(tiny_root)
    name = f"qwen-{request.param}"
    config = ModelConfig(name, "qwen", tiny_root / name, None, "float32")
    opened = open_qwen(config, device, 1.0)
    component = opened.components[f"{name}.model"]
    component.stage()
    component.load()
    yield opened
    component.evict()
    component.unstage()


@pytest.fixture(scope="module")
def library(pipeline: QwenPipeline, tiny_root: Path, device: Device) -> Any:
    """Its weights copied out of the mapped file, where they lie at odd addresses: the kernels of
    some CPUs give other last bits for those."""
    model = Qwen2ForCausalLM.from_pretrained(tiny_root / pipeline.name, local_files_only=True)
    for parameter in model.parameters():
        parameter.data = parameter.data.clone()
    return model.to(device.torch).eval()


def run(
    pipeline: QwenPipeline,
    request: TextRequest,
    between: Callable[[State], State] = lambda state: state,
) -> tuple[list[int], list[Output]]:
    """The ids generated and everything yielded; ``between`` runs after each step but the last."""
    state, outputs = pipeline.begin(request), []
    while True:
        outputs += pipeline.step(state, CancelToken())
        if state.phase == "done":
            return state.values["tokens"][state.values["prompt_tokens"] :], outputs
        state = between(state)


def generate(library: Any, pipeline: QwenPipeline, request: TextRequest, **extra: Any) -> Any:
    """The library's own loop over the same prompt."""
    processors = []
    if request.temperature > 0:
        generator = torch.Generator().manual_seed(request.seed)
        processors = [GumbelSampler(request.temperature, request.top_p, generator)]
    prompt = pipeline.begin(request).values["tokens"]
    return library.generate(
        torch.tensor([prompt], device=library.device),
        max_new_tokens=request.max_tokens,
        do_sample=False,
        eos_token_id=sorted(pipeline.stop_ids),
        logits_processor=processors,
        return_dict_in_generate=True,
        **extra,
    )


def generated(library: Any, pipeline: QwenPipeline, request: TextRequest) -> list[int]:
    ids: list[int] = generate(library, pipeline, request).sequences[0].tolist()
    return ids[len(pipeline.begin(request).values["tokens"]) :]


@pytest.mark.parametrize("request_", [GREEDY, SAMPLED, replace(SAMPLED, top_p=1.0)])
def test_tokens_are_the_librarys(
    pipeline: QwenPipeline, library: Any, request_: TextRequest
) -> None:
    tokens, _ = run(pipeline, request_)
    assert tokens == generated(library, pipeline, request_)


def test_greedy_is_what_generate_does_by_itself(pipeline: QwenPipeline, library: Any) -> None:
    state = pipeline.begin(GREEDY)
    ids = torch.tensor([state.values["tokens"]], device=library.device)
    whole = library.generate(ids, max_new_tokens=8, do_sample=False)[0].tolist()
    tokens, _ = run(pipeline, replace(GREEDY, max_tokens=8))
    assert state.values["tokens"] + tokens == whole


def test_cache_is_the_librarys_to_the_bit(pipeline: QwenPipeline, library: Any) -> None:
    expected = generate(library, pipeline, replace(SAMPLED, max_tokens=9)).past_key_values
    state = pipeline.begin(SAMPLED)
    for _ in range(9):
        pipeline.step(state, CancelToken())
    for index, layer in enumerate(expected.layers):
        assert torch.equal(state.tensors[f"kv.{index}.k"], layer.keys)
        assert torch.equal(state.tensors[f"kv.{index}.v"], layer.values)


@pytest.mark.parametrize("request_", [GREEDY, SAMPLED])
def test_written_and_read_back_at_every_token(
    pipeline: QwenPipeline, device: Device, request_: TextRequest
) -> None:
    straight = run(pipeline, request_)
    paused = run(pipeline, request_, lambda state: restore(dump(state), device.torch))
    assert paused == straight


@pytest.mark.parametrize("request_", [GREEDY, SAMPLED])
def test_evicted_and_brought_back_at_every_token(
    pipeline: QwenPipeline, device: Device, request_: TextRequest
) -> None:
    (component,) = pipeline.components.values()

    def swap(state: State) -> State:
        component.evict()
        with pytest.raises(NotResident):
            pipeline.step(restore(dump(state), device.torch), CancelToken())
        component.load()
        return state

    assert device.poison
    straight = run(pipeline, request_)
    assert run(pipeline, request_, swap) == straight


def test_interleaved_jobs_do_not_touch_each_other(pipeline: QwenPipeline) -> None:
    other = replace(SAMPLED, messages=(Message("user", "Red."),), seed=8, max_tokens=15)
    alone = [run(pipeline, request)[0] for request in (SAMPLED, other)]
    states = [pipeline.begin(SAMPLED), pipeline.begin(other)]
    while any(state.phase != "done" for state in states):
        for state in states:
            if state.phase != "done":
                pipeline.step(state, CancelToken())
    together = [s.values["tokens"][s.values["prompt_tokens"] :] for s in states]
    assert together == alone


def test_a_seed_repeats_and_seeds_differ(pipeline: QwenPipeline) -> None:
    first, again, other = (run(pipeline, replace(SAMPLED, seed=seed)) for seed in (1, 1, 2**63 - 1))
    assert first == again
    assert first[0] != other[0]


def test_sampling_leaves_the_global_generator_alone(pipeline: QwenPipeline) -> None:
    before = torch.get_rng_state()
    run(pipeline, SAMPLED)
    assert torch.equal(torch.get_rng_state(), before)


def test_low_temperature_is_greedy_and_says_so(pipeline: QwenPipeline) -> None:
    cold = replace(SAMPLED, temperature=1e-9)
    assert run(pipeline, cold)[0] == run(pipeline, GREEDY)[0]
    assert "1e-09" in pipeline.warnings(cold)[0]
    assert pipeline.warnings(GREEDY) == pipeline.warnings(SAMPLED) == ()


def test_top_p_keeps_the_likeliest_token_at_least(pipeline: QwenPipeline) -> None:
    assert run(pipeline, replace(SAMPLED, top_p=1e-6))[0] == run(pipeline, GREEDY)[0]


def test_length_ends_a_text(pipeline: QwenPipeline) -> None:
    tokens, outputs = run(pipeline, replace(GREEDY, max_tokens=1))
    assert len(tokens) == 1
    end = outputs[-1]
    assert isinstance(end, TextOutput)
    assert (end.tokens, end.finish_reason) == (1, "length")
    assert end.prompt_tokens == len(pipeline.begin(GREEDY).values["tokens"])


def test_a_stop_token_ends_a_text_and_is_no_part_of_it(pipeline: QwenPipeline) -> None:
    hot = replace(GREEDY, temperature=2.0, max_tokens=150)
    tokens, outputs = run(pipeline, replace(hot, seed=9))
    end = outputs[-1]
    assert isinstance(end, TextOutput)
    assert (end.finish_reason, end.tokens) == ("stop", len(tokens))
    assert tokens[-1] in pipeline.stop_ids
    assert not pipeline.stop_ids.intersection(tokens[:-1])
    assert "<|" not in end.text


def test_deltas_are_whole_and_add_up(pipeline: QwenPipeline) -> None:
    _, outputs = run(pipeline, replace(SAMPLED, temperature=1.5, max_tokens=150))
    deltas = [output.text for output in outputs if isinstance(output, TextDelta)]
    end = outputs[-1]
    assert isinstance(end, TextOutput)
    assert len(deltas) > 50
    assert all(deltas)
    assert "".join(deltas) == end.text
    assert outputs[:-1] == [TextDelta(text) for text in deltas]


def test_a_text_cut_inside_a_character_ends_in_a_replacement(pipeline: QwenPipeline) -> None:
    hot = replace(GREEDY, temperature=2.0, max_tokens=150, seed=8)
    state = pipeline.begin(hot)
    while state.values["held"] == "":
        pipeline.step(state, CancelToken())
    given = state.values["text"]
    _, outputs = run(pipeline, replace(hot, max_tokens=state.step))
    end = outputs[-1]
    assert isinstance(end, TextOutput)
    assert end.text == given + "\ufffd"
    assert outputs[-2] == TextDelta("\ufffd")


def test_a_drawn_zero_does_not_lose_the_only_token_left(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch, "rand", lambda shape, generator: torch.zeros(shape))
    sampler = GumbelSampler(1.0, 0.5, torch.Generator())
    scores = sampler(torch.empty(1, 0), torch.tensor([[0.0, 0.0, 9.0, 0.0]]))
    assert int(scores.argmax()) == 2


def test_a_finished_state_holds_nothing_and_takes_no_step(pipeline: QwenPipeline) -> None:
    state = pipeline.begin(replace(SAMPLED, max_tokens=1))
    pipeline.step(state, CancelToken())
    assert (state.phase, state.step, state.device_bytes) == ("done", 0, 0)
    with pytest.raises(ValueError, match="'done'"):
        pipeline.step(state, CancelToken())


def test_a_state_of_another_family_is_refused(pipeline: QwenPipeline) -> None:
    image = ImageRequest("x", "", 64, 64, 1, 1, 1.0, 1)
    with pytest.raises(ValueError, match="generate"):
        pipeline.step(State(image, "generate"), CancelToken())


@pytest.mark.parametrize("steps", [0, 1, 5])
def test_cancelled_before_a_step(pipeline: QwenPipeline, steps: int) -> None:
    state, token = pipeline.begin(GREEDY), CancelToken()
    for _ in range(steps):
        pipeline.step(state, token)
    token.cancel()
    with pytest.raises(RunCancelled):
        pipeline.step(state, token)


@pytest.mark.parametrize("steps", [0, 4])
def test_cancelled_inside_a_step(pipeline: QwenPipeline, steps: int) -> None:
    """Asked for while the first layer computes, in the prefill and at a later token."""
    (component,) = pipeline.components.values()
    module: Any = component.module
    straight = run(pipeline, GREEDY)
    state, token, reached = pipeline.begin(GREEDY), CancelToken(), []
    for _ in range(steps):
        pipeline.step(state, token)

    def first(_module: nn.Module, _args: Any) -> None:
        reached.append("first")
        token.cancel()

    hooks = [
        module.model.layers[0].mlp.register_forward_pre_hook(first),
        module.model.layers[1].mlp.register_forward_pre_hook(lambda *_: reached.append("second")),
    ]
    with pytest.raises(RunCancelled):
        pipeline.step(state, token)
    for hook in hooks:
        hook.remove()
    assert reached == ["first"]
    assert run(pipeline, GREEDY) == straight


def test_the_cache_has_one_owner(pipeline: QwenPipeline) -> None:
    """What the first layer's cache was is gone by the time the second layer computes."""
    (component,) = pipeline.components.values()
    module: Any = component.module
    state = pipeline.begin(GREEDY)
    pipeline.step(state, CancelToken())
    old = [weakref.ref(state.tensors[name]) for name in ("kv.0.k", "kv.0.v")]
    seen: list[object] = []
    hook = module.model.layers[1].register_forward_pre_hook(
        lambda *_: seen.extend(reference() for reference in old)
    )
    pipeline.step(state, CancelToken())
    hook.remove()
    assert seen == [None, None]
    assert state.tensors["kv.0.k"].shape[2] == state.values["prompt_tokens"] + 1
    assert state.device_bytes == sum(t.numel() * t.element_size() for t in state.tensors.values())
