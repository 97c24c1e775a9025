"""A transfer that is called off ends within a block and leaves the component where it was."""

from __future__ import annotations

import gc
import itertools
import weakref
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import save_file
from torch import nn

import pipelines.arena
import pipelines.integrity
from pipelines.arena import Arena, module_tensors
from pipelines.base import CancelToken, RunCancelled
from pipelines.component import Component
from pipelines.device import Device
from pipelines.sources import packed_bytes

_TENSORS = 4
_CHUNKS = 3
_BLOCKS = 2


def make() -> nn.Module:
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(3)
        return nn.Sequential(nn.Linear(6, 5), nn.Linear(5, 4))


class Read:
    """A source that remembers what it gave, weakly."""

    def __init__(self, folder: Path) -> None:
        self.files = (folder / "model.safetensors",)
        save_file({"placeholder": torch.zeros(20)}, self.files[0])
        self.weight_bytes = packed_bytes(make())
        self.given: list[weakref.ref[nn.Module]] = []

    def read(self) -> nn.Module:
        module = make()
        self.given.append(weakref.ref(module))
        return module


class After(CancelToken):
    """Cancelled from the ``looks``-th look on, counted from 0."""

    def __init__(self, looks: int) -> None:
        super().__init__()
        self._looks = looks
        self._count = itertools.count()

    @property
    def cancelled(self) -> bool:
        return next(self._count) >= self._looks

    def check(self) -> None:
        if self.cancelled:
            raise RunCancelled


@pytest.fixture(autouse=True)
def small_blocks(monkeypatch: pytest.MonkeyPatch) -> None:
    size = packed_bytes(make())
    monkeypatch.setattr(pipelines.arena, "_CHUNK_BYTES", -(-size // _CHUNKS))
    monkeypatch.setattr(pipelines.integrity, "_BLOCK_BYTES", 80)


@pytest.fixture
def source(tmp_path: Path) -> Read:
    return Read(tmp_path)


@pytest.fixture
def component(source: Read, device: Device) -> Component:
    return Component("part", source, device)


def weights(component: Component) -> dict[str, torch.Tensor]:
    return {name: t.detach().cpu() for name, t in module_tensors(component.module)}


def assert_whole(component: Component) -> None:
    found = weights(component)
    for name, tensor in module_tensors(make()):
        assert torch.equal(found[name], tensor), name


@pytest.mark.parametrize("looks", range(_CHUNKS))
def test_a_load_leaves_the_component_staged(component: Component, looks: int) -> None:
    component.stage()
    arena = component.arena
    assert arena is not None
    before = arena.host.clone()
    with pytest.raises(RunCancelled):
        component.load(After(looks))
    assert component.tier == "staged"
    assert arena._copy is None
    assert {t.untyped_storage().data_ptr() for t in arena._tensors} == {arena.host.data_ptr()}
    assert torch.equal(arena.host, before)
    component.load()
    assert_whole(component)
    component.evict()
    component.load(After(_CHUNKS))
    assert_whole(component)


def stage_looks(folder: Path, device: Device) -> int:
    """How often staging looks before it is done."""
    for looks in itertools.count():
        try:
            Component("part", Read(folder), device).stage(After(looks))
        except RunCancelled:
            continue
        return looks
    raise AssertionError


def test_staging_looks_between_blocks_and_tensors(tmp_path: Path, device: Device) -> None:
    lock, values, copies = 1, _TENSORS, _TENSORS
    assert stage_looks(tmp_path, device) >= _BLOCKS + lock + values + copies


@pytest.mark.parametrize("looks", range(_BLOCKS + 1 + 2 * _TENSORS))
def test_a_stage_leaves_the_component_absent_and_frees_what_it_read(
    component: Component, source: Read, looks: int
) -> None:
    gc.collect()
    gc.disable()
    try:
        with pytest.raises(RunCancelled):
            component.stage(After(looks))
        assert [given() for given in source.given] == [None] * len(source.given)
    finally:
        gc.enable()
    assert (component.tier, component.arena) == ("absent", None)
    component.stage()
    component.load()
    assert_whole(component)


def test_a_stage_that_is_called_off_at_once_reads_nothing(
    component: Component, source: Read
) -> None:
    token = CancelToken()
    token.cancel()
    with pytest.raises(RunCancelled):
        component.stage(token)
    assert source.given == []


class Event:
    """``torch.cuda.Event`` for a link that takes its time."""

    under_way = 0
    most = 0

    def record(self) -> None:
        Event.under_way += 1
        Event.most = max(Event.most, Event.under_way)

    def synchronize(self) -> None:
        Event.under_way -= 1


@pytest.mark.parametrize("looks", range(_CHUNKS + 1))
def test_the_card_is_sent_a_few_chunks_ahead_of_the_link(
    looks: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(torch.cuda, "Event", Event)
    Event.under_way = Event.most = 0
    arena = Arena(make(), Device("cpu"))
    copy = torch.zeros_like(arena.host)
    assert arena._send(copy, After(looks)) is (looks == _CHUNKS)
    sent = min(arena.nbytes, looks * pipelines.arena._CHUNK_BYTES)
    assert torch.equal(copy[:sent], arena.host[:sent])
    assert not copy[sent:].any()
    assert Event.most == min(looks, pipelines.arena._CHUNKS_UNDER_WAY)


def test_nothing_is_nothing_to_send(device: Device) -> None:
    arena: Any = Arena(nn.Identity(), device)
    arena.load()
    assert arena._copy.numel() == 0
