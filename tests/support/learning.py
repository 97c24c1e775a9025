"""What the tests of learned estimates share: a piece of hardware, works and a memory."""

from __future__ import annotations

from collections.abc import Sequence

from ourvidz.jobs import ImageWork, TextWork, VideoWork
from ourvidz.ports import Series
from ourvidz.service.estimates import Hardware
from scheduler.types import Phase

HARDWARE = Hardware(
    versions="torch 2, card",
    formats={"sdxl": "float16", "wan": "bfloat16", "qwen_base": "bfloat16"},
    weights={"sdxl.unet": 5_000, "sdxl.vae": 300, "qwen_base.model": 15_000},
    device_bytes=6_000,
)
IMAGES = ImageWork("a secret", "", 64, 64, 2, 10, 5.0, 1)
VIDEO = VideoWork("a secret", "", 64, 32, 5, 16, 10, 5.0, 5.0, 1)
TEXT = TextWork("chat", "base", (), 100, 0.0, 1.0, 1)
PHASE = Phase("denoise", ("sdxl.unet",), 100, 5.0, 10)
GENERATE = Phase("generate", ("qwen_base.model",), 100, 5.0, 100)


class Memory:
    """``ports.Measurements`` in memory; ``broken`` while nothing can be saved."""

    def __init__(self) -> None:
        self.kept: dict[str, dict[str, Series]] = {}
        self.broken = False
        self.saves = 0

    async def load(self, versions: str) -> Sequence[Series]:
        return list(self.kept.get(versions, {}).values())

    async def save(self, versions: str, changed: Sequence[Series]) -> None:
        self.saves += 1
        if self.broken:
            raise OSError("the disk is full")
        kept = self.kept.setdefault(versions, {})
        for series in changed:
            kept.pop(series.name, None)
            kept[series.name] = series
