"""A module's weights in two flat buffers: the immutable host master and the device copy.

Every parameter and buffer of the module is a view into one buffer or the other. Loading copies the
master over, chunk by chunk, and moves the views; evicting moves the views back and drops the device
buffer, so nothing is ever copied to the host.

Tensors are packed without gaps: sorted by the largest power of two that divides their size, each
one's offset is a multiple of that power. A buffer is therefore exactly as large as its payload.
"""

from __future__ import annotations

import contextlib
from collections import deque
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import cache
from typing import Any

import torch
from torch import nn

from pipelines.base import CancelToken, RunCancelled
from pipelines.device import Device

# Nobody calls this transfer off.
NEVER = CancelToken()
# Two chunks under way keep the link busy, and are waited for when a load is called off: 20 ms at
# 25 GB/s.
_CHUNK_BYTES = 256 * 1024 * 1024
_CHUNKS_UNDER_WAY = 2
# The CUDA allocator's own alignment: more gains nothing.
_ALIGNMENT_MAX = 512


@dataclass(frozen=True, slots=True)
class Slot:
    """One tensor's place: ``offset`` in bytes, ``stride`` in elements."""

    offset: int
    dtype: torch.dtype
    shape: tuple[int, ...]
    stride: tuple[int, ...]

    def view(self, buffer: torch.Tensor) -> torch.Tensor:
        """This tensor inside ``buffer`` (uint8, flat), sharing its storage."""
        first = self.offset // self.dtype.itemsize
        empty = torch.empty(0, dtype=self.dtype, device=buffer.device)
        return empty.set_(buffer.untyped_storage(), first, self.shape, self.stride)


def module_tensors(module: nn.Module) -> Iterator[tuple[str, torch.Tensor]]:
    """Parameters and buffers, each once: a tied weight comes under its first name only."""
    yield from module.named_parameters()
    yield from module.named_buffers()


def pack(tensors: Sequence[torch.Tensor]) -> tuple[tuple[Slot, ...], int]:
    """Slots in the order of ``tensors``, and the buffer's size in bytes. Meta tensors will do."""
    sizes = [t.numel() * t.dtype.itemsize for t in tensors]
    order = sorted(range(len(tensors)), key=lambda i: -_alignment(sizes[i]))
    offsets = [0] * len(tensors)
    total = 0
    for i in order:
        offsets[i] = total
        total += sizes[i]
    slots = tuple(
        Slot(offset, t.dtype, tuple(t.shape), _dense_stride(t))
        for offset, t in zip(offsets, tensors, strict=True)
    )
    return slots, total


def _alignment(size: int) -> int:
    return min(size & -size, _ALIGNMENT_MAX)


def _dense_stride(tensor: torch.Tensor) -> tuple[int, ...]:
    # Keeping a dense layout such as channels_last keeps the choice of kernel, hence the bits.
    return torch.empty_like(
        tensor, device="meta", requires_grad=False, memory_format=torch.preserve_format
    ).stride()


@cache
def _copy_stream(index: int) -> torch.cuda.Stream:
    return torch.cuda.Stream(index)  # type: ignore[no-untyped-call]


def _cudart() -> Any:
    return torch.cuda.cudart()  # type: ignore[no-untyped-call]


class Arena:
    """The two buffers of one module. Not safe for two calls at once; see ``Component``."""

    def __init__(self, module: nn.Module, device: Device, token: CancelToken = NEVER) -> None:
        """Copy the module's weights into a new host master and point the module at it.

        Raises ``RunCancelled`` between two tensors; the module must not be used any more then.
        """
        self._device = device
        self._tensors = [tensor for _, tensor in module_tensors(module)]
        self._slots, self.nbytes = pack(self._tensors)
        self._host = torch.empty(self.nbytes, dtype=torch.uint8)
        self._copy: torch.Tensor | None = None
        with torch.no_grad():
            for tensor, slot in zip(self._tensors, self._slots, strict=True):
                token.check()
                view = slot.view(self._host)
                view.copy_(tensor)
                tensor.data = view
        self.pinned = device.kind == "cuda" and self.nbytes > 0 and self._register()

    @property
    def host(self) -> torch.Tensor:
        """The master, flat uint8. Never written after construction."""
        return self._host

    def load(self, token: CancelToken = NEVER) -> None:
        """Copy the master to the device and point the module at the copy; returns when it is
        there. Raises ``torch.OutOfMemoryError``, or ``RunCancelled`` between two chunks, with the
        module still on the host."""
        copy = self._copy_cuda(token) if self._device.kind == "cuda" else self._copy_cpu(token)
        self._point_at(copy)
        self._copy = copy

    def evict(self) -> None:
        """Point the module at the master again and drop the device copy. Copies nothing back."""
        copy, self._copy = self._copy, None
        self._point_at(self._host)
        if copy is None:
            return
        self._device.synchronize()
        if self._device.poison:
            copy.fill_(0xFF)
            self._device.synchronize()
        del copy
        if self._device.kind == "cuda":
            # One arena is one allocation, so this hands it back to the driver whole instead of
            # leaving it cached where only the copy stream could use it.
            torch.cuda.empty_cache()

    def close(self) -> None:
        """Release the pinning; the module must not be used any more."""
        if self.pinned:
            _cudart().cudaHostUnregister(self._host.data_ptr())
            self.pinned = False
        self._tensors = []

    def _copy_cpu(self, token: CancelToken) -> torch.Tensor:
        copy = torch.empty(self.nbytes, dtype=torch.uint8)
        for chunk in self._chunks():
            token.check()
            copy[chunk] = self._host[chunk]
        return copy

    def _copy_cuda(self, token: CancelToken) -> torch.Tensor:
        # A stream of its own: the transfer must not wait for another job's kernels. The copy is
        # allocated on it too, and is only dropped after the device has been synchronised.
        stream = _copy_stream(self._device.index)
        with torch.cuda.stream(stream):
            copy = torch.empty(self.nbytes, dtype=torch.uint8, device=self._device.torch)
            sent = self._send(copy, token)
        stream.synchronize()
        if not sent:
            del copy
            torch.cuda.empty_cache()
            raise RunCancelled
        return copy

    def _send(self, copy: torch.Tensor, token: CancelToken) -> bool:
        """Queue the chunks on the current stream; false where ``token`` calls them off."""
        under_way: deque[torch.cuda.Event] = deque()
        for chunk in self._chunks():
            if len(under_way) == _CHUNKS_UNDER_WAY:
                under_way.popleft().synchronize()
            if token.cancelled:
                return False
            copy[chunk].copy_(self._host[chunk], non_blocking=self.pinned)
            done = torch.cuda.Event()  # type: ignore[no-untyped-call]
            done.record()
            under_way.append(done)
        return True

    def _chunks(self) -> Iterator[slice]:
        for start in range(0, self.nbytes, _CHUNK_BYTES):
            yield slice(start, start + _CHUNK_BYTES)

    def _point_at(self, buffer: torch.Tensor) -> None:
        for tensor, slot in zip(self._tensors, self._slots, strict=True):
            tensor.data = slot.view(buffer)

    def _register(self) -> bool:
        """Page-lock the master in place; its exact size, where the pinned allocator would round up
        to a power of two. A refusal (a container's memlock limit) leaves it pageable."""
        code = _cudart().cudaHostRegister(self._host.data_ptr(), self.nbytes, 0)
        if int(code) == 0:
            return True
        # A refusal stays the thread's last CUDA error and the next kernel launch would raise it.
        with contextlib.suppress(RuntimeError):
            torch.zeros(1, device=self._device.torch)
        return False
