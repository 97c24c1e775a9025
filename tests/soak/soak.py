"""Thousands of jobs with faults among them, and workers that are killed: nothing may be lost.

    make soak                       2000 jobs
    make soak JOBS=500 SEED=3       fewer, and others

Two workers, processes with data directories of their own, share the queues on a Redis server and
one storage; each is started again whenever it ends, as a service manager would. What became of the
jobs is judged by ``support.history`` from outside. The last line is JSON; the exit status is 1 if
anything is wrong.
"""

from __future__ import annotations

import argparse
import os
import random
import shutil
import signal
import sys
import tempfile
import time
from collections import Counter, deque
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import anyio
import orjson
from support.history import Call, History
from support.house import SECRET
from support.redis_process import DEAD, RedisProcess, redis_process

from ourvidz.adapters.receiver import Answer, Receiver
from ourvidz.service.signal import Signal
from tests.crash.worker import read_puts, until
from tests.crash.world import Nursery, elements, open_nursery
from tests.soak.load import QUEUES, REFUSED_SHARE, Element, Load, Planted, drawn, make_load
from tests.soak.report import Kill, Watched, judge
from tests.soak.worker import Order, read_begun

WORKERS = ("a", "b")
PRODUCERS = 3
# Enough that a worker never waits for producers, so few that jobs come all the while.
WAITING_MAX = 100
# The first pause of the official client, after which it sends again what it has no reply to.
CLIENT_PAUSE_SECONDS = 0.05
# Without an end in so long something is stuck; the worst that may be is a lease that runs out.
STUCK_SECONDS = 90
FLAGS = {
    "device.budget_bytes": 20_000,
    "device.stall_seconds": 2.0,
    "callback.progress_seconds": 0.2,
    "callback.retry_seconds_min": 0.05,
    "callback.retry_seconds_max": 1.0,
}


class Backend(Receiver):
    """Answers ``skipped`` to what comes for a job that is completed, and refuses some callbacks, by
    the seed. Keeps every callback there was."""

    def __init__(self, seed: int) -> None:
        super().__init__(SECRET)
        self._callbacks = deque()  # all of them, not the last
        self.ended: set[str] = set()
        self.changed = Signal()
        self._seed = seed
        self._came: Counter[tuple[str, str]] = Counter()
        self._completed: set[str] = set()

    def _answer(self, body: Any) -> Answer:
        job, status = body["job_id"], body["status"]
        self._came[job, status] += 1
        if drawn(self._seed, "refused", job, status, self._came[job, status]) < REFUSED_SHARE:
            return Answer(503)
        skipped = job in self._completed
        if status == "completed":
            self._completed.add(job)
        if status != "processing":
            self.ended.add(job)
            self.changed.notify()
        return Answer(skipped=skipped)


@dataclass(slots=True)
class Soak:
    """One soak in a folder of its own. ``kill_when`` returns when the next worker is to be killed,
    given the number of that kill."""

    root: Path
    load: Load
    seed: int
    redis: RedisProcess
    backend: Backend
    nursery: Nursery
    kill_when: Callable[[Soak, int], Awaitable[None]]
    alive: dict[str, int] = field(default_factory=dict)
    born: Signal = field(default_factory=Signal)
    kills: list[Kill] = field(default_factory=list)
    ends: Counter[str] = field(default_factory=Counter)
    troubles: list[str] = field(default_factory=list)
    producing: int = PRODUCERS
    over: bool = False

    async def run(self) -> Watched:
        (self.root / "hung").mkdir()
        async with anyio.create_task_group() as tasks:
            for worker in WORKERS:
                tasks.start_soon(self._supervise, worker)
            async with anyio.create_task_group() as traffic:
                for number in range(PRODUCERS):
                    mine = self.load.elements[number::PRODUCERS]
                    traffic.start_soon(self._produce, mine, number == 0)
                traffic.start_soon(self._kill)
                await self._done()
                traffic.cancel_scope.cancel()
            self.over = True
            for pid in self.alive.values():
                send(pid, signal.SIGTERM)
        return self._watched()

    async def _supervise(self, worker: str) -> None:
        """As a service manager with ``Restart=on-failure``."""
        while not self.over:
            order = self._order(worker)
            pid = self.alive[worker] = await self.nursery.bear(order)
            self.born.notify()
            if self.over:
                send(pid, signal.SIGTERM)
            status = await self.nursery.ended(pid)
            del self.alive[worker]
            self.ends["killed" if pid in {kill.pid for kill in self.kills} else str(status)] += 1
            stopped = self.over and status == -signal.SIGTERM  # while it was still starting
            if status not in (0, -signal.SIGKILL, os.EX_TEMPFAIL) and not stopped:
                self.troubles.append(f"worker {worker} ended with {status}: {order.log}")

    def _order(self, worker: str) -> Order:
        kinds: tuple[Planted, ...] = ("crash", "hang", "oom")
        return Order(
            data=self.root / worker,
            store=self.root / "store",
            log=self.root / f"{worker}.log",
            puts=self.root / "puts",
            begun=self.root / "begun",
            hung=self.root / "hung",
            url=self.backend.url,
            planted={kind: sorted(self.load.of(kind)) for kind in kinds},
            flags=FLAGS,
            environ={"OURVIDZ__QUEUE_SERVER__KIND": "redis", "REDIS_URL": self.redis.url},
        )

    async def _produce(self, elements: Sequence[Element], repeats: bool) -> None:
        push = self.redis.client.rpush
        for element in elements:
            push(element.queue, element.raw)
            if repeats and element.twice:
                await anyio.sleep(CLIENT_PAUSE_SECONDS)
                push(element.queue, element.raw)
            while self._left() > WAITING_MAX:
                await self.backend.changed.ticket.wait()
        self.producing -= 1
        self.backend.changed.notify()

    async def _kill(self) -> None:
        choice = random.Random(self.seed)
        number = 0
        while True:
            await self.kill_when(self, number)
            while not self.alive:
                await self.born.ticket.wait()
            pid = self.alive[choice.choice(sorted(self.alive))]
            if send(pid, signal.SIGKILL):
                self.kills.append(Kill(pid, time.monotonic()))
                number += 1
            else:
                await self.born.ticket.wait()

    async def _done(self) -> None:
        """Return once every job is answered and no element is left, or nothing gets on."""
        jobs = {element.id for element in self.load.elements}
        while self.producing or not jobs <= self.backend.ended:
            changed = self.backend.changed.ticket
            with anyio.move_on_after(STUCK_SECONDS) as limit:
                await changed.wait()
            if limit.cancelled_caught:
                self.troubles.append(f"no job ended for {STUCK_SECONDS} s")
                return
        with anyio.move_on_after(STUCK_SECONDS):
            await until(lambda: self._left() == 0)
            return
        self.troubles.append(f"{self._left()} elements are left")

    def _left(self) -> int:
        """Elements in the queues, claimed or not."""
        return elements(self.redis, QUEUES)

    def _watched(self) -> Watched:
        letters = self.redis.client.lrange(DEAD, 0, -1)
        dead = frozenset(orjson.loads(letter.split(b"\n", 1)[1])["id"] for letter in letters)
        calls = [Call.of(callback) for callback in self.backend.callbacks]
        history = History(self.load.pushed, read_puts(self.root / "puts"), calls, rerun=True)
        begun = read_begun(self.root / "begun")
        return Watched(self.load, history, dead, self.kills, begun, self.troubles)


def send(pid: int, number: signal.Signals) -> bool:
    """Whether it was still there."""
    try:
        os.kill(pid, number)
    except ProcessLookupError:
        return False
    return True


@asynccontextmanager
async def open_soak(
    root: Path, load: Load, seed: int, kill_when: Callable[[Soak, int], Awaitable[None]]
) -> AsyncIterator[Soak]:
    async with AsyncExitStack() as stack:
        server = stack.enter_context(redis_process())
        backend = await stack.enter_async_context(Backend(seed))
        nursery = await stack.enter_async_context(open_nursery("tests.soak.worker"))
        yield Soak(root, load, seed, server, backend, nursery, kill_when)


async def main(jobs: int, seed: int, kill_seconds: float) -> bool:
    """Returns whether all is well; else the files of the soak are kept."""

    async def later(_: Soak, __: int) -> None:
        await anyio.sleep(kill_seconds)

    load = make_load(jobs, seed)
    planted = Counter(load.planted.values())
    say(f"{jobs} jobs, seed {seed}; planted: {dict(planted)}")
    root = Path(tempfile.mkdtemp(prefix="soak-"))
    began = time.monotonic()
    async with open_soak(root, load, seed, later) as soak:
        watched = await soak.run()
    report, wrong = judge(watched)
    for words in wrong:
        say(f"WRONG  {words}")
    seconds = time.monotonic() - began
    say(f"{seconds:.0f} s; workers ended: {dict(soak.ends)}")
    if wrong:
        say(f"the files are kept in {root}")
    else:
        shutil.rmtree(root)
    say(report.line())
    return not wrong


def say(line: str) -> None:
    sys.stdout.write(f"{line}\n")
    sys.stdout.flush()


def run(arguments: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--jobs", type=int, default=2000)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--kill-seconds", type=float, default=20.0, help="from one to the next")
    given = parser.parse_args(arguments)
    return 0 if anyio.run(main, given.jobs, given.seed, given.kill_seconds) else 1


if __name__ == "__main__":
    sys.exit(run())
