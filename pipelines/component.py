"""The unit of residency: one module (or a few used together) with its master and its device copy.

``absent -> stage -> staged -> load -> resident -> evict -> staged -> unstage -> absent``
"""

from __future__ import annotations

import torch
from torch import nn

from pipelines import cancel
from pipelines.arena import NEVER, Arena
from pipelines.base import CancelToken
from pipelines.device import Device
from pipelines.integrity import check_values, read_ahead
from pipelines.sources import LOAD_LOCK, Source
from pipelines.weights import CheckpointError

__all__ = ["Component", "NotResident", "Source"]


class NotResident(RuntimeError):
    """The component is not on the device, or not in the tier that the call needs."""


class Component:
    """Moves one source's module between disk, host and device.

    Called from worker threads, never by two at once for one component. A call that raises leaves
    the component in the tier it had before.
    """

    def __init__(self, name: str, source: Source, device: Device) -> None:
        self.name = name
        self._source = source
        self._device = device
        self._module: nn.Module | None = None
        self._arena: Arena | None = None
        self.tier = "absent"

    def __repr__(self) -> str:
        return f"<Component {self.name} {self.tier} {self.weight_bytes} bytes>"

    @property
    def weight_bytes(self) -> int:
        """What each copy takes, to the byte; known before anything is read."""
        return self._source.weight_bytes

    @property
    def source(self) -> Source:
        return self._source

    @property
    def arena(self) -> Arena | None:
        """The weights' buffers while staged or resident."""
        return self._arena

    @property
    def module(self) -> nn.Module:
        """The module on the device. Raises ``NotResident``."""
        if self._module is None or self.tier != "resident":
            raise NotResident(f"{self.name} is {self.tier}, not resident")
        return self._module

    def stage(self, token: CancelToken = NEVER) -> None:
        """Read the files into the host master and check it. Raises ``CheckpointError``, or
        ``RunCancelled`` where ``token`` calls it off; what was read is freed then."""
        if self.tier != "absent":
            raise NotResident(f"{self.name} is {self.tier}, not absent")
        read_ahead(self._source.files, token)
        with LOAD_LOCK:
            token.check()  # the library's own reading cannot be cut short
            module = self._source.read()
            if torch.nn.Linear(1, 1).weight.is_meta:
                raise RuntimeError("torch.nn.Linear was left on meta by a library's loader")
        path = self._source.files[0]
        check_values(path, module, token)
        # requires_grad stays as the library leaves it: matmul folds its batch by it, so it shows in
        # the last bits even without autograd.
        module.eval()
        arena = Arena(module, self._device, token)
        if arena.nbytes != self.weight_bytes:
            arena.close()
            raise CheckpointError(
                path,
                f"{self.name} takes {arena.nbytes} bytes, where its configuration promises"
                f" {self.weight_bytes}",
            )
        cancel.watch(module)
        self._module, self._arena = module, arena
        self.tier = "staged"

    def load(self, token: CancelToken = NEVER) -> None:
        """Copy the master to the device. Raises ``torch.OutOfMemoryError``, or ``RunCancelled``
        where ``token`` calls it off; the copy is dropped then."""
        self._in("staged").load(token)
        self.tier = "resident"

    def evict(self) -> None:
        """Drop the device copy; nothing is copied back."""
        arena = self._in("resident")
        self.tier = "staged"
        arena.evict()

    def unstage(self) -> None:
        """Drop the host master."""
        arena = self._in("staged")
        self.tier = "absent"
        self._module = self._arena = None
        arena.close()

    def _in(self, tier: str) -> Arena:
        if self._arena is None or self.tier != tier:
            raise NotResident(f"{self.name} is {self.tier}, not {tier}")
        return self._arena
