"""The process whose device hangs: it ends by itself, and the next one does the work."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import anyio
import orjson
import pytest
from support import house
from support.house import REPOSITORY, SECRET, job_id, payload, settings_for

from ourvidz.adapters.receiver import Receiver
from ourvidz.app import open_service

pytestmark = [pytest.mark.slow, pytest.mark.anyio]

LIMIT_SECONDS = 60


def stuck(root: Path, url: str, *flags: str) -> subprocess.CompletedProcess[str]:
    """The service as a process, until it ends."""
    paths = os.pathsep.join([str(REPOSITORY), str(REPOSITORY / "tests")])
    return subprocess.run(
        [sys.executable, "-m", "support.stuck_service", str(root), url, *flags],
        env={**os.environ, "PYTHONPATH": paths},
        capture_output=True,
        text=True,
        check=False,
        timeout=LIMIT_SECONDS,
    )


def lines(done: subprocess.CompletedProcess[str]) -> dict[str, dict[str, Any]]:
    """What was logged, by action."""
    said = [orjson.loads(line) for line in done.stderr.splitlines()]
    return {line["action"]: line for line in said}


async def test_a_thread_that_hangs_does_not_keep_the_process(tmp_path: Path) -> None:
    async with Receiver(SECRET) as receiver:
        async with open_service(settings_for(tmp_path, receiver.url)) as service:
            for name in "ab":
                await service.submit(payload(name))
        done = await anyio.to_thread.run_sync(
            stuck, tmp_path, receiver.url, "device.stall_seconds=3"
        )
        assert done.returncode == 75, done.stderr
        said = lines(done)
        assert "took no step for" in said["device_failed"]["reason"]
        assert said["device_failed"]["jobs"].count(job_id("a")) == 1
        assert said["hard_exit"]["reason"] == "leaving took too long"
        assert [c.status for c in receiver.callbacks if c.status != "processing"] == []
        async with house.open_house(tmp_path, receiver=receiver) as healthy:
            for name in "ab":
                assert (await healthy.ended(name))["status"] == "completed"
            await healthy.quiet()
            assert [len(healthy.terminal(job_id(name))) for name in "ab"] == [1, 1]
