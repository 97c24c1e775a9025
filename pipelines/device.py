"""Where inference runs."""

from __future__ import annotations

import os
import platform
from dataclasses import dataclass
from typing import Any, Literal

import torch


@dataclass(frozen=True, slots=True)
class Device:
    """A CUDA card, or the CPU with a second arena playing the card.

    ``poison``: an evicted device copy is overwritten with NaN bytes before it is dropped, so that
    whoever still reads it is found out.
    """

    kind: Literal["cpu", "cuda"]
    index: int = 0
    poison: bool = False

    @property
    def torch(self) -> torch.device:
        return torch.device("cuda", self.index) if self.kind == "cuda" else torch.device("cpu")

    def synchronize(self) -> None:
        """Wait until everything queued on the device is done."""
        if self.kind == "cuda":
            torch.cuda.synchronize(self.torch)

    def measure(self) -> int | None:
        """Measure from here on; the bytes that are allocated now, ``None`` on the CPU, where
        nothing counts them."""
        if self.kind == "cpu":
            return None
        torch.cuda.reset_peak_memory_stats(self.torch)
        return int(torch.cuda.memory_allocated(self.torch))

    def peak(self) -> int:
        """The most bytes that were allocated since ``measure``."""
        return int(torch.cuda.max_memory_allocated(self.torch))

    def describe(self) -> dict[str, Any]:
        """``kind``, ``name``, ``total_bytes``, and the versions of ``torch`` and ``cuda``."""
        if self.kind == "cuda":
            properties = torch.cuda.get_device_properties(self.torch)
            name, total = str(properties.name), int(properties.total_memory)
        else:
            name = platform.machine()
            total = os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
        return {
            "kind": self.kind,
            "name": name,
            "total_bytes": total,
            "torch": str(torch.__version__),
            "cuda": torch.version.cuda,
        }
