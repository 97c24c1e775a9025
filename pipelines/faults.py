"""Which side an exception from the libraries blames, told apart in one place."""

from __future__ import annotations

from collections.abc import Iterator

import torch

# cudaError_t: after these "the process must be terminated and relaunched", as CUDA's manual says,
# or the card itself is gone. 214 and 220: memory and links that no longer correct their errors; 700
# and 710 to 719: what a kernel did; 702: the launch timed out; 709: no context any more; 721, 911,
# 999: what cannot be said more exactly.
_LOST = frozenset({214, 220, 700, 702, 709, 710, 714, 715, 716, 717, 718, 719, 721, 911, 999})
# What else the libraries raise where the device, and not a request of ours, may be to blame.
_DEVICE_WORDS = ("CUDA error", "CUDA driver error", "CUBLAS_STATUS_", "CUDNN_STATUS_")


def is_out_of_memory(error: BaseException) -> bool:
    """Whether the device or the host had no room. The CPU's allocator has no type of its own."""
    if isinstance(error, torch.OutOfMemoryError | MemoryError):
        return True
    return isinstance(error, RuntimeError) and "DefaultCPUAllocator" in str(error)


def is_device_lost(error: BaseException) -> bool:
    """Whether this process cannot use the device any more: every later call would fail, for every
    job. Where the error leaves that open the device is asked, which waits for what is queued."""
    if is_out_of_memory(error):
        return False
    blamed = [each for each in _causes(error) if _blames_device(each)]
    if any(getattr(each, "error_code", None) in _LOST for each in blamed):
        return True
    return bool(blamed) and not _answers()


def _causes(error: BaseException) -> Iterator[BaseException]:
    """The error and what it was raised from."""
    seen: BaseException | None = error
    while seen is not None:
        yield seen
        seen = seen.__cause__


def _blames_device(error: BaseException) -> bool:
    if isinstance(error, torch.AcceleratorError):
        return True
    return isinstance(error, RuntimeError) and any(word in str(error) for word in _DEVICE_WORDS)


def _answers() -> bool:
    """Whether the device still does what it is told."""
    try:
        torch.cuda.synchronize()
    except Exception:  # noqa: BLE001 - whatever it raises, it does not answer
        return False
    return True
