"""The contract of ``ports.JobSource``, run against every implementation of it."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable
from pathlib import Path
from typing import Any
from uuid import uuid4

import anyio
import pytest
from support.queues import (
    LEASE,
    LEFT,
    OTHER,
    RIGHT,
    QueueWorld,
    claim,
    embedded,
    encrypted,
    native,
    shared,
    upstash,
)
from support.redis_process import RedisProcess
from support.turns import turns

from ourvidz.ports import JobSource, Standing

pytestmark = pytest.mark.anyio

LONG = 20.0
WORLDS: dict[str, Callable[[Path, RedisProcess], Any]] = {
    "embedded": lambda folder, _: embedded(folder),
    "redis": lambda _, redis: shared(redis, native(redis)),
    "redis over TLS": lambda folder, redis: encrypted(redis, folder),
    "upstash polled": lambda _, redis: upstash(redis, streaming=False),
    "upstash with events": lambda _, redis: upstash(redis, streaming=True),
}


@pytest.fixture(
    params=[
        name if name == "embedded" else pytest.param(name, marks=pytest.mark.slow)
        for name in WORLDS
    ]
)
async def world(
    request: pytest.FixtureRequest, tmp_path: Path, redis: RedisProcess
) -> AsyncIterator[QueueWorld]:
    async with WORLDS[request.param](tmp_path, redis) as world:
        yield world


async def fill(source: JobSource, queue: str, *elements: str) -> None:
    for element in elements:
        await source.push(queue, element.encode())


async def taken(source: JobSource, queue: str = LEFT) -> str:
    return (await claim(source, queue)).raw.decode()


async def empty(source: JobSource, queue: str = LEFT) -> bool:
    return await source.claim(queue, uuid4().hex, LEASE) is None


async def test_elements_come_in_the_order_of_their_side(world: QueueWorld) -> None:
    source = world.source
    for queue, order in ((LEFT, "abc"), (RIGHT, "cba")):
        await fill(source, queue, *"abc")
        assert [await taken(source, queue) for _ in order] == list(order)
        assert await empty(source, queue)


async def test_queues_do_not_know_each_other(world: QueueWorld) -> None:
    await fill(world.source, LEFT, "a")
    assert await empty(world.source, OTHER)
    assert await taken(world.source, LEFT) == "a"


async def test_an_unknown_queue_is_an_error(world: QueueWorld) -> None:
    for attempt in (
        world.source.push("nowhere", b"a"),
        world.source.claim("nowhere", "c", LEASE),
        world.source.wait("nowhere", LONG),
    ):
        with pytest.raises(KeyError):
            await attempt


@pytest.mark.parametrize("raw", [b"", b"\x00\xff", b"x" * 1_000_000, "ünï \u2028".encode()])
async def test_elements_are_bytes_that_nobody_touches(world: QueueWorld, raw: bytes) -> None:
    await world.source.push(LEFT, raw)
    claimed = await claim(world.source)
    assert (claimed.queue, claimed.raw, claimed.attempts) == (LEFT, raw, 0)


async def test_equal_elements_are_two(world: QueueWorld) -> None:
    await fill(world.source, LEFT, "a", "a")
    first, second = await claim(world.source), await claim(world.source)
    await world.source.acknowledge(first.claim_id)
    await world.source.hand_back(second.claim_id)
    assert await taken(world.source) == "a"
    assert await empty(world.source)


async def test_the_same_claim_returns_the_same_element(world: QueueWorld) -> None:
    """Its reply may have been lost."""
    source = world.source
    await fill(source, LEFT, "a", "b")
    first = await source.claim(LEFT, "mine", LEASE)
    assert await source.claim(LEFT, "mine", LEASE) == first
    assert first is not None
    assert first.raw == b"a"
    assert await taken(source) == "b"
    assert await source.claim(LEFT, "mine", LEASE) == first, "also where the queue is empty"


async def test_one_element_goes_to_one_claim(world: QueueWorld) -> None:
    await fill(world.source, LEFT, *map(str, range(20)))
    got: list[str] = []

    async def take() -> None:
        claimed = await world.source.claim(LEFT, uuid4().hex, LEASE)
        if claimed is not None:
            got.append(claimed.raw.decode())

    async with anyio.create_task_group() as tasks:
        for _ in range(30):
            tasks.start_soon(take)
    assert sorted(got, key=int) == [str(i) for i in range(20)]


async def test_what_is_acknowledged_is_gone(world: QueueWorld) -> None:
    await fill(world.source, LEFT, "a")
    claimed = await claim(world.source)
    for _ in range(2):
        await world.source.acknowledge(claimed.claim_id)
    world.advance(10 * LEASE)
    assert await world.source.reap() == 0
    assert await (await world.reopen()).recover() == 0
    assert await empty(world.source)


async def test_unknown_claims_are_ignored(world: QueueWorld) -> None:
    source = world.source
    await fill(source, LEFT, "a")
    await source.acknowledge("never")
    await source.hand_back("never")
    await source.dead_letter("never", "why")
    assert await source.count_attempt("never") == 0
    assert await source.renew(["never"], LEASE) == {"never"}
    assert await world.dead_letters() == []
    assert await source.dead_letters(10) == []
    assert await taken(source) == "a"


@pytest.mark.parametrize(("queue", "order"), [(LEFT, "abcd"), (RIGHT, "badc")])
async def test_what_is_handed_back_is_next(world: QueueWorld, queue: str, order: str) -> None:
    source = world.source
    await fill(source, queue, "a", "b")
    claims = [await claim(source, queue) for _ in range(2)]
    await fill(source, queue, "c", "d")
    for claimed in reversed(claims):
        await source.hand_back(claimed.claim_id)
    assert [await taken(source, queue) for _ in order] == list(order)


async def test_a_claim_that_was_handed_back_means_nothing_any_more(world: QueueWorld) -> None:
    source = world.source
    await fill(source, LEFT, "a")
    old = await claim(source)
    await source.hand_back(old.claim_id)
    new = await claim(source)
    await source.acknowledge(old.claim_id)
    await source.dead_letter(old.claim_id, "why")
    assert await source.count_attempt(old.claim_id) == 0
    assert await source.renew([old.claim_id, new.claim_id], LEASE) == {old.claim_id}
    await source.hand_back(new.claim_id)
    assert await taken(source) == "a"


async def test_a_lease_that_is_not_renewed_runs_out(world: QueueWorld) -> None:
    source = world.source
    await fill(source, LEFT, "a", "b", "c")
    kept, lost = await claim(source), await claim(source)
    world.advance(LEASE - 1)
    assert await source.reap() == 0
    assert await source.renew([kept.claim_id], LEASE) == frozenset()
    world.advance(2)
    assert await source.reap() == 1
    assert await source.renew([kept.claim_id, lost.claim_id], LEASE) == {lost.claim_id}
    assert [await taken(source), await taken(source)] == ["b", "c"]
    assert await empty(source)


async def test_a_lease_may_be_asked_for_longer_by_the_same_claim(world: QueueWorld) -> None:
    source = world.source
    await fill(source, LEFT, "a")
    await source.claim(LEFT, "mine", 10)
    world.advance(9)
    await source.claim(LEFT, "mine", 10)
    world.advance(9)
    assert await source.reap() == 0


async def test_attempts_are_counted_when_runs_start(world: QueueWorld) -> None:
    source = world.source
    await fill(source, LEFT, "a")
    for attempt in (1, 2):
        claimed = await claim(source)
        assert claimed.attempts == attempt - 1, "a claim is no attempt"
        assert await source.count_attempt(claimed.claim_id) == attempt
        world.advance(LEASE + 1)
        assert await source.reap() == 1
    await claim(source)
    source = await world.reopen()
    assert await source.recover() == 1
    assert (await claim(source)).attempts == 2


@pytest.mark.parametrize("queue", [LEFT, RIGHT])
async def test_handing_back_takes_its_attempt_back(world: QueueWorld, queue: str) -> None:
    source = world.source
    await fill(source, queue, "a")
    crashed = await claim(source, queue)
    await source.count_attempt(crashed.claim_id)
    world.advance(LEASE + 1)
    await source.reap()
    for _ in range(5):  # drains, as many as may come
        drained = await claim(source, queue)
        assert drained.attempts == 1
        assert await source.count_attempt(drained.claim_id) == 2
        await source.hand_back(drained.claim_id)
    unstarted = await claim(source, queue)
    await source.hand_back(unstarted.claim_id)
    assert (await claim(source, queue)).attempts == 1


async def test_dead_letters_are_kept_with_their_reason(world: QueueWorld) -> None:
    source = world.source
    await fill(source, LEFT, "a", "b", "c")
    await fill(source, RIGHT, "d")
    for queue in (LEFT, LEFT, RIGHT):
        claimed = await claim(source, queue)
        for _ in range(2):
            await source.dead_letter(claimed.claim_id, f"no {claimed.raw.decode()}")
    expected = [(LEFT, b"a", "no a"), (LEFT, b"b", "no b"), (RIGHT, b"d", "no d")]
    assert await world.dead_letters() == expected
    source = await world.reopen()
    assert await source.recover() == 0
    assert await world.dead_letters() == expected
    letters = await source.dead_letters(2)
    assert [(each.queue, each.beginning, each.reason) for each in letters] == expected[:0:-1]
    assert letters[0].at >= letters[1].at > 1_600_000_000
    assert await taken(source) == "c"
    assert await empty(source)


async def test_a_start_lets_go_what_the_last_process_held(world: QueueWorld) -> None:
    await fill(world.source, LEFT, "a", "b", "c")
    await fill(world.source, RIGHT, "d", "e")
    held = [await claim(world.source, queue) for queue in (LEFT, LEFT, RIGHT)]
    source = await world.reopen()
    await fill(source, LEFT, "f")
    await fill(source, RIGHT, "g")
    assert await source.recover() == 3
    assert await source.renew([c.claim_id for c in held], LEASE) == {c.claim_id for c in held}
    assert [await taken(source) for _ in range(4)] == ["a", "b", "c", "f"]
    assert [await taken(source, RIGHT) for _ in range(3)] == ["e", "g", "d"]


async def test_waiting_ends_when_something_is_there(world: QueueWorld) -> None:
    source = world.source
    await fill(source, OTHER, "a")
    with anyio.fail_after(LONG):
        assert await source.wait(OTHER, 2 * LONG)


async def test_waiting_ends_after_its_time(world: QueueWorld) -> None:
    with anyio.fail_after(LONG):
        await world.source.wait(LEFT, 0.001)


@pytest.mark.parametrize("how", ["push", "hand back", "reap"])
async def test_whatever_becomes_free_wakes_who_waits(world: QueueWorld, how: str) -> None:
    source = world.source
    held = None
    if how != "push":
        await fill(source, LEFT, "a")
        held = await claim(source)
    got: list[str] = []

    async def consume() -> None:
        while await empty_or(source, got):
            await source.wait(LEFT, 2 * LONG)

    with anyio.fail_after(LONG):
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(consume)
            await turns()
            if held is None:
                await fill(source, LEFT, "a")
            elif how == "reap":
                world.advance(LEASE + 1)
                await source.reap()
            else:
                await source.hand_back(held.claim_id)
    assert got == ["a"]


async def empty_or(source: JobSource, got: list[str]) -> bool:
    claimed = await source.claim(LEFT, uuid4().hex, LEASE)
    if claimed is not None:
        got.append(claimed.raw.decode())
    return claimed is None


async def test_consumers_of_one_queue_miss_nothing(world: QueueWorld) -> None:
    """Each may look just before a push and begin to wait just after another has claimed."""
    source, got, count = world.source, list[str](), 60

    async def consume() -> None:
        while len(got) < count:
            if await empty_or(source, got):
                await source.wait(LEFT, 2 * LONG)
        tasks.cancel_scope.cancel()

    with anyio.fail_after(LONG):
        async with anyio.create_task_group() as tasks:
            for _ in range(3):
                tasks.start_soon(consume)
            for number in range(count):
                await fill(source, LEFT, str(number))
                for _ in range(number % 7):
                    await anyio.lowlevel.checkpoint()
    assert sorted(got, key=int) == [str(i) for i in range(count)]


@pytest.mark.parametrize("end", ["acknowledge", "dead letter", "hand back", "nothing"])
async def test_elements_of_one_job_are_not_in_each_others_way_at_one_worker(
    world: QueueWorld, end: str
) -> None:
    """Its journal knows them; the newest claim holds the job."""
    source = world.source
    await fill(source, LEFT, "a", "a again", "a once more")
    first, second = await claim(source), await claim(source)
    for _ in range(2):
        assert await source.mark(first.claim_id, "a", "body") is Standing.FREE
    assert await source.mark(second.claim_id, "a", "another body") is Standing.FREE
    if end == "acknowledge":
        await source.acknowledge(second.claim_id)
    elif end == "dead letter":
        await source.dead_letter(second.claim_id, "why")
    elif end == "hand back":
        await source.hand_back(second.claim_id)
    third = await claim(source)
    assert await source.mark(third.claim_id, "a", "body") is Standing.FREE


async def test_everything_survives_a_restart(world: QueueWorld) -> None:
    await fill(world.source, LEFT, "a", "b")
    await fill(world.source, RIGHT, "c")
    source = await world.reopen()
    assert await source.recover() == 0
    assert [await taken(source), await taken(source), await taken(source, RIGHT)] == ["a", "b", "c"]
