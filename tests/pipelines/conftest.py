"""Fixtures for the pipelines' tests: the device under test."""

import os

import pytest
import torch

from pipelines.device import Device
from pipelines.setup import prepare

prepare(threads=1)


@pytest.fixture(scope="module", autouse=True)
def one_thread() -> None:
    """In every thread that a test starts, too: what another test set, perhaps in a thread, would
    hold for new threads alone, and the number of threads changes the last bits."""
    torch.set_num_threads(1)


@pytest.fixture(scope="session")
def device() -> Device:
    """The CPU with a second arena as the device, or ``OURVIDZ_TEST_DEVICE=cuda``; poisoned."""
    kind = os.environ.get("OURVIDZ_TEST_DEVICE", "cpu")
    assert kind in {"cpu", "cuda"}
    return Device("cuda" if kind == "cuda" else "cpu", poison=True)
