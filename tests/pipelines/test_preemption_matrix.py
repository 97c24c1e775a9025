"""Every kind of job gives way to every other kind, up to three deep, and ends with the same bits.

A job is paused by letting go of it between two steps. While it waits everything is off the card and
what was dropped is poison; some states wait as a file, and some hosts lose their masters as well.
Every output is compared, to the bit, with that of an undisturbed run in this process.
"""

import gc
import sys
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from itertools import permutations, product
from pathlib import Path
from typing import Any, Literal

import numpy as np
import pytest
from PIL import Image
from support.preempt import (
    Card,
    Place,
    Run,
    differing,
    frames_holding,
    frames_running,
    locks_of,
    taken,
    undisturbed,
)
from support.states import dump
from torch.multiprocessing.reductions import StorageWeakRef

from pipelines.base import CancelToken, Output, Pipeline
from pipelines.component import NotResident
from pipelines.device import Device
from pipelines.images import NotFinite
from pipelines.registry import ModelConfig, open_pipeline
from pipelines.request import ImageRequest, Message, Request, TextRequest, VideoRequest
from pipelines.sources import LOAD_LOCK
from pipelines.state import State, restore
from pipelines.tiny import make_tiny

pytestmark = pytest.mark.slow

MODELS: dict[str, Literal["sdxl", "wan", "qwen"]] = {
    "sdxl": "sdxl",
    "wan-t2v": "wan",
    "wan-vace": "wan",
    "qwen-base": "qwen",
    "qwen-instruct": "qwen",
}
KINDS = {
    "sdxl-txt2img": "sdxl",
    "sdxl-img2img": "sdxl",
    "wan-t2v": "wan-t2v",
    "vace-single": "wan-vace",
    "vace-both": "wan-vace",
    "base-greedy": "qwen-base",
    "base-sampled": "qwen-base",
    "instruct-greedy": "qwen-instruct",
    "instruct-sampled": "qwen-instruct",
}
# A video with one reference differs from one with two in its conditioning only: it is left to the
# trios.
PAIRED = [kind for kind in KINDS if kind != "vace-single"]
# What ``make check`` runs: a small sample of each table.
FAST_KINDS = ("sdxl-img2img", "instruct-sampled")
FAST_PAIR = ("sdxl-img2img", "instruct-sampled")

PROMPTS = ("a red fox in the snow", "a quiet street by the sea", "two boats, early")

# Jobs that wait on top of each other, the first at the bottom, each with the boundary it stops at.
TRIOS: dict[str, tuple[tuple[str, Place], ...]] = {
    "video, images, text": (
        ("vace-both", ("denoise", 2)),
        ("sdxl-img2img", ("denoise", 3)),
        ("instruct-sampled", ("generate", 5)),
    ),
    "before the first step": (
        ("sdxl-txt2img", ("encode", 0)),
        ("wan-t2v", ("encode", 0)),
        ("base-greedy", ("generate", 0)),
    ),
    "between phases": (
        ("vace-single", ("denoise", 0)),
        ("sdxl-img2img", ("condition", 0)),
        ("wan-t2v", ("decode", 0)),
    ),
    "before the last step": (
        ("base-sampled", ("generate", 11)),
        ("sdxl-txt2img", ("decode", 1)),
        ("vace-single", ("decode", 1)),
    ),
    "both language models and a video": (
        ("base-sampled", ("generate", 1)),
        ("instruct-greedy", ("generate", 7)),
        ("vace-both", ("condition", 1)),
    ),
    "three images of one model": (
        ("sdxl-txt2img", ("denoise", 1)),
        ("sdxl-img2img", ("denoise", 1)),
        ("sdxl-txt2img", ("denoise", 2)),
    ),
    "three videos of one model": (
        ("vace-both", ("condition", 3)),
        ("vace-single", ("condition", 1)),
        ("vace-both", ("denoise", 1)),
    ),
    "three texts of one model": (
        ("instruct-sampled", ("generate", 1)),
        ("instruct-sampled", ("generate", 6)),
        ("instruct-greedy", ("generate", 3)),
    ),
}
ORDERS = ["".join(order) for order in permutations("ABC")]
FAST_TRIO = ("video, images, text", "BCA")

slow = pytest.mark.slow
each_kind = pytest.mark.parametrize(
    "kind", [pytest.param(k, marks=() if k in FAST_KINDS else slow) for k in KINDS]
)


class Jobs:
    """Jobs of every kind on one card, and what each makes when nobody disturbs it."""

    def __init__(self, card: Card, noise: Path) -> None:
        self.card = card
        self._noise = str(noise)
        self._expected: dict[tuple[str, int], list[Any]] = {}

    def begin(self, kind: str, variant: int = 0) -> Run:
        """Variants of a kind differ in prompt and seed."""
        return Run(self.card, KINDS[kind], self.request(kind, variant))

    def expected(self, kind: str, variant: int = 0) -> list[Any]:
        key = kind, variant
        if key not in self._expected:
            self._expected[key] = undisturbed(self.card, KINDS[kind], self.request(*key))
        return self._expected[key]

    def request(self, kind: str, variant: int) -> Request:
        """Small, and yet with several steps in every phase that can have them."""
        prompt, seed = PROMPTS[variant], 7 + variant
        if kind == "sdxl-txt2img":
            return ImageRequest(prompt, "blurry", 32, 32, 2, 3, 5.0, seed)
        if kind == "sdxl-img2img":
            # one image is denoised after the other
            return ImageRequest(prompt, "", 32, 32, 2, 3, 5.0, seed, 0.7, self._noise, bitwise=True)
        if kind == "wan-t2v":
            return VideoRequest(prompt, "", 32, 32, 5, 3, 1.0, 3.0, seed)
        if kind == "vace-single":
            return VideoRequest(prompt, "", 32, 32, 5, 3, 1.0, 3.0, seed, "single", self._noise)
        if kind == "vace-both":
            both = ("both", self._noise, self._noise)
            return VideoRequest(prompt, "blurry", 32, 32, 5, 3, 5.0, 3.0, seed, *both)
        temperature = 0.0 if kind.endswith("greedy") else 0.9
        return TextRequest((Message("user", prompt),), 12, temperature, 0.8, seed)


@pytest.fixture(scope="module")
def noise(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The reference image."""
    path = tmp_path_factory.mktemp("preemption") / "noise.png"
    pixels = np.random.default_rng(3).integers(0, 256, (40, 50, 3), dtype=np.uint8)
    Image.fromarray(pixels).save(path)
    return path


@pytest.fixture(scope="module")
def jobs_on(tiny_root: Path, noise: Path) -> Callable[[Device], Jobs]:
    make_tiny(tiny_root)
    configs = [
        ModelConfig(name, family, tiny_root / name, None, "float32")
        for name, family in MODELS.items()
    ]

    def jobs_on(device: Device) -> Jobs:
        pipelines = {config.name: open_pipeline(config, device, 1.0) for config in configs}
        return Jobs(Card(pipelines, device), noise)

    return jobs_on


@pytest.fixture(scope="module")
def jobs(jobs_on: Callable[[Device], Jobs], device: Device) -> Iterator[Jobs]:
    assert device.poison
    made = jobs_on(device)
    yield made
    made.card.unstage(made.card.components)


@pytest.fixture(scope="module")
def unpoisoned(jobs_on: Callable[[Device], Jobs], device: Device) -> Iterator[Jobs]:
    """Jobs on a card that leaves what it drops as it is."""
    made = jobs_on(Device(device.kind, device.index, poison=False))
    yield made
    made.card.unstage(made.card.components)


@pytest.mark.parametrize(
    ("waiting", "running"),
    [
        pytest.param(*pair, id=" waits for ".join(pair), marks=() if pair == FAST_PAIR else slow)
        for pair in product(PAIRED, PAIRED)
    ],
)
def test_a_job_waits_at_its_boundaries_while_another_runs(
    jobs: Jobs, waiting: str, running: str
) -> None:
    """At each boundary the other job runs from begin to end. Every second state waits as a file;
    in the middle of the job its masters are dropped, too."""
    expected, others = jobs.expected(waiting), jobs.expected(running, 1)
    run = jobs.begin(waiting)
    boundaries = run.boundaries()
    for turn, boundary in enumerate(boundaries):
        run.until(boundary)
        if turn % 2:
            run.write_and_read()
        if turn == len(boundaries) // 2:
            jobs.card.unstage(run.pipeline.components)
        jobs.card.clear()
        assert differing(jobs.begin(running, 1).to_the_end(), others) == []
        jobs.card.clear()
    assert differing(run.to_the_end(), expected) == []


def three_deep(test: Any) -> Any:
    cases = [
        pytest.param(trio, order, id=f"{name}: {order}", marks=() if fast else slow)
        for (name, trio), order in product(TRIOS.items(), ORDERS)
        for fast in [(name, order) == FAST_TRIO]
    ]
    return pytest.mark.parametrize(("trio", "order"), cases)(test)


def pile_up(jobs: Jobs, trio: tuple[tuple[str, Place], ...]) -> dict[str, Run]:
    """``A``, ``B`` and ``C``, each begun when the one before was paused, and paused in turn."""
    runs = {}
    for variant, (name, (kind, place)) in enumerate(zip("ABC", trio, strict=True)):
        runs[name] = jobs.begin(kind, variant).until(place)
        jobs.card.clear()
    return runs


def all_as_expected(jobs: Jobs, trio: tuple[tuple[str, Place], ...], runs: dict[str, Run]) -> bool:
    return all(
        differing(run.made(), jobs.expected(kind, variant)) == []
        for variant, (run, (kind, _)) in enumerate(zip(runs.values(), trio, strict=True))
    )


@three_deep
def test_three_deep_and_resumed_each_to_its_end(
    jobs: Jobs, trio: tuple[tuple[str, Place], ...], order: str
) -> None:
    """At the deepest point the masters of the job at the bottom are dropped, too."""
    runs = pile_up(jobs, trio)
    jobs.card.unstage(runs["A"].pipeline.components)
    for name in order:
        runs[name].to_the_end()
        jobs.card.clear()
    assert all_as_expected(jobs, trio, runs)


@three_deep
def test_three_deep_and_resumed_by_turns(
    jobs: Jobs, trio: tuple[tuple[str, Place], ...], order: str
) -> None:
    """One step each, then paused again; every state waits as a file."""
    runs = pile_up(jobs, trio)
    left = list(order)
    while left:
        for name in left:
            runs[name].write_and_read()
            runs[name].step()
            jobs.card.clear()
        left = [name for name in left if not runs[name].done]
    assert all_as_expected(jobs, trio, runs)


@each_kind
def test_a_paused_job_holds_no_thread_frame_or_lock(jobs: Jobs, kind: str) -> None:
    expected = jobs.expected(kind)
    locks = locks_of(jobs.card.pipelines)
    assert any(lock is LOAD_LOCK for lock in locks.values())
    threads = set(threading.enumerate())
    run = jobs.begin(kind)
    while not run.done:
        assert set(threading.enumerate()) <= threads
        assert taken(locks) == []
        assert frames_running() == []
        assert frames_holding(run.state) == []
        run.step()
    assert differing(run.made(), expected) == []


@each_kind
def test_a_paused_job_has_one_owner(jobs: Jobs, kind: str) -> None:
    """Who lets go of its state has freed every tensor that it ever held, at once: no frame, cache,
    scheduler, module, exception or reference cycle is left that shares one."""
    gc.disable()
    try:
        for boundary in [*jobs.begin(kind).boundaries(), ("done", 0)]:
            run = jobs.begin(kind)
            held = storages(run.state)
            while run.place != boundary:
                run.step()
                held += storages(run.state)
            del run
            assert [name for name, storage in held if not storage.expired()] == []
    finally:
        gc.enable()


def storages(state: State) -> list[tuple[str, StorageWeakRef]]:
    return [(name, StorageWeakRef(t.untyped_storage())) for name, t in state.tensors.items()]


@each_kind
def test_a_job_needs_no_thread_of_its_own(jobs: Jobs, kind: str) -> None:
    """Each step runs in a thread that has ended before the next."""
    run = jobs.begin(kind)
    while not run.done:
        with ThreadPoolExecutor(1) as pool:
            pool.submit(run.step).result()
        jobs.card.clear()
    assert differing(run.made(), jobs.expected(kind)) == []


@each_kind
def test_what_jobs_make_can_be_told_apart(jobs: Jobs, kind: str) -> None:
    first, second, third = (jobs.expected(kind, variant) for variant in range(3))
    assert first != second != third != first


@each_kind
def test_a_step_without_its_components_is_refused(jobs: Jobs, kind: str) -> None:
    """In every phase, whether its components were evicted or unstaged."""
    run = jobs.begin(kind)
    for phase in run.phases:
        run.until((phase, 0))
        for drop in (jobs.card.clear, partial(jobs.card.unstage, run.needs)):
            jobs.card.hold(run.needs)
            drop()
            twin = restore(dump(run.state), jobs.card.device.torch)
            with pytest.raises(NotResident, match="|".join(run.needs)):
                run.pipeline.step(twin, CancelToken())
    assert differing(run.to_the_end(), jobs.expected(kind)) == []


def ends_well_on_dropped_copies(jobs: Jobs, kind: str, phase: str) -> bool:
    """Whether a job that is not told of an eviction before ``phase`` makes its bits."""
    expected = jobs.expected(kind)
    run = jobs.begin(kind).until((phase, 0))
    jobs.card.go_on_with_dropped_copies(run.needs)
    try:
        return differing(run.to_the_end(), expected) == []
    except NotFinite:
        return False
    finally:
        jobs.card.clear()


@each_kind
def test_going_on_with_an_evicted_copy_is_found_out(jobs: Jobs, kind: str) -> None:
    phases = jobs.begin(kind).phases
    assert [phase for phase in phases if ends_well_on_dropped_copies(jobs, kind, phase)] == []


@each_kind
def test_it_is_the_poison_that_finds_it_out(unpoisoned: Jobs, kind: str) -> None:
    phases = list(unpoisoned.begin(kind).phases)
    ending_well = [p for p in phases if ends_well_on_dropped_copies(unpoisoned, kind, p)]
    assert ending_well == phases


class Forgetful:
    """A text pipeline that keeps the generator of the text it wrote last, instead of the state."""

    def __init__(self, pipeline: Pipeline) -> None:
        self._pipeline = pipeline
        self._kept: Any = None

    def __getattr__(self, name: str) -> Any:
        return getattr(self._pipeline, name)

    def begin(self, request: Request) -> State:
        state = self._pipeline.begin(request)
        self._kept = state.tensors["rng.0"]
        return state

    def step(self, state: State, token: CancelToken) -> tuple[Output, ...]:
        state.tensors["rng.0"] = self._kept
        outputs = self._pipeline.step(state, token)
        self._kept = state.tensors.get("rng.0")
        return outputs


def test_a_pipeline_that_keeps_something_of_a_job_is_found_out(jobs: Jobs) -> None:
    """It makes the right text as long as nobody disturbs it."""
    kind = "instruct-sampled"
    expected, model = jobs.expected(kind), KINDS[kind]
    forgetful = Forgetful(jobs.card.pipelines[model])
    card = Card({model: forgetful}, jobs.card.device)
    request = jobs.request(kind, 0)
    assert differing(undisturbed(card, model, request), expected) == []
    waiting = Run(card, model, request).until(("generate", 5))
    Run(card, model, jobs.request(kind, 1)).until(("generate", 2))
    assert differing(waiting.to_the_end(), expected) != []


def test_a_lock_that_is_held_is_found(jobs: Jobs) -> None:
    locks = locks_of(jobs.card.pipelines)
    with LOAD_LOCK:
        (path,) = taken(locks)
    assert locks[path] is LOAD_LOCK


def test_a_frame_of_the_pipelines_that_holds_a_state_is_found(jobs: Jobs) -> None:
    """Suspended with the state or with one of its tensors, and running."""
    state = jobs.begin("sdxl-txt2img").state
    source = "def waits(thing):\n    yield\ndef runs(call):\n    return call()\n"
    path = sys.modules["pipelines.base"].__file__
    planted: dict[str, Any] = {}
    exec(compile(source, str(path), "exec"), planted)
    assert frames_holding(state) == []
    for thing in (state, state.tensors["rng.1"]):
        waiting = planted["waits"](thing)
        next(waiting)
        assert frames_holding(state) == [f"{path}:waits"]
        waiting.close()
    assert planted["runs"](frames_running) == [f"{path}:runs"]
