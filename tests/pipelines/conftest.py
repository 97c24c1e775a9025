"""Fixtures for the pipelines' tests: the device under test."""

import os

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
