"""A job's events: numbered, replayable for a while, for any number of followers."""

from __future__ import annotations

from uuid import UUID

import anyio
import pytest
from support.turns import turns

from ourvidz.service import events as module
from ourvidz.service.events import EventLog, Events

pytestmark = pytest.mark.anyio

LIMIT = 20


async def ids(log: EventLog, last_id: int) -> list[int]:
    return [event.id async for event in log.follow(last_id)]


async def test_every_follower_gets_every_event_once() -> None:
    log, got = EventLog(), dict[int, list[int]]()

    async def follow(last_id: int) -> None:
        got[last_id] = await ids(log, last_id)

    for _ in range(3):
        log.publish("progress", {})
    with anyio.fail_after(LIMIT):
        async with anyio.create_task_group() as tasks:
            for last_id in (0, 2, 3, 4):
                tasks.start_soon(follow, last_id)
            for number in range(20):
                log.publish("progress", {})
                if number % 3 == 0:
                    await anyio.lowlevel.checkpoint()
            log.publish("end", {})
    assert got == {last_id: list(range(last_id + 1, 25)) for last_id in (0, 2, 3, 4)}
    assert log.last_id == 24


async def test_an_ended_log_is_replayed_and_ends() -> None:
    log = EventLog()
    log.publish("status", {"status": "processing"})
    log.publish("end", {})
    with anyio.fail_after(LIMIT):
        assert await ids(log, 0) == [1, 2]
        assert await ids(log, 1) == [2]
        assert await ids(log, 2) == []
        assert await ids(log, 99) == [], "nothing comes after the end"


async def test_a_follower_that_reads_slowly_misses_the_oldest(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(module, "_EVENTS_MAX", 10)
    log = EventLog()
    log.publish("progress", {})
    slow = log.follow(0)
    assert (await anext(slow)).id == 1
    for _ in range(50):
        log.publish("progress", {})
    log.publish("end", {})
    assert len(log) == 10
    rest = [event async for event in slow]
    assert [event.id for event in rest] == list(range(43, 53))
    assert rest[-1].name == "end", "the end is never missed"


def test_what_a_log_still_covers(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "_EVENTS_MAX", 3)
    log = EventLog()
    assert (log.covers(0), log.covers(1), log.last_id) == (True, False, 0)
    for _ in range(5):
        log.publish("progress", {})
    assert [last_id for last_id in range(-1, 8) if log.covers(last_id)] == [2, 3, 4, 5]


async def test_a_follower_may_leave_at_any_time() -> None:
    log = EventLog()
    async with anyio.create_task_group() as tasks:
        tasks.start_soon(ids, log, 0)
        await turns()
        tasks.cancel_scope.cancel()
    log.publish("end", {})
    assert await ids(log, 0) == [1]


def filled(events: Events, number: int, count: int, *, end: bool) -> UUID:
    job = UUID(int=number)
    log = events.open(job)
    for _ in range(count - 1):
        log.publish("delta", {})
    log.publish("end" if end else "delta", {})
    return job


@pytest.mark.parametrize(("name", "bound"), [("_ENDED_JOBS_MAX", 3), ("_ENDED_EVENTS_MAX", 30)])
def test_the_oldest_ended_jobs_are_forgotten(
    monkeypatch: pytest.MonkeyPatch, name: str, bound: int
) -> None:
    monkeypatch.setattr(module, name, bound)
    events = Events()
    present = filled(events, 99, 100, end=False)
    ended = [filled(events, number, 10, end=True) for number in range(6)]
    last = filled(events, 7, 1, end=False)
    kept = [job for job in ended if events.get(job) is not None]
    assert kept == ended[-3:]
    assert events.get(present) is not None, "what has not ended is followed, however long"
    assert events.get(last) is not None
    assert events.open(present) is events.get(present)
