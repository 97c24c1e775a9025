"""The engine's inbox: bounded for requests, never closed to terminal events, conflated progress."""

from __future__ import annotations

import anyio
import pytest
from support.turns import turns

from ourvidz.service.inbox import Inbox
from scheduler.messages import CancelRequested, Evicted, PhaseFinished, StepReached
from scheduler.types import Lease

pytestmark = pytest.mark.anyio

LIMIT = 20


def lease(number: int) -> Lease:
    return Lease(number, "job", 0)


async def test_events_come_in_order_and_progress_after_them() -> None:
    inbox = Inbox(8)
    inbox.put_step(StepReached(lease(1), 1))
    await inbox.put(CancelRequested("a"))
    inbox.put_terminal(Evicted("c"))
    await inbox.put(CancelRequested("b"))
    assert len(inbox) == 4
    assert await inbox.get(10) == [
        CancelRequested("a"),
        Evicted("c"),
        CancelRequested("b"),
        StepReached(lease(1), 1),
    ]
    assert len(inbox) == 0


async def test_no_more_is_taken_than_was_asked_for() -> None:
    inbox = Inbox(8)
    inbox.put_step(StepReached(lease(1), 1))
    for job in "abc":
        await inbox.put(CancelRequested(job))
    assert await inbox.get(2) == [CancelRequested("a"), CancelRequested("b")]
    inbox.put_terminal(Evicted("d"))
    assert await inbox.get(2) == [CancelRequested("c"), Evicted("d")]
    assert await inbox.get(2) == [StepReached(lease(1), 1)]


async def test_of_a_runs_progress_only_the_newest_is_kept() -> None:
    inbox = Inbox(8)
    for step in range(1, 1000):
        inbox.put_step(StepReached(lease(1), step))
        inbox.put_step(StepReached(lease(2), step * 2))
    assert len(inbox) == 2
    assert await inbox.get(10) == [StepReached(lease(1), 999), StepReached(lease(2), 1998)]


async def test_a_full_inbox_holds_requests_back_and_takes_terminal_events() -> None:
    inbox = Inbox(2)
    for job in "ab":
        await inbox.put(CancelRequested(job))
    put: list[str] = []

    async def request(job: str) -> None:
        await inbox.put(CancelRequested(job))
        put.append(job)

    async with anyio.create_task_group() as tasks:
        tasks.start_soon(request, "c")
        await turns()
        tasks.start_soon(request, "d")
        await turns()
        for number in range(100):
            inbox.put_terminal(PhaseFinished(lease(number), 0))
        assert put == []
        assert await inbox.get(1) == [CancelRequested("a")]
        await turns()
        assert put == ["c"], "in the order in which they asked"
        rest = await inbox.get(102)
        assert rest[0] == CancelRequested("b")
        assert rest[-1] == CancelRequested("c")
    assert put == ["c", "d"]
    assert await inbox.get(9) == [CancelRequested("d")]


async def test_terminal_events_give_no_room_that_was_not_taken() -> None:
    inbox = Inbox(1)
    inbox.put_terminal(Evicted("c"))
    await inbox.get(9)
    async with anyio.create_task_group() as tasks:
        for job in "ab":
            tasks.start_soon(inbox.put, CancelRequested(job))
        await turns()
        assert len(inbox) == 1
        tasks.cancel_scope.cancel()


async def test_an_empty_inbox_lets_the_engine_rest() -> None:
    inbox = Inbox(8)
    inbox.put_terminal(Evicted("c"))
    await inbox.get(9)
    async with anyio.create_task_group() as tasks:
        tasks.start_soon(inbox.get, 9)
        await turns()
        assert not inbox._ready.is_set(), "it would turn round and round"
        tasks.cancel_scope.cancel()


async def test_a_request_that_is_given_up_leaves_no_trace() -> None:
    inbox = Inbox(1)
    await inbox.put(CancelRequested("a"))
    async with anyio.create_task_group() as tasks:
        tasks.start_soon(inbox.put, CancelRequested("b"))
        await turns()
        tasks.cancel_scope.cancel()
    assert await inbox.get(9) == [CancelRequested("a")]
    assert len(inbox) == 0
    with anyio.fail_after(LIMIT):
        await inbox.put(CancelRequested("c"))
    assert await inbox.get(9) == [CancelRequested("c")]


async def test_a_wait_that_is_given_up_loses_no_event() -> None:
    inbox = Inbox(8)
    async with anyio.create_task_group() as tasks:
        tasks.start_soon(inbox.get, 9)
        await turns()
        inbox.put_terminal(Evicted("c"))
        tasks.cancel_scope.cancel()  # in the same turn of the loop
    with anyio.fail_after(LIMIT):
        got = [Evicted("c")] if not len(inbox) else await inbox.get(9)
    assert got == [Evicted("c")]


async def test_many_senders_and_one_reader_do_not_block_each_other() -> None:
    inbox, got = Inbox(2), list[object]()

    async def answer() -> None:
        """As the engine does: each request brings a terminal event into the same inbox."""
        while len(got) < 600:
            events = await inbox.get(16)
            got.extend(events)
            for event in events:
                if isinstance(event, CancelRequested):
                    inbox.put_terminal(Evicted(event.job))
                    inbox.put_step(StepReached(lease(int(event.job)), 1))

    with anyio.fail_after(LIMIT):
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(answer)
            for number in range(200):
                tasks.start_soon(inbox.put, CancelRequested(str(number)))
    assert len(inbox) == 0
