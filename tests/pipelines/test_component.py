"""Weights move between disk, host and device without a copy back, a leak or a changed bit."""

import gc
import itertools
import threading
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file
from torch import nn
from torch.multiprocessing.reductions import StorageWeakRef

from pipelines.arena import Arena, module_tensors, pack
from pipelines.component import Component, NotResident
from pipelines.device import Device
from pipelines.sources import LOAD_LOCK, GroupSource, packed_bytes
from pipelines.weights import CheckpointError


class Mixed(nn.Module):
    """Odd sizes, several dtypes, a tied weight, a channels-last one, buffers of both kinds."""

    def __init__(self) -> None:
        super().__init__()
        self.embed = nn.Embedding(7, 5)
        self.head = nn.Linear(5, 7, bias=False)
        self.head.weight = self.embed.weight
        self.brief = nn.Parameter(torch.randn(3, 3).to(torch.bfloat16))
        self.conv = nn.Conv2d(3, 4, 3).to(memory_format=torch.channels_last)
        self.gate = nn.Parameter(torch.randn(()))
        self.empty = nn.Parameter(torch.zeros(0, 4))
        self.register_buffer("ids", torch.arange(11))
        self.register_buffer("flags", torch.tensor([True, False, True]), persistent=False)

    def forward(self, ids: torch.Tensor) -> torch.Tensor:
        scale = self.brief.float().sum() * self.gate
        picture = self.conv(torch.ones(1, 3, 4, 4, device=ids.device)).sum()
        rows: torch.Tensor = self.head(self.embed(ids))
        return rows * scale + picture + self.ids.sum() + self.flags.sum()


def make_mixed() -> Mixed:
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(11)
        return Mixed()


class MixedSource:
    """A source over a file that really exists; ``read`` gives a new module each time."""

    def __init__(self, folder: Path, build: Callable[[], nn.Module] = make_mixed) -> None:
        self.files = (folder / "mixed.safetensors",)
        save_file({"placeholder": torch.zeros(3)}, self.files[0])
        self.build = build
        self.weight_bytes = packed_bytes(make_mixed())

    def read(self) -> nn.Module:
        return self.build()


@pytest.fixture
def component(tmp_path: Path, device: Device) -> Component:
    return Component("mixed.all", MixedSource(tmp_path), device)


def called(module: nn.Module, device: Device) -> torch.Tensor:
    with torch.no_grad():
        result: torch.Tensor = module(torch.arange(7, device=device.torch))
    return result.cpu()


def copied(arena: Arena | None) -> torch.Tensor:
    assert arena is not None
    assert arena._copy is not None
    return arena._copy


def test_packing_leaves_no_gap_and_aligns_by_size() -> None:
    sizes = [12, 4, 1024, 36, 64, 0, 8, 512, 2]
    tensors = [torch.zeros(size, dtype=torch.uint8) for size in sizes]
    slots, total = pack(tensors)
    assert total == sum(sizes)
    taken = sorted((s.offset, s.offset + size) for s, size in zip(slots, sizes, strict=True))
    assert all(left[1] == right[0] for left, right in itertools.pairwise(taken))
    for slot, size in zip(slots, sizes, strict=True):
        assert slot.offset % min(size & -size or 1, 512) == 0


def test_weight_bytes_are_the_payload_and_known_before_staging(component: Component) -> None:
    tensors = dict(module_tensors(make_mixed()))
    assert "head.weight" not in tensors
    exact = sum(t.numel() * t.dtype.itemsize for t in tensors.values())
    assert component.weight_bytes == exact
    component.stage()
    assert component.arena is not None
    assert component.arena.nbytes == component.arena.host.numel() == exact
    component.load()
    assert copied(component.arena).numel() == exact


def test_the_module_keeps_values_types_layouts_and_ties(
    component: Component, device: Device
) -> None:
    original = make_mixed().to(device.torch)
    component.stage()
    component.load()
    module = component.module
    assert module.head.weight is module.embed.weight
    for (name, ours), (_, theirs) in zip(
        module_tensors(module), module_tensors(original), strict=True
    ):
        assert ours.dtype == theirs.dtype, name
        assert ours.stride() == theirs.stride(), name
        assert ours.device == theirs.device, name
        assert torch.equal(ours, theirs), name
    assert torch.equal(called(module, device), called(original, device))


def test_the_module_lies_in_one_buffer_of_its_tier(component: Component) -> None:
    component.stage()
    component.load()
    arena = component.arena
    assert arena is not None
    module = component.module
    storages = {t.untyped_storage().data_ptr() for _, t in module_tensors(module) if t.numel() > 0}
    assert storages == {copied(arena).data_ptr()}
    component.evict()
    storages = {t.untyped_storage().data_ptr() for _, t in module_tensors(module) if t.numel() > 0}
    assert storages == {arena.host.data_ptr()}


def test_eviction_copies_nothing_back_frees_the_copy_and_poisons_it(
    component: Component, device: Device
) -> None:
    component.stage()
    component.load()
    arena = component.arena
    assert arena is not None
    expected = called(component.module, device)
    before, place = arena.host.clone(), arena.host.data_ptr()
    # Whatever the device copy holds by now, none of it reaches the master.
    copied(arena)[:1].add_(1)
    stale = component.module.embed.weight.data
    component.evict()
    assert torch.isnan(stale).all()
    assert torch.equal(arena.host, before)
    assert arena.host.data_ptr() == place
    component.load()
    assert torch.equal(called(component.module, device), expected)
    storage = StorageWeakRef(copied(arena).untyped_storage())
    component.evict()
    assert storage.expired()
    assert arena._copy is None


def test_without_poison_the_copy_is_dropped_as_it_is(tmp_path: Path, device: Device) -> None:
    component = Component("mixed.all", MixedSource(tmp_path), Device(device.kind, device.index))
    component.stage()
    component.load()
    stale = component.module.embed.weight.data
    component.evict()
    assert torch.isfinite(stale).all()


def test_unstaging_frees_the_master_and_staging_again_gives_the_same(
    component: Component, device: Device
) -> None:
    component.stage()
    component.load()
    expected = called(component.module, device)
    component.evict()
    assert component.arena is not None
    storage = StorageWeakRef(component.arena.host.untyped_storage())
    component.unstage()
    gc.collect()
    assert storage.expired()
    component.stage()
    component.load()
    assert torch.equal(called(component.module, device), expected)


def test_a_call_in_the_wrong_tier_is_refused_and_changes_nothing(component: Component) -> None:
    def refused(*names: str) -> None:
        tier = component.tier
        for name in names:
            with pytest.raises(NotResident, match=f"mixed.all is {tier}, not "):
                getattr(component, name)()
            assert component.tier == tier

    refused("load", "evict", "unstage")
    with pytest.raises(NotResident, match=r"mixed\.all is absent, not resident"):
        _ = component.module
    component.stage()
    refused("stage", "evict")
    with pytest.raises(NotResident, match=r"mixed\.all is staged, not resident"):
        _ = component.module
    component.load()
    refused("stage", "load", "unstage")
    component.evict()
    with pytest.raises(NotResident):
        _ = component.module


def poisoned(name: str, value: float) -> Callable[[], nn.Module]:
    def build() -> nn.Module:
        module = make_mixed()
        with torch.no_grad():
            module.get_parameter(name).view(-1)[-1] = value
        return module

    return build


def without_data() -> nn.Module:
    module = make_mixed()
    module.conv.bias = nn.Parameter(torch.empty(4, device="meta"))
    return module


def wider() -> nn.Module:
    module = make_mixed()
    module.extra = nn.Parameter(torch.zeros(9))
    return module


@pytest.mark.parametrize(
    ("build", "message"),
    [
        (poisoned("embed.weight", float("nan")), "tensor embed.weight holds NaN or infinite"),
        (poisoned("conv.bias", float("inf")), "tensor conv.bias holds NaN or infinite"),
        (poisoned("brief", float("-inf")), "tensor brief holds NaN or infinite"),
        (without_data, "tensor conv.bias is missing"),
        (wider, "takes 737 bytes, where its configuration promises 701"),
    ],
)
def test_a_module_that_is_not_whole_is_refused(
    tmp_path: Path, device: Device, build: Callable[[], nn.Module], message: str
) -> None:
    component = Component("mixed.all", MixedSource(tmp_path, build), device)
    with pytest.raises(CheckpointError, match=message) as caught:
        component.stage()
    assert caught.value.path == tmp_path / "mixed.safetensors"
    assert component.tier == "absent"
    assert component.arena is None


def test_large_finite_values_are_no_error(tmp_path: Path, device: Device) -> None:
    def build() -> nn.Module:
        module = make_mixed()
        with torch.no_grad():
            module.embed.weight.fill_(torch.finfo(torch.float32).max)
        return module

    component = Component("mixed.all", MixedSource(tmp_path, build), device)
    component.stage()
    assert component.tier == "staged"


def test_no_room_on_the_device_leaves_it_staged(
    component: Component, device: Device, monkeypatch: pytest.MonkeyPatch
) -> None:
    component.stage()
    arena = component.arena
    assert arena is not None

    def no_room(*_args: object, **_kwargs: object) -> torch.Tensor:
        raise torch.OutOfMemoryError("no room")

    with monkeypatch.context() as patch:
        patch.setattr(torch, "empty", no_room)
        patch.setattr(torch.Tensor, "clone", no_room)
        with pytest.raises(torch.OutOfMemoryError):
            component.load()
    assert component.tier == "staged"
    component.load()
    original = make_mixed().to(device.torch)
    assert torch.equal(called(component.module, device), called(original, device))


def test_reads_are_one_at_a_time_and_leave_linear_whole(tmp_path: Path, device: Device) -> None:
    inside = threading.Semaphore(1)
    overlaps: list[bool] = []

    def build() -> nn.Module:
        overlaps.append(not inside.acquire(blocking=False))
        module = make_mixed()
        inside.release()
        return module

    components = []
    for i in range(8):
        (tmp_path / str(i)).mkdir()
        source = MixedSource(tmp_path / str(i), build)
        components.append(Component(f"mixed.{i}", source, device))
    threads = [threading.Thread(target=component.stage) for component in components]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert [component.tier for component in components] == ["staged"] * 8
    assert overlaps == [False] * 8


def test_reading_holds_the_load_lock(tmp_path: Path, device: Device) -> None:
    taken_by_another: list[bool] = []

    def build() -> nn.Module:
        attempt = threading.Thread(
            target=lambda: taken_by_another.append(LOAD_LOCK.acquire(blocking=False))
        )
        attempt.start()
        attempt.join()
        return make_mixed()

    Component("mixed.all", MixedSource(tmp_path, build), device).stage()
    assert taken_by_another == [False]


def test_a_loader_that_breaks_linear_is_found_out(
    tmp_path: Path, device: Device, monkeypatch: pytest.MonkeyPatch
) -> None:
    def breaking() -> nn.Module:
        module = make_mixed()
        whole = nn.Linear.__init__

        def on_meta(self: nn.Linear, *args: int) -> None:
            whole(self, *args, device="meta")

        monkeypatch.setattr(nn.Linear, "__init__", on_meta)
        return module

    component = Component("mixed.all", MixedSource(tmp_path, breaking), device)
    with pytest.raises(RuntimeError, match=r"torch\.nn\.Linear was left on meta"):
        component.stage()
    assert component.tier == "absent"


def test_a_group_is_one_module_dict_with_all_bytes(tmp_path: Path, device: Device) -> None:
    folders = [tmp_path / "a", tmp_path / "b"]
    for folder in folders:
        folder.mkdir()
    parts = {folder.name: MixedSource(folder) for folder in folders}
    component = Component("mixed.both", GroupSource(parts), device)
    assert component.source.files == tuple(f / "mixed.safetensors" for f in folders)
    component.stage()
    component.load()
    assert component.weight_bytes == 2 * parts["a"].weight_bytes
    both = component.module
    assert isinstance(both, nn.ModuleDict)
    assert torch.equal(called(both["a"], device), called(both["b"], device))


def test_a_file_that_is_gone_is_named(component: Component) -> None:
    (path,) = component.source.files
    path.unlink()
    with pytest.raises(CheckpointError, match="no such file") as caught:
        component.stage()
    assert caught.value.path == path


def test_the_files_are_only_read(component: Component) -> None:
    (path,) = component.source.files
    before = path.read_bytes()
    component.stage()
    component.load()
    component.evict()
    component.unstage()
    assert path.read_bytes() == before
    assert set(load_file(path)) == {"placeholder"}


def test_a_device_describes_itself(device: Device) -> None:
    found = device.describe()
    assert found["kind"] == device.kind
    assert found["name"]
    assert found["total_bytes"] > 2**28
    assert found["torch"] == torch.__version__
    assert (found["cuda"] is not None) or device.kind == "cpu"


def test_repr_tells_name_tier_and_bytes(component: Component) -> None:
    assert repr(component) == "<Component mixed.all absent 701 bytes>"
