"""What tests of the command line share: how a command ended, and a service for it to talk to."""

from __future__ import annotations

from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import anyio
from anyio import from_thread
from anyio.lowlevel import EventLoopToken, current_token
from support.house import House, open_house

from ourvidz.adapters.device_fake import FakeDevice
from ourvidz.http.app import create_api
from ourvidz.http.server import serve

REPOSITORY = Path(__file__).parents[2]
CONFIG = REPOSITORY / "config.toml"


@dataclass(frozen=True, slots=True)
class Done:
    """How a command ended and what it printed."""

    code: int
    out: str
    err: str


Cli = Callable[..., Done]


@dataclass(frozen=True, slots=True)
class Served:
    """A service over a fake device, with its API, in another thread's event loop. ``files`` is the
    folder of its bucket."""

    house: House
    url: str
    files: Path
    loop: EventLoopToken

    def call(self, function: Callable[..., Awaitable[Any]], *arguments: Any) -> Any:
        """Run a coroutine function in the service's loop."""
        return from_thread.run(function, *arguments, token=self.loop)


@asynccontextmanager
async def open_served(root: Path, device: FakeDevice, **flags: Any) -> AsyncIterator[Served]:
    """It listens on a free port until the block is left, then drains."""
    async with (
        open_house(root, device, **{"http.port": 0, **flags}) as house,
        anyio.create_task_group() as tasks,
    ):
        settings = house.service.settings
        port = await tasks.start(serve, create_api(house.service, settings), settings)
        files = settings.store.dir / settings.store.bucket
        yield Served(house, f"http://127.0.0.1:{port}", files, current_token())
        tasks.cancel_scope.cancel()
