"""Devices and stores that stop, and fail, where a test says."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import anyio
from support.house import LIMIT_SECONDS, House, job_id

from ourvidz.adapters.device_fake import FakeDevice
from ourvidz.adapters.store_folder import FolderStore
from ourvidz.ports import Part
from scheduler.types import Fault, Phase


@dataclass(slots=True)
class Hold:
    """Somebody waits at a named point until ``release``."""

    _reached: anyio.Event = field(default_factory=anyio.Event)
    _released: anyio.Event = field(default_factory=anyio.Event)

    async def reached(self) -> None:
        with anyio.fail_after(LIMIT_SECONDS):
            await self._reached.wait()

    @property
    def is_reached(self) -> bool:
        return self._reached.is_set()

    def release(self) -> None:
        self._released.set()

    async def wait(self, *others: anyio.Event) -> None:
        """At the point: until ``release``, or until one of ``others`` is set."""
        self._reached.set()
        async with anyio.create_task_group() as tasks:

            async def first(event: anyio.Event) -> None:
                await event.wait()
                tasks.cancel_scope.cancel()

            for event in (self._released, *others):
                tasks.start_soon(first, event)


class SteppedDevice(FakeDevice):
    """Stops before, or fails in, chosen steps; ``running`` is the part whose step is at hand."""

    def __init__(self, **options: Any) -> None:
        super().__init__(**options)
        self._holds: dict[tuple[str, str, int], Hold] = {}
        self._faults: dict[tuple[str, str, int], list[Fault | Exception]] = {}
        self.order: list[str] = []

    def hold(self, name: str, phase: str, step: int = 0) -> Hold:
        """The job's step is not begun before the hold is released; a cancel goes on at once."""
        return self._holds.setdefault((job_id(name), phase, step), Hold())

    def fail(self, name: str, phase: str, step: int, *faults: Fault | Exception) -> None:
        """The job's step fails, once for each fault; an exception is a defect of the executor."""
        self._faults[job_id(name), phase, step] = list(faults)

    async def pace(
        self, part: Part, phase: Phase, step: int, cancelled: anyio.Event
    ) -> Fault | None:
        await anyio.lowlevel.checkpoint()
        place = (str(part.spec.id), phase.name, step)
        if step == 0:
            self.order.append(part.id)
        hold = self._holds.get(place)
        if hold is not None:
            await hold.wait(cancelled)
        planted = self._faults.get(place)
        if not planted:
            return None
        fault = planted.pop(0)
        if isinstance(fault, Exception):
            raise fault
        return fault


class StagedStore(FolderStore):
    """A folder store that records its puts; ``before_put`` and ``before_get`` may wait or raise."""

    def __init__(self, root: Path) -> None:
        super().__init__(root)
        self.puts: list[str] = []
        self.before_put: Callable[[str], Any] | None = None
        self.before_get: Callable[[str], Any] | None = None

    async def put(self, bucket: str, key: str, path: Path, mime: str) -> None:
        if self.before_put is not None:
            await self.before_put(key)
        await super().put(bucket, key, path, mime)
        self.puts.append(key)

    async def get(self, bucket: str, key: str, path: Path, bytes_max: int) -> None:
        if self.before_get is not None:
            await self.before_get(key)
        await super().get(bucket, key, path, bytes_max)


def staged(house: House, before_put: Callable[[str], Awaitable[None]]) -> StagedStore:
    """Where the house's files go from now on."""
    store = StagedStore(house.root / "store")
    store.before_put = before_put
    house.service.delivery.uploads.store = store
    return store
