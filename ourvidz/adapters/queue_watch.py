"""Looking at all queues in one request, on behalf of everybody who waits for one."""

from __future__ import annotations

import random
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass, field
from typing import Final

import anyio

from ourvidz.ports import QueueError

# By how much the pause grows with each look that finds nothing: from 50 ms to 15 s in about 45 s.
_GROWTH: Final = 1.5
# Looks come this much earlier than the pause says, at most: an even beat could stay in step with a
# producer's and miss it by the same time again and again.
_JITTER: Final = 0.4

Look = Callable[[Sequence[str]], Awaitable[Sequence[int]]]


@dataclass(frozen=True, slots=True)
class Pauses:
    """Seconds between looks: while jobs come, when none came for long, and where the server
    announces elements, so that a look only makes sure."""

    busy: float = 0.05
    idle: float = 15.0
    announced: float = 30.0


@dataclass(slots=True)
class _News:
    """What a queue's waiters wait for. ``fresh``: announced, and nobody has claimed since."""

    changed: anyio.Event = field(default_factory=anyio.Event)
    waiting: int = 0
    fresh: bool = False
    looked: int = 0
    error: QueueError | None = None


class QueueWatch:
    """``run`` looks as long as somebody waits. ``missed`` is called with a queue whose elements the
    server announces, if a look finds one that it did not."""

    def __init__(
        self, look: Look, queues: Sequence[str], pauses: Pauses, jitter: random.Random
    ) -> None:
        self._look = look
        self._news = {queue: _News() for queue in queues}
        self._pauses = pauses
        self._jitter = jitter
        self._pause = pauses.busy
        self._live: set[str] = set()
        self._changed = anyio.Event()
        self.missed: Callable[[str], None] = lambda _: None

    @property
    def announced(self) -> bool:
        """Whether the server announces what comes to any queue."""
        return self._live.issuperset(self._news)

    async def wait(self, queue: str, seconds: float) -> bool:
        """As ``ports.JobSource.wait``. Raises the ``QueueError`` of a look that failed."""
        news = self._news[queue]
        if news.fresh:
            news.fresh = False
            return True
        news.waiting += 1
        looked = news.looked
        self._change()
        try:
            with anyio.move_on_after(seconds):
                await news.changed.wait()
                if news.error is not None:
                    raise type(news.error)(str(news.error)) from news.error
                news.fresh = False
                return True
        finally:
            news.waiting -= 1
        return news.looked == looked

    def claiming(self, queue: str) -> None:
        """What was announced until now, the claim will see."""
        self._news[queue].fresh = False

    def hurry(self) -> None:
        """Jobs come: look again soon."""
        self._pause = self._pauses.busy
        self._change()

    def set_live(self, queue: str, live: bool) -> None:
        """Whether the server announces what comes to a queue. Where it begins to, something may
        have come unannounced before."""
        if live:
            self._live.add(queue)
            self.announce(queue)
        else:
            self._live.discard(queue)
        self._change()

    def announce(self, queue: str, error: QueueError | None = None) -> None:
        """The queue may hold something: wake its waiters, or whoever comes next. With an ``error``
        they are told of it instead."""
        news = self._news.get(queue)
        if news is None:
            return
        news.error = error
        news.fresh = error is None
        news.changed.set()
        news.changed = anyio.Event()

    async def run(self) -> None:
        """For ever."""
        while True:
            while not self._waited_for():
                await self._changed.wait()
            await self._sleep()
            await self._look_once(self._waited_for())

    def _change(self) -> None:
        self._changed.set()
        self._changed = anyio.Event()

    def _waited_for(self) -> list[str]:
        return [queue for queue, news in self._news.items() if news.waiting]

    async def _sleep(self) -> None:
        """A pause, whose length follows what happens meanwhile."""
        began, early = anyio.current_time(), 1 - _JITTER * self._jitter.random()
        while True:
            announced = self._live.issuperset(self._waited_for())
            pause = self._pauses.announced if announced else self._pause
            left = began + pause * early - anyio.current_time()
            if left <= 0:
                return
            with anyio.move_on_after(left):
                await self._changed.wait()

    async def _look_once(self, queues: Sequence[str]) -> None:
        if not queues:
            return
        self._pause = min(self._pause * _GROWTH, self._pauses.idle)
        try:
            depths = await self._look(queues)
        except QueueError as error:
            for queue in queues:
                self.announce(queue, error)
            return
        for queue, depth in zip(queues, depths, strict=True):
            news = self._news[queue]
            news.looked += 1
            if depth:
                self._pause = self._pauses.busy
                if queue in self._live and not news.fresh:
                    self.missed(queue)
                self.announce(queue)
