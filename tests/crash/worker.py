"""One worker of the matrix: ``ourvidz serve`` over a device that only pretends, with a trap in it.

It runs in a process of its own, forked by ``nursery``; what its storage sees is written down.
"""

from __future__ import annotations

import fcntl
import hashlib
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import anyio
import orjson
from support.history import Put
from support.house import settings_for

from ourvidz import app
from ourvidz.adapters.device_fake import FakeDevice
from ourvidz.adapters.store_folder import FolderStore
from ourvidz.cli import serving
from ourvidz.ports import AssetStore, Executor, Part
from ourvidz.service.build import Ports, build_service
from ourvidz.service.service import Service
from scheduler.types import Fault, Phase
from tests.crash.trap import STEP, Site, Trap, Trapped, set_inside, trapped_ports

HELD_PHASES = ("denoise", "generate")
LOOK_SECONDS = 0.005


async def until(condition: Callable[[], bool]) -> None:
    """Return once it holds. It is another process's, which has no other way to tell."""
    while True:
        if condition():
            return
        await anyio.sleep(LOOK_SECONDS)


@dataclass(frozen=True, slots=True)
class Order:
    """What a worker is to be. Data directory, store and what is written down lie in folders of
    their own, as workers share the store. While the file ``hold`` is there the device holds."""

    data: Path
    store: Path
    log: Path
    puts: Path
    hold: Path
    url: str
    site: Site | None = None
    flags: Mapping[str, Any] = field(default_factory=dict)
    environ: Mapping[str, str] = field(default_factory=dict)


class HoldingDevice(FakeDevice):
    def __init__(self, hold: Path, trap: Trap) -> None:
        super().__init__(save_steps=1)
        self._hold = hold
        self._trap = trap

    async def pace(
        self, part: Part, phase: Phase, step: int, cancelled: anyio.Event
    ) -> Fault | None:
        with self._trap.seeing(STEP, phase.name):
            pass
        if phase.name in HELD_PHASES:
            await until(lambda: cancelled.is_set() or not self._hold.exists())
        return await super().pace(part, phase, step, cancelled)


class ObservedStore(FolderStore):
    """Writes down what it took, as a storage of its own would."""

    def __init__(self, puts: Path, root: Path, concurrent_max: int) -> None:
        super().__init__(root, concurrent_max)
        self._puts = puts

    def _put(self, bucket: str, key: str, path: Path) -> None:
        super()._put(bucket, key, path)
        stored = self._locate(bucket, key).read_bytes()
        put = Put(key, hashlib.sha256(stored).hexdigest(), len(stored), time.monotonic())
        with self._puts.open("ab") as file:
            fcntl.flock(file, fcntl.LOCK_EX)
            file.write(orjson.dumps(put) + b"\n")


def read_puts(path: Path) -> list[Put]:
    lines = path.read_bytes().splitlines() if path.exists() else []
    return [Put(**orjson.loads(line)) for line in lines]


def serve(order: Order) -> int:
    """Serve until a signal or the trap; returns the exit code. Patches this process for good."""
    trap = Trap(order.site)
    set_inside(trap, order.store)
    flags = {
        "http.enabled": False,
        "logging.format": "json",
        "service.data_dir": str(order.data),
        "store.dir": str(order.store),
        **order.flags,
    }

    def device(_: Any) -> Any:
        return Trapped(HoldingDevice(order.hold, trap), Executor, trap)

    def store(root: Path, concurrent_max: int) -> Any:
        return Trapped(ObservedStore(order.puts, root, concurrent_max), AssetStore, trap)

    def built(settings: Any, ports: Ports) -> Service:
        return build_service(settings, replace(ports, **trapped_ports(ports, trap)))

    app._device = device
    app.FolderStore = store  # type: ignore[assignment,misc]
    app.build_service = built
    serving.ensure_tiny = lambda _: None  # type: ignore[assignment]
    return serving.run(settings_for(order.data, order.url, order.environ, **flags))
