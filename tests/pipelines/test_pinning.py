"""The host master is page-locked once, at its exact size, or left pageable where that is refused.

The driver's two calls are stood in for, so that this runs without a card.
"""

from types import SimpleNamespace

import pytest
import torch
from torch import nn

import pipelines.arena
from pipelines.arena import Arena
from pipelines.device import Device


class Driver:
    """Answers ``cudaHostRegister`` with ``code`` and keeps what it was asked."""

    def __init__(self, code: int) -> None:
        self.code = code
        self.registered: list[tuple[int, int, int]] = []
        self.unregistered: list[int] = []

    def runtime(self) -> SimpleNamespace:
        return SimpleNamespace(
            cudaHostRegister=self._register, cudaHostUnregister=self.unregistered.append
        )

    def _register(self, place: int, size: int, flags: int) -> int:
        self.registered.append((place, size, flags))
        return self.code


def driven(monkeypatch: pytest.MonkeyPatch, code: int) -> Driver:
    driver = Driver(code)
    monkeypatch.setattr(pipelines.arena, "_cudart", driver.runtime)
    return driver


def test_the_master_is_pinned_once_at_its_exact_size(monkeypatch: pytest.MonkeyPatch) -> None:
    driver = driven(monkeypatch, 0)
    arena = Arena(nn.Linear(5, 3), Device("cuda"))
    assert arena.pinned
    assert driver.registered == [(arena.host.data_ptr(), (5 * 3 + 3) * 4, 0)]
    arena.close()
    arena.close()
    assert driver.unregistered == [arena.host.data_ptr()]


def test_a_refusal_leaves_it_pageable_and_clears_the_error(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    driver = driven(monkeypatch, 2)
    launched: list[torch.device] = []

    def launch(_size: int, device: torch.device) -> torch.Tensor:
        launched.append(device)
        raise RuntimeError("CUDA error: out of memory")

    with monkeypatch.context() as patch:
        patch.setattr(torch, "zeros", launch)
        arena = Arena(nn.Linear(5, 3), Device("cuda", 1))
    assert not arena.pinned
    assert launched == [torch.device("cuda", 1)]
    arena.close()
    assert driver.unregistered == []


def test_a_module_without_weights_pins_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    driver = driven(monkeypatch, 0)
    arena = Arena(nn.Identity(), Device("cuda"))
    assert (arena.nbytes, arena.pinned, driver.registered) == (0, False, [])


def test_the_cpu_pins_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    driver = driven(monkeypatch, 0)
    assert not Arena(nn.Linear(5, 3), Device("cpu")).pinned
    assert driver.registered == []
