"""What a checkpoint's folder may hold, what a request may ask of it, and what it will take."""

import json
import math
import shutil
import weakref
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves
from transformers import AutoTokenizer, Qwen2Config

from pipelines.base import CancelToken, PhasePlan, UnsupportedRequest
from pipelines.device import Device
from pipelines.qwen import QwenPipeline, open_qwen
from pipelines.qwen.folder import resolve_snapshot
from pipelines.qwen.memory import TextShape
from pipelines.registry import ModelConfig, open_pipeline
from pipelines.request import Message, TextRequest, VideoRequest
from pipelines.tiny.qwen import END_OF_TEXT, TURN_END, make_qwen
from pipelines.weights import CheckpointError

pytestmark = pytest.mark.slow

REQUEST = TextRequest((Message("user", "a red tree"),), 16, 0.7, 0.9, 1)
COMMIT = "a09a35458c702b33eeacc393d103063234e8bc28"


def configured(path: Path, name: str = "qwen") -> ModelConfig:
    return ModelConfig(name, "qwen", path, None, "float32")


@pytest.fixture(scope="module")
def instruct(tiny_root: Path) -> Path:
    make_qwen(tiny_root)
    return tiny_root / "qwen-instruct"


@pytest.fixture
def copy(instruct: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(instruct, tmp_path / "copy"))


@pytest.fixture(scope="module")
def pipeline(instruct: Path, device: Device) -> QwenPipeline:
    return open_qwen(configured(instruct), device, 1.0)


def edit(path: Path, **changes: Any) -> None:
    path.write_text(json.dumps({**json.loads(path.read_text()), **changes}))


def first_tokens(path: Path, device: Device) -> list[int]:
    opened = open_qwen(configured(path), device, 1.0)
    (component,) = opened.components.values()
    component.stage()
    component.load()
    state = opened.begin(REQUEST)
    for _ in range(10):
        opened.step(state, CancelToken())
    component.evict()
    component.unstage()
    tokens: list[int] = state.values["tokens"]
    return tokens


# The folder


def hub_cache(copy: Path, reference: str | None) -> Path:
    cache = copy.parent / "models--Qwen--Qwen2.5-7B-Instruct"
    (cache / "snapshots").mkdir(parents=True)
    (cache / "blobs").mkdir()
    snapshot = cache / "snapshots" / COMMIT
    snapshot.mkdir()
    for file in copy.iterdir():
        blob = cache / "blobs" / file.name
        file.rename(blob)
        (snapshot / file.name).symlink_to(f"../../blobs/{file.name}")
    if reference is not None:
        (cache / "refs").mkdir()
        (cache / "refs" / "main").write_text(reference)
    return cache


@pytest.mark.parametrize("reference", [COMMIT, f"{COMMIT}\n", None])
def test_a_hub_cache_is_resolved(copy: Path, device: Device, reference: str | None) -> None:
    cache = hub_cache(copy, reference)
    assert resolve_snapshot(cache) == cache / "snapshots" / COMMIT
    opened = open_pipeline(configured(cache, "qwen-x"), device, 1.0)
    assert tuple(opened.components) == ("qwen-x.model",)
    first_tokens(cache, device)


def test_refs_main_wins_over_other_snapshots(copy: Path) -> None:
    cache = hub_cache(copy, COMMIT)
    (cache / "snapshots" / ("0" * 40)).mkdir()
    assert resolve_snapshot(cache).name == COMMIT


@pytest.mark.parametrize(
    ("reference", "message"),
    [
        ("f" * 40, "f{40}, which is not downloaded"),
        ("../../x", "where a commit is"),
        ("", "commit"),
    ],
)
def test_a_hub_cache_without_its_snapshot(copy: Path, reference: str, message: str) -> None:
    cache = hub_cache(copy, reference)
    with pytest.raises(CheckpointError, match=rf"refs/main: .*{message}"):
        resolve_snapshot(cache)


def test_a_hub_cache_with_two_snapshots_needs_refs_main(copy: Path) -> None:
    cache = hub_cache(copy, None)
    (cache / "snapshots" / ("0" * 40)).mkdir()
    with pytest.raises(CheckpointError, match="without refs/main and with 2 snapshots"):
        resolve_snapshot(cache)


def test_a_plain_folder_is_itself(instruct: Path) -> None:
    assert resolve_snapshot(instruct) == instruct


def refuses(path: Path, device: Device, message: str) -> None:
    with pytest.raises(CheckpointError, match=message):
        open_qwen(configured(path), device, 1.0)


def test_no_folder(tmp_path: Path, device: Device) -> None:
    refuses(tmp_path / "absent", device, "absent/config.json: no such file")


def test_another_architecture(copy: Path, device: Device) -> None:
    edit(copy / "config.json", model_type="llama")
    refuses(copy, device, "model_type is 'llama'; 'qwen2' is needed")


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"hidden_size": "wide"}, "config.json: not a valid configuration"),
        ({"layer_types": ["sliding_attention"] * 3}, "use_sliding_window"),
        (
            {"rope_parameters": {"rope_type": "dynamic", "rope_theta": 1e6, "factor": 2.0}},
            "dynamic",
        ),
        ({"vocab_size": 512}, "525 ids, its model only 512"),
        ({"intermediate_size": 100}, "shape"),
    ],
)
def test_a_configuration_that_cannot_run(
    copy: Path, device: Device, changes: dict[str, Any], message: str
) -> None:
    edit(copy / "config.json", **changes)
    refuses(copy, device, message)


def test_a_configuration_as_published(copy: Path, instruct: Path, device: Device) -> None:
    """Qwen 2.5 was published before the library's present spelling of these keys."""
    config = json.loads((copy / "config.json").read_text())
    for key in ("rope_parameters", "layer_types", "dtype"):
        del config[key]
    config |= {"rope_theta": 1e6, "sliding_window": 131072, "torch_dtype": "bfloat16"}
    (copy / "config.json").write_text(json.dumps(config))
    assert first_tokens(copy, device) == first_tokens(instruct, device)


@pytest.mark.parametrize("content", ["", "{}", "[1]", '{"version":"1.0","model":{"type":"X"}}'])
def test_a_damaged_tokenizer(copy: Path, device: Device, content: str) -> None:
    (copy / "tokenizer.json").write_text(content)
    refuses(copy, device, "tokenizer")


def test_a_missing_tokenizer(copy: Path, device: Device) -> None:
    (copy / "tokenizer.json").unlink()
    refuses(copy, device, "is tokenizer.json missing")


def test_a_tokenizer_without_a_chat_template(copy: Path, device: Device) -> None:
    (copy / "chat_template.jinja").unlink()
    refuses(copy, device, "no chat template")


@pytest.mark.parametrize(
    ("template", "message"),
    [("{% if %}", "Expected an expression"), ("{{ raise_exception('no system') }}", "no system")],
)
def test_a_chat_template_that_fails(
    copy: Path, device: Device, template: str, message: str
) -> None:
    (copy / "chat_template.jinja").write_text(template)
    refuses(copy, device, f"its chat template fails: {message}")


def test_truncated_weights(copy: Path, device: Device) -> None:
    weights = copy / "model.safetensors"
    weights.write_bytes(weights.read_bytes()[:-8])
    refuses(copy, device, "truncated")


def test_the_checkpoints_own_sampling_is_not_applied(
    copy: Path, instruct: Path, device: Device
) -> None:
    edit(copy / "generation_config.json", repetition_penalty=5.0, top_k=1, do_sample=True)
    assert first_tokens(copy, device) == first_tokens(instruct, device)


def test_the_ids_that_end_a_text(tiny_root: Path, copy: Path, device: Device) -> None:
    tokenizer = AutoTokenizer.from_pretrained(copy, local_files_only=True)
    text_end, turn_end = tokenizer.convert_tokens_to_ids([END_OF_TEXT, TURN_END])
    base = open_qwen(configured(tiny_root / "qwen-base"), device, 1.0)
    assert base.stop_ids == {text_end, turn_end}
    assert open_qwen(configured(copy), device, 1.0).stop_ids == {text_end, turn_end}
    edit(copy / "generation_config.json", eos_token_id=12)
    assert open_qwen(configured(copy), device, 1.0).stop_ids == {12, turn_end}
    (copy / "generation_config.json").unlink()
    assert open_qwen(configured(copy), device, 1.0).stop_ids == {turn_end}


@pytest.mark.parametrize(
    ("content", "message"), [("{", "no JSON"), ('{"eos_token_id": ["end"]}', "is ..end..")]
)
def test_a_damaged_generation_config(
    copy: Path, device: Device, content: str, message: str
) -> None:
    (copy / "generation_config.json").write_text(content)
    refuses(copy, device, f"generation_config.json: .*{message}")


# The request


def test_plan_names_one_phase_and_touches_no_weights(pipeline: QwenPipeline) -> None:
    (phase,) = pipeline.plan(REQUEST)
    assert phase.name == "generate"
    assert phase.components == ("qwen.model",) == tuple(pipeline.components)
    assert phase.steps == REQUEST.max_tokens
    assert pipeline.components["qwen.model"].tier == "absent"


def refused(pipeline: QwenPipeline, request: Any, field: str, message: str) -> None:
    for method in (pipeline.plan, pipeline.begin):
        with pytest.raises(UnsupportedRequest, match=message) as caught:
            method(request)
        assert caught.value.field == field


def test_a_prompt_too_long_names_the_lengths(pipeline: QwenPipeline) -> None:
    long = replace(REQUEST, messages=(Message("user", "red" + " red" * 32759),))
    taken = len(pipeline.begin(replace(REQUEST, messages=(Message("user", ""),))).values["tokens"])
    refused(
        pipeline,
        long,
        "messages",
        f"take {taken + 32760} tokens and max_tokens is 16: together {taken + 32776},"
        " where qwen holds 32768",
    )


def test_prompt_and_text_may_fill_every_position(pipeline: QwenPipeline) -> None:
    prompt = len(pipeline.begin(REQUEST).values["tokens"])
    full = replace(REQUEST, max_tokens=32768 - prompt)
    assert pipeline.plan(full)[0].steps == full.max_tokens
    refused(pipeline, replace(full, max_tokens=full.max_tokens + 1), "messages", "32769")


@pytest.mark.parametrize(
    ("changes", "field"),
    [
        ({"messages": ()}, "messages"),
        ({"max_tokens": 0}, "max_tokens"),
        ({"max_tokens": -5}, "max_tokens"),
        ({"temperature": -0.1}, "temperature"),
        ({"temperature": math.nan}, "temperature"),
        ({"temperature": math.inf}, "temperature"),
        ({"top_p": 0.0}, "top_p"),
        ({"top_p": 1.01}, "top_p"),
        ({"top_p": math.nan}, "top_p"),
        ({"seed": -1}, "seed"),
        ({"seed": 2**63}, "seed"),
    ],
)
def test_numbers_out_of_range(pipeline: QwenPipeline, changes: dict[str, Any], field: str) -> None:
    refused(pipeline, replace(REQUEST, **changes), field, field)


def test_another_familys_request(pipeline: QwenPipeline) -> None:
    video = VideoRequest("x", "", 64, 32, 5, 2, 1.0, 3.0, 1)
    refused(pipeline, video, "type", "qwen makes text; it cannot run a VideoRequest")


# The bytes


class Peak(TorchDispatchMode):
    """The most bytes of storages alive at once, of those that operations made meanwhile."""

    def __init__(self, module: Any) -> None:
        super().__init__()
        self._known = {t.untyped_storage()._cdata for t in module.state_dict().values()}
        self._now = self.bytes = 0

    def __torch_dispatch__(
        self, function: Any, _types: Any, args: Any = (), kwargs: Any = None
    ) -> Any:
        out = function(*args, **(kwargs or {}))
        for tensor in tree_leaves(out):
            if isinstance(tensor, torch.Tensor):
                self._add(tensor.untyped_storage())
        return out

    def _add(self, storage: Any) -> None:
        key, size = storage._cdata, storage.nbytes()
        if key not in self._known:
            self._known.add(key)
            self._now += size
            self.bytes = max(self.bytes, self._now)
            weakref.finalize(storage, self._remove, key, size)

    def _remove(self, key: int, size: int) -> None:
        self._known.discard(key)
        self._now -= size


@pytest.mark.parametrize(("words", "tokens"), [(1, 1), (1, 40), (400, 3), (3000, 2)])
def test_working_bytes_hold_the_measured_peak(instruct: Path, words: int, tokens: int) -> None:
    """On the CPU whatever the device under test: only here is every allocation seen."""
    opened = open_qwen(configured(instruct), Device("cpu"), 1.0)
    (component,) = opened.components.values()
    component.stage()
    component.load()
    request = replace(REQUEST, messages=(Message("user", "red " * words),), max_tokens=tokens)
    state = opened.begin(request)
    with Peak(component.module) as peak:
        while state.phase != "done":
            opened.step(state, CancelToken())
    planned = opened.plan(request)[0].working_bytes
    assert planned / 1.5 <= peak.bytes <= planned


@pytest.mark.parametrize("words", [(400, 1, 1, 1), (1, 1, 400)])
def test_texts_together_need_no_more_than_each_was_promised(
    instruct: Path, words: tuple[int, ...]
) -> None:
    """Each joins while those before it are decoded."""
    opened = open_qwen(configured(instruct), Device("cpu"), 1.0)
    (component,) = opened.components.values()
    component.stage()
    component.load()
    requests = [
        replace(REQUEST, messages=(Message("user", "red " * n),), seed=i, shareable=True)
        for i, n in enumerate(words)
    ]
    states = [opened.begin(request) for request in requests]
    with Peak(component.module) as peak:
        for joined in range(1, len(states) + 1):
            opened.step_together(states[:joined], [CancelToken()] * joined)
        while states := [state for state in states if state.phase != "done"]:
            opened.step_together(states, [CancelToken()] * len(states))
    assert peak.bytes <= sum(opened.plan(request)[0].working_bytes for request in requests)


def test_the_factor_is_applied(instruct: Path, device: Device) -> None:
    def working(factor: float) -> int:
        plan: tuple[PhasePlan, ...] = open_qwen(configured(instruct), device, factor).plan(REQUEST)
        return plan[0].working_bytes

    assert working(1.5) == math.ceil(1.5 * working(1.0))


def test_published_sizes() -> None:
    config = Qwen2Config(
        vocab_size=152064,
        hidden_size=3584,
        intermediate_size=18944,
        num_hidden_layers=28,
        num_attention_heads=28,
        num_key_value_heads=4,
    )
    card = torch.device("cuda")
    half = TextShape.of(config, torch.bfloat16, card)
    assert half.kv_bytes == 57_344
    # 28 layers of keys and values; 142,864 is what a layer computes for a prompt token
    assert half.working_bytes(8192, 8) == (57_344 + 142_864) * 8192
    last = 57_344 * 4096 + 57_344 * 4096 // 56 + 142_864 + 152_064 * 54
    assert half.working_bytes(64, 4032) == last
    single = TextShape.of(config, torch.float32, card)
    alike = TextShape.of(config, torch.float32, torch.device("cpu"))
    scores = 8 * 28 * 8192**2
    assert single.working_bytes(8192, 1) == alike.working_bytes(8192, 1) + scores
