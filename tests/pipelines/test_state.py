"""A run's state survives being written and read back, to the bit and to the memory layout."""

from typing import Any

import pytest
import torch
from support.states import dump

from pipelines.device import Device
from pipelines.request import ImageRequest, Message, Request, TextRequest, VideoRequest
from pipelines.state import State, restore

IMAGE = ImageRequest("pïctüre", "", 64, 64, 2, 3, 5.0, 7)


@pytest.mark.parametrize(
    "request_of_kind",
    [
        IMAGE,
        ImageRequest("a", "b", 64, 32, 1, 2, 1.0, 1, shareable=True),
        VideoRequest("a", "b", 64, 32, 5, 2, 1.0, 3.0, 1, "both", "s.png", "e.png"),
        TextRequest((Message("system", "s"), Message("user", "\u0000é")), 5, 0.7, 0.9, 2**31),
        TextRequest((Message("user", "é"),), 5, 0.7, 0.9, 1, shareable=True),
    ],
)
def test_everything_comes_back(request_of_kind: Request, device: Device) -> None:
    values: dict[str, Any] = {"scheduler": {"index": 3, "history": [None, {"tensor": "h.0"}]}}
    tensors = {
        "latents": torch.randn(2, 4, 8, 8, device=device.torch),
        "half": torch.randn(3, 5, device=device.torch).to(torch.bfloat16),
        "scalar": torch.tensor(4.5, device=device.torch),
        "empty": torch.zeros(0, 3, device=device.torch),
        "rng.0": torch.Generator().manual_seed(5).get_state(),
    }
    state = State(request_of_kind, "denoise", 3, values, tensors)
    found = restore(dump(state), device.torch)
    assert (found.request, found.phase, found.step) == (request_of_kind, "denoise", 3)
    assert found.values == values
    assert found.tensors.keys() == tensors.keys()
    for name, tensor in tensors.items():
        assert torch.equal(found.tensors[name], tensor)
        assert found.tensors[name].dtype == tensor.dtype
        assert found.tensors[name].device == tensor.device


def test_a_generator_goes_on_where_it_was() -> None:
    generator = torch.Generator().manual_seed(5)
    torch.randn(7, generator=generator)
    state = State(IMAGE, "denoise", tensors={"rng.0": generator.get_state()})
    other = torch.Generator()
    other.set_state(restore(dump(state), torch.device("cpu")).tensors["rng.0"])
    assert torch.equal(torch.randn(9, generator=other), torch.randn(9, generator=generator))


@pytest.mark.parametrize(
    "layout",
    [
        lambda t: t.to(memory_format=torch.channels_last),
        lambda t: t.permute(3, 1, 0, 2),
        lambda t: t.transpose(1, 3),
    ],
    ids=["channels-last", "permuted", "transposed"],
)
def test_a_dense_layout_comes_back(layout: Any, device: Device) -> None:
    tensor = layout(torch.randn(2, 3, 4, 5, device=device.torch))
    assert not tensor.is_contiguous()
    found = restore(dump(State(IMAGE, "x", tensors={"t": tensor})), device.torch).tensors["t"]
    assert torch.equal(found, tensor)
    assert found.stride() == tensor.stride()


@pytest.mark.parametrize(
    "view", [lambda t: t[:, ::2], lambda t: t[:1].expand(6, -1, -1), lambda t: t[1:, 1:, 1:]]
)
def test_a_view_comes_back_as_its_values_only(view: Any, device: Device) -> None:
    tensor = view(torch.randn(3, 4, 5, device=device.torch))
    found = restore(dump(State(IMAGE, "x", tensors={"t": tensor})), device.torch).tensors["t"]
    assert torch.equal(found, tensor)
    assert found.untyped_storage().nbytes() == tensor.numel() * 4


def test_device_bytes_count_each_storage_once() -> None:
    tensor = torch.zeros(10)
    state = State(IMAGE, "x", tensors={"a": tensor, "b": tensor[2:], "c": torch.zeros(3)})
    assert state.device_bytes == 52


def test_what_comes_back_lies_where_an_allocation_would(device: Device) -> None:
    """Inside the file's bytes the second tensor cannot but begin at an odd address."""
    tensors = {
        "a": torch.arange(3, dtype=torch.uint8, device=device.torch),
        "b": torch.randn(5, device=device.torch),
        "c": torch.randn(2, 3, 4, 4, device=device.torch).to(memory_format=torch.channels_last),
        "rng.0": torch.Generator().manual_seed(5).get_state(),
    }
    found = restore(dump(State(IMAGE, "x", tensors=tensors)), device.torch).tensors
    assert [t.data_ptr() % 64 for t in found.values()] == [0] * len(tensors)
    assert [t.storage_offset() for t in found.values()] == [0] * len(tensors)
    for name, tensor in tensors.items():
        assert found[name].untyped_storage().nbytes() == tensor.numel() * tensor.itemsize
