"""Workers that share a server know which jobs another holds or has ended."""

from __future__ import annotations

from collections.abc import AsyncIterator
from typing import Any
from uuid import uuid4

import pytest
from support.queues import LEASE, LEFT, SharedWorld, native, shared, upstash
from support.redis_process import RedisProcess

from ourvidz.adapters.queue_scripts import job_key
from ourvidz.adapters.queue_shared import SharedQueues
from ourvidz.ports import Claimed, Standing

pytestmark = [pytest.mark.anyio, pytest.mark.slow]

DAY = 86_400
JOB = "0d4a9f9e"


@pytest.fixture(params=["redis", "upstash"])
async def world(request: pytest.FixtureRequest, redis: RedisProcess) -> AsyncIterator[SharedWorld]:
    opened: Any = shared(redis, native(redis))
    if request.param == "upstash":
        opened = upstash(redis, streaming=False)
    async with opened as world:
        yield world


@pytest.fixture
async def other(world: SharedWorld) -> SharedQueues:
    return await world.worker("another")


async def taken(source: SharedQueues) -> Claimed:
    """One more element of the job, claimed."""
    await source.push(LEFT, b"job")
    claimed = await source.claim(LEFT, uuid4().hex, LEASE)
    assert claimed is not None
    return claimed


async def marked(source: SharedQueues, digest: str = "body") -> tuple[str, Standing]:
    claimed = await taken(source)
    return claimed.claim_id, await source.mark(claimed.claim_id, JOB, digest)


async def test_what_another_holds_is_not_free(world: SharedWorld, other: SharedQueues) -> None:
    claim_id, standing = await marked(world.source)
    assert standing is Standing.FREE
    assert (await marked(other))[1] is Standing.HELD
    assert (await marked(other, "another body"))[1] is Standing.OTHER_BODY
    assert await world.source.mark(claim_id, JOB, "body") is Standing.FREE, "a lost reply"
    assert await other.mark((await taken(other)).claim_id, "another job", "body") is Standing.FREE
    assert world.redis.client.ttl(job_key(JOB)) in range(DAY - 60, DAY + 1)


@pytest.mark.parametrize("how", ["acknowledge", "dead letter"])
async def test_what_another_has_ended_is_not_free(
    world: SharedWorld, other: SharedQueues, how: str
) -> None:
    claim_id, _ = await marked(world.source)
    for _ in range(2):
        if how == "acknowledge":
            await world.source.acknowledge(claim_id)
        else:
            await world.source.dead_letter(claim_id, "why")
    assert (await marked(other))[1] is Standing.ENDED
    assert (await marked(other, "another body"))[1] is Standing.OTHER_BODY
    assert (await marked(world.source))[1] is Standing.FREE, "its journal knows better"
    assert world.redis.client.ttl(job_key(JOB)) in range(DAY - 60, DAY + 1)


@pytest.mark.parametrize("how", ["hand back", "reap", "restart"])
async def test_what_came_back_is_free(world: SharedWorld, other: SharedQueues, how: str) -> None:
    """Whichever of its elements comes next is the job's; the other is let go of when it comes."""
    claim_id, _ = await marked(world.source)
    twice = await taken(other)
    if how == "hand back":
        await world.source.hand_back(claim_id)
    elif how == "reap":
        world.advance(LEASE + 1)
        await other.renew([twice.claim_id], LEASE)
        assert await other.reap() == 1
    else:
        await world.reopen()
        other = await world.worker("another")
        assert await world.source.recover() == 1
    assert await other.mark(twice.claim_id, JOB, "body") is Standing.FREE
    back = await world.source.claim(LEFT, "back", LEASE)
    assert back is not None
    assert await world.source.mark(back.claim_id, JOB, "body") is Standing.HELD


async def test_a_claim_that_was_lost_ends_nothing(world: SharedWorld, other: SharedQueues) -> None:
    lost, _ = await marked(world.source)
    world.advance(LEASE + 1)
    await other.reap()
    again = await other.claim(LEFT, "again", LEASE)
    assert again is not None
    assert await other.mark(again.claim_id, JOB, "body") is Standing.FREE
    await world.source.acknowledge(lost)
    third = await world.worker("third")
    assert (await marked(third))[1] is Standing.HELD


async def test_what_refuses_an_element_lets_it_go(world: SharedWorld, other: SharedQueues) -> None:
    """Acknowledging what is not the job's own says nothing of the job."""
    mine, _ = await marked(world.source)
    theirs, standing = await marked(other)
    assert standing is Standing.HELD
    await other.acknowledge(theirs)
    third = await world.worker("third")
    assert (await marked(third))[1] is Standing.HELD
    await world.source.acknowledge(mine)
    assert (await marked(third))[1] is Standing.ENDED


async def test_another_body_at_the_same_worker_says_nothing_of_the_job(
    world: SharedWorld, other: SharedQueues
) -> None:
    """Whose journal dead-letters it."""
    mine, _ = await marked(world.source)
    for expected in (Standing.HELD, Standing.ENDED):
        bad, standing = await marked(world.source, "another body")
        assert standing is Standing.FREE
        await world.source.dead_letter(bad, "same id, another body")
        assert (await marked(other))[1] is expected
        await world.source.acknowledge(mine)


async def test_what_is_forgotten_is_free(world: SharedWorld, other: SharedQueues) -> None:
    claim_id, _ = await marked(world.source)
    await world.source.acknowledge(claim_id)
    world.redis.client.delete(job_key(JOB))
    assert (await marked(other))[1] is Standing.FREE


async def test_a_server_that_is_full_remembers_nothing_and_goes_on(redis: RedisProcess) -> None:
    async with shared(redis, native(redis)) as world:
        claimed, ended = await taken(world.source), (await marked(world.source))[0]
        redis.client.config_set("maxmemory", "1")
        try:
            assert await world.source.mark(claimed.claim_id, "other", "body") is Standing.FREE
            await world.source.acknowledge(claimed.claim_id)
            await world.source.acknowledge(ended)
        finally:
            redis.client.config_set("maxmemory", "0")
        assert redis.client.hlen("ourvidz:claims") == 0


async def test_nothing_is_kept_of_claims_that_are_gone(world: SharedWorld) -> None:
    for how in (world.source.acknowledge, world.source.hand_back):
        claim_id, _ = await marked(world.source)
        await how(claim_id)
    claim_id, _ = await marked(world.source)
    await world.source.dead_letter(claim_id, "why")
    claim_id, _ = await marked(world.source)
    world.advance(LEASE + 1)
    await world.source.reap()
    assert await world.source.renew([claim_id], LEASE) == {claim_id}
    assert world.source._jobs == world.source._queues == {}


async def test_a_job_can_be_ended_without_a_claim(world: SharedWorld, other: SharedQueues) -> None:
    assert await world.source.mark(None, JOB, "body") is Standing.FREE
    assert await world.source.mark(None, JOB, "body") is Standing.FREE, "a lost reply"
    assert (await marked(other))[1] is Standing.ENDED
    assert (await marked(other, "another body"))[1] is Standing.OTHER_BODY
    assert (await marked(world.source))[1] is Standing.FREE, "its journal knows better"


async def test_a_job_that_another_has_is_not_ended_without_a_claim(
    world: SharedWorld, other: SharedQueues
) -> None:
    claim_id, _ = await marked(world.source)
    assert await other.mark(None, JOB, "body") is Standing.HELD
    await world.source.acknowledge(claim_id)
    assert await other.mark(None, JOB, "body") is Standing.ENDED


async def test_a_job_that_came_back_to_its_queue_can_be_ended(
    world: SharedWorld, other: SharedQueues
) -> None:
    claim_id, _ = await marked(world.source)
    await world.source.hand_back(claim_id)
    assert await other.mark(None, JOB, "body") is Standing.FREE
    back = await world.source.claim(LEFT, "back", LEASE)
    assert back is not None
    assert await world.source.mark(back.claim_id, JOB, "body") is Standing.ENDED
