"""A whole service over the fake device, real SQLite and folders, and a local receiver."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from uuid import UUID, uuid5

import anyio
import orjson

from ourvidz.adapters.device_fake import FakeDevice
from ourvidz.adapters.receiver import Receiver
from ourvidz.app import open_service
from ourvidz.config import Settings, load
from ourvidz.ports import AssetStore
from ourvidz.service.service import Service

REPOSITORY = Path(__file__).parents[2]
SECRET = "test-secret"
USER = "00000000-0000-4000-8000-000000000001"
_SPACE = UUID("00000000-0000-4000-8000-0000000000ff")


def job_id(name: str) -> str:
    """The same name gives the same id."""
    return str(uuid5(_SPACE, name))


def payload(name: str, type_: str = "sdxl_generate", **fields: Any) -> dict[str, Any]:
    base: dict[str, Any] = {"id": job_id(name), "type": type_, "user_id": USER, "prompt": "a pear"}
    if type_ == "sdxl_generate":
        base |= {"steps": 4, "width": 64, "height": 64}
    if type_ == "wan_generate":
        base |= {"steps": 4, "width": 64, "height": 32, "frames": 5}
    return {**base, **fields}


@dataclass(slots=True)
class House:
    """One running service and what stands round it."""

    service: Service
    device: FakeDevice
    receiver: Receiver

    async def push(self, queue: str, body: Any) -> None:
        raw = body if isinstance(body, bytes) else orjson.dumps(body)
        await self.service.source.push(queue, raw)

    async def ended(self, name: str) -> dict[str, Any]:
        """The terminal callback's body."""
        wanted = job_id(name)

        def there(callbacks: Any) -> bool:
            return any(
                c.body["job_id"] == wanted and c.status in ("completed", "failed")
                for c in callbacks
            )

        with anyio.fail_after(20):
            await self.receiver.until(there)
        bodies = [c.body for c in self.receiver.callbacks if c.body["job_id"] == wanted]
        return dict(bodies[-1])

    async def status(self, name: str) -> str | None:
        job = await self.service.job(job_id(name), "")
        return None if job is None else str(job["status"])


def settings_for(root: Path, url: str, **flags: Any) -> Settings:
    return load(
        REPOSITORY / "config.toml",
        environ={"JOB_CALLBACK_SECRET": SECRET},
        flags={
            "service.data_dir": str(root / "data"),
            "store.dir": str(root / "store"),
            "callback.url": url,
            "callback.retry_seconds_min": 0.001,
            "callback.retry_seconds_max": 0.01,
            "device.budget_bytes": 51_000,
            "device.host_budget_bytes": 64_000,
            **flags,
        },
    )


@asynccontextmanager
async def open_house(
    root: Path,
    device: FakeDevice | None = None,
    receiver: Receiver | None = None,
    store: AssetStore | None = None,
    **flags: Any,
) -> AsyncIterator[House]:
    """A service that runs until the block is left, then drains."""
    device = device or FakeDevice()
    async with receiver or Receiver(SECRET) as receiver:
        settings = settings_for(root, receiver.url, **flags)
        async with (
            open_service(settings, device, store=store) as service,
            anyio.create_task_group() as tasks,
        ):
            await tasks.start(service.run)
            yield House(service, device, receiver)
            service.stop()
