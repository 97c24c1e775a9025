"""Seconds from ``kill -9`` of a worker until its job runs again, with processes of their own.

python -m bench.delivery_killed FOLDER      one worker, which says when a run starts
"""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path

import anyio
import anyio.to_thread
import orjson
from support.house import payload, settings_for
from support.queues import shared_server
from support.redis_process import RedisProcess, redis_process

from ourvidz import logs
from ourvidz.adapters.device_fake import FakeDevice
from ourvidz.app import open_service
from ourvidz.ports import Part
from scheduler.types import Fault, Phase

ROOT = Path(__file__).parents[1]
READY, STARTED = b"ready\n", b"started\n"


class Endless(FakeDevice):
    """Says when a step starts, and does not end it."""

    async def pace(
        self,
        part: Part,  # noqa: ARG002 - the executor's
        phase: Phase,  # noqa: ARG002 - the executor's
        step: int,  # noqa: ARG002 - the executor's
        cancelled: anyio.Event,
    ) -> Fault | None:
        _say(STARTED)
        await cancelled.wait()
        return None


async def work(folder: Path) -> None:
    """Serve until killed, over the queues that the environment names."""
    logs.configure("json", "error", log_prompts=False)
    settings = settings_for(folder, "", os.environ)
    async with open_service(settings, Endless()) as service, anyio.create_task_group() as tasks:
        await tasks.start(service.run)
        _say(READY)
        await anyio.sleep_forever()


def _say(line: bytes) -> None:
    os.write(sys.stdout.fileno(), line)


@contextmanager
def worker(folder: Path, environ: Mapping[str, str]) -> Iterator[subprocess.Popen[bytes]]:
    command = [sys.executable, "-m", "bench.delivery_killed", str(folder)]
    paths = os.pathsep.join((str(ROOT), str(ROOT / "tests")))
    given = {**os.environ, **environ, "PYTHONPATH": paths}
    process = subprocess.Popen(command, cwd=ROOT, env=given, stdout=subprocess.PIPE)
    try:
        yield process
    finally:
        process.send_signal(signal.SIGKILL)
        process.communicate()


def hear(process: subprocess.Popen[bytes], line: bytes) -> None:
    assert process.stdout is not None
    said = process.stdout.readline()
    assert said == line, said


def _held_by_one(folder: Path, redis: RedisProcess, environ: Mapping[str, str]) -> float:
    """A worker takes a job and is killed; returns when that was."""
    with worker(folder, environ) as first:
        hear(first, READY)
        redis.client.rpush("sdxl_queue", orjson.dumps(payload("killed")))
        hear(first, STARTED)
        first.kill()
        return time.perf_counter()


def restarted(folder: Path) -> float:
    """The same worker, started anew at once: its start is in it."""
    with redis_process() as redis:
        environ = shared_server("redis", redis).environ
        killed = _held_by_one(folder, redis, environ)
        with worker(folder, environ) as again:
            hear(again, READY)
            hear(again, STARTED)
            return time.perf_counter() - killed


def taken_over(folder: Path) -> float:
    """Another worker that runs already, with the leases of the configuration's defaults."""
    with redis_process() as redis:
        environ = shared_server("redis", redis).environ
        killed = _held_by_one(folder / "first", redis, environ)
        with worker(folder / "second", environ) as second:
            hear(second, READY)
            hear(second, STARTED)
            return time.perf_counter() - killed


async def killed(folder: Path, repeats: int, *, by_another: bool) -> list[float]:
    """Several times, at once where that is a matter of waiting."""
    found: list[float] = []

    async def one(number: int) -> None:
        measure = taken_over if by_another else restarted
        place = folder / f"{measure.__name__}{number}"
        found.append(await anyio.to_thread.run_sync(measure, place))

    if not by_another:
        for number in range(repeats):
            await one(number)
        return found
    async with anyio.create_task_group() as tasks:
        for number in range(repeats):
            tasks.start_soon(one, number)
    return found


if __name__ == "__main__":
    anyio.run(work, Path(sys.argv[1]))
