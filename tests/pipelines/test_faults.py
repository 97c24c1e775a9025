"""Which errors cost a job its run, and which cost the process its device."""

from __future__ import annotations

import subprocess
import sys

import pytest
import torch

from pipelines import faults
from pipelines.faults import is_device_lost, is_out_of_memory

ILLEGAL_ADDRESS, NO_KERNEL_IMAGE = 700, 209


def accelerator_error(
    code: int | None, text: str = "CUDA error: planted"
) -> torch.AcceleratorError:
    error = torch.AcceleratorError("CUDA error: planted")
    if code is not None:
        error.error_code = code
    return error


def wrapped(error: Exception) -> Exception:
    outer = ValueError("the step failed")
    outer.__cause__ = error
    return outer


@pytest.fixture
def asked(monkeypatch: pytest.MonkeyPatch) -> list[bool]:
    """What a device that is asked answers, in turn; empty once it was asked."""
    answers: list[bool] = []

    def synchronize() -> None:
        if not answers.pop():
            raise RuntimeError("CUDA error: device-side assert triggered")

    monkeypatch.setattr(torch.cuda, "synchronize", synchronize)
    return answers


@pytest.mark.parametrize("code", sorted(faults._LOST))
def test_some_errors_say_themselves_that_the_device_is_lost(asked: list[bool], code: int) -> None:
    assert is_device_lost(accelerator_error(code))
    assert is_device_lost(wrapped(accelerator_error(code)))


@pytest.mark.parametrize(
    "error",
    [
        accelerator_error(NO_KERNEL_IMAGE),
        accelerator_error(None),
        RuntimeError("CUDA error: CUBLAS_STATUS_EXECUTION_FAILED when calling `cublasGemmEx`"),
        RuntimeError("cuDNN error: CUDNN_STATUS_EXECUTION_FAILED"),
        RuntimeError("CUDA driver error: unknown error"),
        wrapped(RuntimeError("CUDA error: invalid argument")),
    ],
    ids=str,
)
@pytest.mark.parametrize("answers", [True, False])
def test_where_that_is_open_the_device_is_asked(
    asked: list[bool], error: Exception, *, answers: bool
) -> None:
    asked.append(answers)
    assert is_device_lost(error) is not answers
    assert asked == []


@pytest.mark.parametrize(
    "error",
    [
        torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2.00 GiB"),
        MemoryError(),
        RuntimeError("[enforce fail] DefaultCPUAllocator: can't allocate memory"),
        RuntimeError("mat1 and mat2 shapes cannot be multiplied"),
        ValueError("CUDA error: a text of somebody's"),
        IndexError(),
    ],
    ids=repr,
)
def test_other_errors_cost_no_device_and_ask_none(asked: list[bool], error: Exception) -> None:
    assert not is_device_lost(error)
    assert is_out_of_memory(error) == (isinstance(error, MemoryError) or "allocate" in str(error))


_ON_A_CARD = """
import torch
from pipelines.faults import is_device_lost, is_out_of_memory
try:
    torch.empty(1 << 60, device="cuda")
except Exception as error:
    assert is_out_of_memory(error) and not is_device_lost(error), repr(error)
try:
    torch.zeros(3, device="cuda")[torch.tensor([7], device="cuda")].cpu()
except Exception as error:
    assert is_device_lost(error), repr(error)
else:
    raise AssertionError("no device-side assertion")
print("told apart")
"""


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs CUDA")
def test_a_card_that_is_lost_is_found_out() -> None:
    """In a process of its own, which cannot use the card afterwards."""
    done = subprocess.run(
        [sys.executable, "-c", _ON_A_CARD], capture_output=True, text=True, check=False, timeout=100
    )
    assert done.stdout == "told apart\n", done.stderr
