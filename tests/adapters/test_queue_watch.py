"""When queues are looked at, in virtual time."""

from __future__ import annotations

import itertools
import random
from collections.abc import Awaitable, Callable, Sequence
from functools import partial

import anyio
import pytest
from support.virtual import run_virtually

from ourvidz.adapters.queue_watch import Pauses, QueueWatch
from ourvidz.ports import QueueUnavailable

PAUSES = Pauses(busy=0.05, idle=15.0, announced=30.0)
QUEUES = ("a", "b", "c")
HOUR = 3600.0


class Queues:
    """What looks see, and when they came."""

    def __init__(self) -> None:
        self.depths = dict.fromkeys(QUEUES, 0)
        self.looks: list[tuple[float, tuple[str, ...]]] = []
        self.broken = False
        self.missed: list[str] = []
        self.watch = QueueWatch(self._look, QUEUES, PAUSES, random.Random(7))
        self.watch.missed = self.missed.append

    async def _look(self, queues: Sequence[str]) -> Sequence[int]:
        self.looks.append((anyio.current_time(), tuple(queues)))
        if self.broken:
            raise QueueUnavailable("down")
        return [self.depths[queue] for queue in queues]

    @property
    def pauses(self) -> list[float]:
        times = [time for time, _ in self.looks]
        return [after - before for before, after in itertools.pairwise(times)]


def watched(test: Callable[[Queues], Awaitable[None]]) -> None:
    async def main() -> None:
        queues = Queues()
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(queues.watch.run)
            await test(queues)
            tasks.cancel_scope.cancel()

    run_virtually(main)


async def all_wait(queues: Queues, seconds: float) -> None:
    async with anyio.create_task_group() as tasks:
        for queue in QUEUES:
            tasks.start_soon(queues.watch.wait, queue, seconds)


def test_looks_get_rarer_while_nothing_comes() -> None:
    async def test(queues: Queues) -> None:
        await all_wait(queues, HOUR)
        assert queues.looks[0][0] <= PAUSES.busy
        assert all(looked == QUEUES for _, looked in queues.looks), "all in one request"
        idle = [p for (t, _), p in zip(queues.looks, queues.pauses, strict=False) if t > 60]
        assert max(idle) <= PAUSES.idle + 0.001
        assert min(idle) >= PAUSES.idle * 0.6 - 0.001
        assert len(queues.looks) < HOUR / 60 * 6, "commands of an idle hour"

    watched(test)


def test_looks_keep_no_beat() -> None:
    """A producer as regular as they are must not be missed by the same time for ever."""

    async def test(queues: Queues) -> None:
        await all_wait(queues, HOUR)
        idle = [round(pause, 3) for pause in queues.pauses[20:]]
        assert len(set(idle)) > len(idle) / 2

    watched(test)


def test_nobody_looks_for_nobody() -> None:
    async def test(queues: Queues) -> None:
        await anyio.sleep(HOUR)
        assert queues.looks == []
        await queues.watch.wait("b", 1)
        assert {looked for _, looked in queues.looks} == {("b",)}
        count = len(queues.looks)
        await anyio.sleep(HOUR)
        assert len(queues.looks) <= count + 1

    watched(test)


def test_a_wait_tells_whether_it_was_in_vain() -> None:
    async def test(queues: Queues) -> None:
        assert await queues.watch.wait("a", 60) is False
        assert await queues.watch.wait("a", 0.001) is True, "nobody looked meanwhile"
        queues.depths["a"] = 1
        assert await queues.watch.wait("a", 60) is True
        assert await queues.watch.wait("b", 60) is False

    watched(test)


def test_jobs_that_come_make_looks_frequent_again() -> None:
    async def test(queues: Queues) -> None:
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(partial(all_wait, queues, HOUR))
            await anyio.sleep(300)
            before, now = len(queues.looks), anyio.current_time()
            queues.watch.hurry()
            await anyio.sleep(1)
            assert queues.looks[before][0] <= now + PAUSES.busy
            for _ in range(1000):  # claims, one close upon another, keep no look from its turn
                queues.watch.hurry()
                await anyio.sleep(0.001)
            assert len(queues.looks) > before + 20
            tasks.cancel_scope.cancel()

    watched(test)


def test_a_look_that_fails_is_told_to_who_waits() -> None:
    async def test(queues: Queues) -> None:
        queues.broken = True
        for _ in range(2):
            with pytest.raises(QueueUnavailable, match="down"):
                await queues.watch.wait("a", HOUR)
        queues.broken, queues.depths["a"] = False, 1
        assert await queues.watch.wait("a", HOUR) is True

    watched(test)


def test_what_is_announced_wakes_at_once_and_is_not_forgotten() -> None:
    async def test(queues: Queues) -> None:
        watch = queues.watch
        for queue in QUEUES:
            watch.set_live(queue, True)
            assert await watch.wait(queue, HOUR) is True, "what came before, nobody announced"
        assert queues.looks == []
        watch.announce("a")
        assert await watch.wait("a", HOUR) is True
        watch.announce("a")
        watch.claiming("a")  # it will see what was announced
        now = anyio.current_time()
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(_announce_later, watch, "a", 10.0)
            assert await watch.wait("a", HOUR) is True
        assert anyio.current_time() < now + 10.1
        watch.announce("not ours")

    watched(test)


async def _announce_later(watch: QueueWatch, queue: str, seconds: float) -> None:
    await anyio.sleep(seconds)
    watch.announce(queue)


def test_with_announcements_a_look_only_makes_sure() -> None:
    async def test(queues: Queues) -> None:
        for queue in QUEUES:
            queues.watch.set_live(queue, True)
            queues.watch.claiming(queue)
        assert queues.watch.announced
        await all_wait(queues, HOUR)
        assert HOUR / 30 <= len(queues.looks) < HOUR / 60 * 3.4
        queues.depths["b"] = 1
        assert await queues.watch.wait("b", HOUR) is True
        assert queues.missed == ["b"], "its stream is deaf"

    watched(test)


def test_looks_take_over_at_once_where_announcements_end() -> None:
    async def test(queues: Queues) -> None:
        for queue in QUEUES:
            queues.watch.set_live(queue, True)
            queues.watch.claiming(queue)
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(partial(all_wait, queues, HOUR))
            await anyio.sleep(1)
            queues.watch.set_live("c", False)
            await anyio.sleep(1)
            assert not queues.watch.announced
            assert len(queues.looks) > 3
            tasks.cancel_scope.cancel()

    watched(test)
