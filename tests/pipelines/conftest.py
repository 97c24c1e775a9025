"""Fixtures for the pipelines' tests: the device under test and the tiny checkpoints."""

import os
from pathlib import Path

import pytest

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
    """Where this test run's tiny checkpoints lie; each family's maker fills its part on demand."""
    return tmp_path_factory.mktemp("tiny")
