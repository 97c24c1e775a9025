"""Fixtures for the pipelines' tests: the device under test and the tiny checkpoints."""

import os
from collections.abc import Callable
from pathlib import Path

import pytest
from torch import nn

from pipelines.device import Device
from pipelines.setup import prepare

prepare(threads=1)


@pytest.fixture(scope="session")
def device() -> Device:
    """The CPU with a second arena as the device, or ``OURVIDZ_TEST_DEVICE=cuda``; poisoned."""
    kind = os.environ.get("OURVIDZ_TEST_DEVICE", "cpu")
    assert kind in {"cpu", "cuda"}
    return Device("cuda" if kind == "cuda" else "cpu", poison=True)


@pytest.fixture(scope="session")
def tiny_root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Where this session's tiny checkpoints lie; each family's maker fills its part on demand."""
    return tmp_path_factory.mktemp("tiny")


def realign(module: nn.Module) -> nn.Module:
    """Move a module's tensors into ordinary memory of their own.

    The library leaves them inside the mapped file, at any multiple of their item size, where the
    CPU's matrix kernels choose another path with other last bits than for aligned memory.
    """
    for tensor in [*module.parameters(), *module.buffers()]:
        tensor.data = tensor.data.clone()
    return module


@pytest.fixture(scope="session")
def realigned() -> Callable[[nn.Module], nn.Module]:
    """``realign``, for the reference side of a comparison with the library's own call."""
    return realign
