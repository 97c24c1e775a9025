"""One worker of the soak: ``ourvidz serve`` over a device that only pretends, with faults planted.

It runs in a process of its own, forked by ``tests.crash.nursery``. What its device begins is
written down, with the memory that the process has then.
"""

from __future__ import annotations

import os
import time
from collections import deque
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import anyio
import orjson
from support.house import settings_for

from ourvidz import app
from ourvidz.adapters.device_fake import FakeDevice, Faults
from ourvidz.cli import serving
from ourvidz.ports import Part
from scheduler.types import Fault, Phase
from tests.crash.trap import die
from tests.crash.worker import ObservedStore

STEP_SECONDS = 0.01
UNITS_MAX = 4
EXPONENT = 0.5
# The step at which what is planted shows: that a text has, and a phase of denoising.
PLANTED_STEP = 1


@dataclass(frozen=True, slots=True)
class Order:
    """What a worker is to be. ``planted`` names the jobs by kind, ``begun`` is the file for what
    the device begins; in the folder ``hung`` stands which jobs have hung already."""

    data: Path
    store: Path
    log: Path
    puts: Path
    begun: Path
    hung: Path
    url: str
    planted: Mapping[str, Sequence[str]]
    flags: Mapping[str, Any] = field(default_factory=dict)
    environ: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Begun:
    """A process has taken the first step of a job that it takes."""

    pid: int
    job: str
    at: float
    rss_bytes: int


class FaultyDevice(FakeDevice):
    def __init__(self, order: Order) -> None:
        runs = {job: [Fault.OUT_OF_MEMORY] for job in order.planted["oom"]}
        super().__init__(
            step_seconds=STEP_SECONDS,
            faults=Faults(runs=runs),
            units_max=UNITS_MAX,
            exponent=EXPONENT,
            save_steps=1,
        )
        self.log = deque(maxlen=1)  # a hundred thousand commands would look like a leak
        self._crashing = frozenset(order.planted["crash"])
        self._hanging = frozenset(order.planted["hang"])
        self._hung = order.hung
        self._file = order.begun.open("ab", buffering=0)
        self._begun: set[str] = set()

    async def pace(
        self, part: Part, phase: Phase, step: int, cancelled: anyio.Event
    ) -> Fault | None:
        job = str(part.spec.id)
        if job not in self._begun:
            self._begun.add(job)
            line = Begun(os.getpid(), job, time.monotonic(), _rss_bytes())
            self._file.write(orjson.dumps(line) + b"\n")
        if step == PLANTED_STEP:
            if job in self._crashing:
                die()
            if job in self._hanging and not (self._hung / job).exists():
                (self._hung / job).touch()
                await anyio.sleep_forever()
        return await super().pace(part, phase, step, cancelled)


def _rss_bytes() -> int:
    pages = int(Path("/proc/self/statm").read_text().split()[1])
    return pages * os.sysconf("SC_PAGE_SIZE")


def read_begun(path: Path) -> list[Begun]:
    lines = path.read_bytes().splitlines() if path.exists() else []
    return [Begun(**orjson.loads(line)) for line in lines]


def serve(order: Order) -> int:
    """Serve until a signal; returns the exit code. Patches this process for good."""
    flags = {
        "http.enabled": False,
        "logging.format": "json",
        "service.data_dir": str(order.data),
        "store.dir": str(order.store),
        **order.flags,
    }

    def store(root: Path, concurrent_max: int) -> ObservedStore:
        return ObservedStore(order.puts, root, concurrent_max)

    app._device = lambda _: FaultyDevice(order)
    app.FolderStore = store  # type: ignore[assignment,misc]
    serving.ensure_tiny = lambda _: None  # type: ignore[assignment]
    return serving.run(settings_for(order.data, order.url, order.environ, **flags))
