"""What only queues on a shared server have: other workers, lost replies, a server that refuses."""

from __future__ import annotations

from collections.abc import AsyncIterator, Awaitable, Callable
from typing import Any

import pytest
import structlog
from support.queues import LEASE, LEFT, OTHER, RIGHT, SharedWorld, claim, native, shared, upstash
from support.redis_process import CLAIMS, HELD, LEASES, RedisProcess
from support.upstash import Fault, UpstashFront

from ourvidz.adapters import queue_shared
from ourvidz.adapters.queue_shared import Bounds, SharedQueues
from ourvidz.ports import Claimed, JobSource, QueueFull, QueueRefused, QueueUnavailable

pytestmark = [pytest.mark.anyio, pytest.mark.slow, pytest.mark.usefixtures("quick_retries")]


LONG = 20.0


@pytest.fixture
async def world(redis: RedisProcess) -> AsyncIterator[SharedWorld]:
    async with shared(redis, native(redis)) as world:
        yield world


async def refuse(source: JobSource, raw: bytes) -> None:
    await source.push(LEFT, raw)
    await source.dead_letter((await claim(source)).claim_id, "why")


async def test_a_start_lets_go_of_nothing_that_others_hold(world: SharedWorld) -> None:
    other = await world.worker("another")
    for element in (b"a", b"b", b"c"):
        await world.source.push(LEFT, element)
    mine, theirs = await claim(world.source), await claim(other)
    source = await world.reopen()
    assert await source.recover() == 1
    other = await world.worker("another")
    assert await other.renew([theirs.claim_id, mine.claim_id], LEASE) == {mine.claim_id}
    assert (await claim(other)).raw == b"a"


async def test_a_dead_workers_elements_come_back_to_others(world: SharedWorld) -> None:
    other = await world.worker("another")
    await world.source.push(RIGHT, b"a")
    held = await claim(world.source, RIGHT)
    await world.source.count_attempt(held.claim_id)
    world.advance(LEASE + 1)
    assert await other.reap() == 1
    assert await world.source.reap() == 0
    assert (await claim(other, RIGHT)).attempts == 1
    assert await world.source.count_attempt(held.claim_id) == 0


async def test_what_comes_back_is_handed_back_to_its_own_queue(world: SharedWorld) -> None:
    """Also where another process had claimed it."""
    await world.source.push(OTHER, b"a")
    held = await claim(world.source, OTHER)
    other = await world.worker("another")
    await other.hand_back(held.claim_id)
    assert (await claim(other, OTHER)).raw == b"a"


async def test_attempts_belong_to_one_of_equal_elements(world: SharedWorld) -> None:
    source = world.source
    for _ in range(3):
        await source.push(LEFT, b"same")
    claims = [await claim(source) for _ in range(3)]
    for held, attempts in zip(claims, (0, 2, 1), strict=True):
        for _ in range(attempts):
            await source.count_attempt(held.claim_id)
    world.advance(LEASE + 1)
    await source.reap()
    claims = [await claim(source) for _ in range(3)]
    assert [c.attempts for c in claims] == [0, 2, 1]
    assert await source.claim(LEFT, "none", LEASE) is None
    assert world.redis.client.keys("ourvidz:attempts:*") == []


async def test_attempts_of_what_somebody_else_took_are_forgotten(world: SharedWorld) -> None:
    await world.source.push(LEFT, b"a")
    await world.source.count_attempt((await claim(world.source)).claim_id)
    world.advance(LEASE + 1)
    await world.source.reap()
    assert world.redis.client.rpop(LEFT) == b"a", "an old worker pops"
    assert await world.source.claim(LEFT, "none", LEASE) is None
    await world.source.push(LEFT, b"a")
    assert (await claim(world.source)).attempts == 0


@pytest.mark.parametrize(
    "bounds", [Bounds(dead_letters=3), Bounds(dead_letters_bytes=600)], ids=["number", "bytes"]
)
async def test_the_oldest_dead_letters_go(redis: RedisProcess, bounds: Bounds) -> None:
    async with shared(redis, native(redis), bounds) as world:
        for number in range(6):
            await refuse(world.source, str(number).encode() * 100)
        left = [raw[:1] for _, raw, _ in await world.dead_letters()]
        assert left == [b"3", b"4", b"5"]
        await refuse(world.source, b"6" * 1000)
        left = [raw[:1] for _, raw, _ in await world.dead_letters()]
        assert left == ([b"4", b"5", b"6"] if bounds.dead_letters == 3 else [b"6"])


async def test_a_full_queue_says_so(redis: RedisProcess) -> None:
    async with shared(redis, native(redis), Bounds(elements=3)) as world:
        for element in (b"a", b"b", b"c"):
            await world.source.push(LEFT, element)
        held = await claim(world.source)
        with pytest.raises(QueueFull, match="left_queue holds 3"):
            await world.source.push(LEFT, b"d")
        await world.source.push(OTHER, b"beside")
        await world.source.acknowledge(held.claim_id)
        await world.source.push(LEFT, b"d")


async def test_nothing_grows_that_nobody_needs(world: SharedWorld) -> None:
    for _ in range(3):
        await world.source.push(LEFT, b"a")
    held = [await claim(world.source) for _ in range(3)]
    await world.source.acknowledge(held[0].claim_id)
    await world.source.dead_letter(held[1].claim_id, "why")
    await world.source.hand_back(held[2].claim_id)
    await world.source.acknowledge((await claim(world.source)).claim_id)
    assert world.source._queues == {}
    kept = {key for key in world.redis.client.keys("*") if not key.startswith(b"ourvidz:pushed:")}
    assert kept == {b"ourvidz:dead", b"ourvidz:counters"}
    for key in world.redis.client.keys("ourvidz:pushed:*"):
        assert 0 < world.redis.client.ttl(key) <= 600


@pytest.mark.parametrize("key", [CLAIMS, HELD, LEASES, "ourvidz:counters", LEFT])
async def test_a_script_that_breaks_off_loses_nothing(world: SharedWorld, key: str) -> None:
    """Somebody has written something else to a key of ours."""
    if key != LEFT:
        await world.source.push(LEFT, b"a")
    world.redis.client.set(key, "not ours")
    with pytest.raises(QueueRefused, match="WRONGTYPE"):
        await world.source.claim(LEFT, "mine", LEASE)
    world.redis.client.delete(key)
    if key != LEFT:
        assert (await claim(world.source)).raw == b"a"


@pytest.mark.parametrize("verb", ["hand back", "reap", "dead letter"])
async def test_what_cannot_come_back_stays_held(world: SharedWorld, verb: str) -> None:
    await world.source.push(LEFT, b"a")
    held = await claim(world.source)
    key = "ourvidz:dead" if verb == "dead letter" else LEFT
    world.redis.client.set(key, "not ours")
    if verb == "hand back":
        call: Awaitable[Any] = world.source.hand_back(held.claim_id)
    elif verb == "dead letter":
        call = world.source.dead_letter(held.claim_id, "why")
    else:
        world.advance(LEASE + 1)
        call = world.source.reap()
    with pytest.raises(QueueRefused, match="WRONGTYPE"):
        await call
    world.redis.client.delete(key)
    assert await world.source.renew([held.claim_id], LEASE) == frozenset()
    await world.source.hand_back(held.claim_id)
    assert (await claim(world.source)).raw == b"a"


@pytest.mark.parametrize(
    ("why", "owner", "queue"),
    [
        ("expired", "this-worker", LEFT),
        ("owned", "another", LEFT),
        ("back", "this-worker", OTHER),
    ],
)
async def test_what_has_changed_since_it_was_found_stays(
    world: SharedWorld, why: str, owner: str, queue: str
) -> None:
    """It was renewed meanwhile, is another's, or was claimed from another queue."""
    await world.source.push(LEFT, b"a")
    held = await claim(world.source)
    worker = await world.worker(owner)
    found = [held.claim_id.encode(), b"1", queue.encode()]
    assert await worker._put_back(found, why) == 0
    assert await world.source.renew([held.claim_id], LEASE) == frozenset()


async def test_a_lease_without_its_claim_is_dropped(world: SharedWorld) -> None:
    world.redis.client.zadd(LEASES, {"nobody's": 1})
    assert await world.source.reap() == 0
    assert world.redis.client.exists(LEASES) == 0


async def test_thousands_of_expired_leases_are_put_back_in_order(
    world: SharedWorld, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(queue_shared, "_EXPIRED_MAX", 50)
    numbers = [str(number).encode() for number in range(120)]
    for number in numbers:
        await world.source.push(LEFT, number)
        await claim(world.source)
    world.advance(LEASE + 1)
    assert await world.source.reap() == 120
    assert sorted(world.redis.client.lrange(LEFT, 0, -1), key=int) == numbers


Act = Callable[[SharedQueues, str], Any]


async def lost(
    redis: RedisProcess, act: Act, counted: int = 0
) -> tuple[Any, SharedWorld, UpstashFront]:
    """Let one request be executed three times, as its first two replies are lost."""
    async with upstash(redis, streaming=False) as world:
        await world.source.push(LEFT, b"a")
        held = await claim(world.source)
        for _ in range(counted):
            await world.source.count_attempt(held.claim_id)
        for _ in range(2):
            world.front.faults.append(Fault(execute=True))
        result = await act(world.source, held.claim_id)
        assert not world.front.faults
        return result, world, world.front


async def test_a_push_whose_reply_is_lost_happens_once(redis: RedisProcess) -> None:
    await lost(redis, lambda source, _: source.push(LEFT, b"b"))
    assert redis.client.lrange(LEFT, 0, -1) == [b"b"]


async def test_a_count_whose_reply_is_lost_counts_once(redis: RedisProcess) -> None:
    attempts, _, _ = await lost(redis, lambda source, held: source.count_attempt(held), counted=1)
    assert attempts == 2


async def test_a_hand_back_whose_reply_is_lost_happens_once(redis: RedisProcess) -> None:
    await lost(redis, lambda source, held: source.hand_back(held), counted=1)
    assert redis.client.lrange(LEFT, 0, -1) == [b"a"]
    assert redis.client.hlen("ourvidz:attempts:left_queue") == 0


async def test_a_dead_letter_whose_reply_is_lost_is_one(redis: RedisProcess) -> None:
    await lost(redis, lambda source, held: source.dead_letter(held, "why"))
    assert redis.client.llen("ourvidz:dead") == 1


async def test_other_replies_may_be_lost_too(redis: RedisProcess) -> None:
    assert (await lost(redis, lambda source, held: source.renew([held], LEASE)))[0] == frozenset()
    await lost(redis, lambda source, held: source.acknowledge(held))
    assert redis.client.keys("ourvidz:held") == []

    async def recover(source: SharedQueues, _: str) -> int:
        return await source.recover()

    await lost(redis, recover)
    assert redis.client.lrange(LEFT, 0, -1) == [b"a"]


async def test_a_claim_whose_reply_is_lost_is_asked_for_again(redis: RedisProcess) -> None:
    async with upstash(redis, streaming=False) as world:
        for element in (b"a", b"b"):
            await world.source.push(LEFT, element)
        for _ in range(2):
            world.front.faults.append(Fault(execute=True))
            with pytest.raises(QueueUnavailable):
                await world.source.claim(LEFT, "mine", LEASE)
        claimed = await world.source.claim(LEFT, "mine", LEASE)
        assert claimed == Claimed(LEFT, "mine", b"a", 0)
        assert redis.client.lrange(LEFT, 0, -1) == [b"b"]


async def test_a_native_server_that_is_full_loses_nothing(redis: RedisProcess) -> None:
    async with shared(redis, native(redis)) as world:
        await world.source.push(LEFT, b"a" * 1000)
        redis.client.config_set("maxmemory", "1")
        try:
            with pytest.raises(QueueUnavailable, match="OOM"):
                await world.source.push(LEFT, b"b")
            held = await claim(world.source)
            assert held.raw == b"a" * 1000
        finally:
            redis.client.config_set("maxmemory", "0")
        await world.source.hand_back(held.claim_id)
        assert redis.client.llen(LEFT) == 1


async def test_a_wait_tells_whether_it_was_in_vain(world: SharedWorld) -> None:
    assert await world.source.wait(LEFT, 0.01) is False
    await world.source.push(LEFT, b"a")
    assert await world.source.wait(LEFT, LONG) is True
    assert world.source.snapshot() == {
        "kind": "redis",
        "wake": "blocking",
        "commands_per_minute": 3,
    }


@pytest.mark.parametrize("queue", [LEFT, RIGHT])
@pytest.mark.parametrize("kind", ["redis", "upstash"])
async def test_an_element_that_no_reply_can_carry_is_set_aside(
    redis: RedisProcess, monkeypatch: pytest.MonkeyPatch, kind: str, queue: str
) -> None:
    monkeypatch.setattr(queue_shared, "_ELEMENT_BYTES_MAX", 10_000)
    opened: Any = shared(redis, native(redis))
    if kind == "upstash":
        opened = upstash(redis, streaming=False)
    async with opened as world:
        large = [bytes([97 + number]) * (10_001 + number) for number in range(2)]
        for element in (*large, b"z" * 10_000):
            redis.client.rpush(queue, element)
        if queue == RIGHT:
            redis.client.rpush(queue, *large)
        with structlog.testing.capture_logs() as logs:
            claimed = await claim(world.source, queue)
        assert claimed.raw == b"z" * 10_000
        assert [line["size_bytes"] for line in logs if line["event"] == "element_too_large"] == (
            [10_001, 10_002] if queue == LEFT else [10_002, 10_001]
        )
        letters = await world.source.dead_letters(10)
        assert {letter.size_bytes for letter in letters} == {10_001, 10_002}
        assert {len(letter.beginning) for letter in letters} == {4096}
        assert all("more than" in letter.reason for letter in letters)


async def test_a_dead_letter_of_somebody_else_is_shown(redis: RedisProcess) -> None:
    async with shared(redis, native(redis)) as world:
        await refuse(world.source, b"ours")
        redis.client.rpush("ourvidz:dead", b"theirs", b"{}\nx")
        letters = await world.source.dead_letters(10)
        assert [letter.beginning for letter in letters] == [b"{}\nx", b"theirs", b"ours"]
        assert [letter.queue for letter in letters] == ["", "", LEFT]
