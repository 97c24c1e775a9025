"""A service whose device hangs in a thread that nothing can interrupt, as a driver does.

Run as a process: ``python stuck_service.py FOLDER CALLBACK_URL FLAG=VALUE...``.
"""

from __future__ import annotations

import sys
import threading
from pathlib import Path
from typing import Any

import anyio
from support.house import settings_for

from ourvidz import app
from ourvidz.adapters.device_fake import FakeDevice
from ourvidz.cli import serving
from scheduler import messages as m


class StuckDevice(FakeDevice):
    """Every run waits for ever, in a thread of which a cancelled scope waits for the end."""

    async def execute(self, command: m.Command) -> m.Event:
        if isinstance(command, m.Start):
            with anyio.CancelScope(shield=True):
                await anyio.to_thread.run_sync(threading.Event().wait)
        return await super().execute(command)


def main(folder: str, url: str, *given: str) -> int:
    flags: dict[str, Any] = {"http.enabled": False, "logging.format": "json"}
    flags |= dict(pair.split("=", 1) for pair in given)
    app._device = lambda _: StuckDevice()
    serving.ensure_tiny = lambda _: None  # type: ignore[assignment]
    serving.FAILED_SECONDS = 0.2  # type: ignore[misc]
    return serving.run(settings_for(Path(folder), url, **flags))


if __name__ == "__main__":
    sys.exit(main(*sys.argv[1:]))
