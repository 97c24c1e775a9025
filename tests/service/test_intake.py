"""Claims go as deep as there is use for them, wake up when there is again, and outlive a queue that
does not answer."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any
from uuid import UUID

import anyio
import pytest
from support.house import House, OpenHouse, job_id, payload
from support.stage import Hold, SteppedDevice

from ourvidz.adapters.clock import SystemClock
from ourvidz.adapters.spool import SpoolRenderer
from ourvidz.jobs import Asset
from ourvidz.ports import Claimed, ImageProduced, Part, QueueRefused

pytestmark = pytest.mark.anyio


def watched_claims(house: House) -> list[tuple[int, int]]:
    """At each claim: credit left, and claims that may still need it, this one included."""
    seen: list[tuple[int, int]] = []
    roster, take = house.service.roster, house.service.roster.take

    def taking(queue: str) -> None:
        take(queue)
        seen.append((house.service.engine.credit(), roster.preparing()))

    roster.take = taking  # type: ignore[method-assign]
    return seen


async def test_never_more_claims_than_credit(open_house: OpenHouse) -> None:
    async with open_house(**{"scheduler.waiting_jobs_max": 2}) as house:
        seen = watched_claims(house)
        most = 0
        names = [f"{kind}{number}" for number in range(8) for kind in "swc"]
        for name in names:
            type_ = {"s": "sdxl_generate", "w": "wan_generate", "c": "enhance_base"}[name[0]]
            queue = {"s": "sdxl_queue", "w": "wan_queue", "c": "chat_queue"}[name[0]]
            await house.push(queue, payload(name, type_))
        room = house.service.room

        async def watch() -> None:
            nonlocal most
            while True:
                changed = room.ticket
                most = max(most, 2 - house.service.engine.credit())
                await changed.wait()

        async with anyio.create_task_group() as tasks:
            tasks.start_soon(watch)
            for name in names:
                assert (await house.ended(name))["status"] == "completed"
            tasks.cancel_scope.cancel()
        await house.quiet()
        assert most == 2, "what there is is used"
        assert [pair for pair in seen if pair[1] > pair[0]] == []


async def test_a_queue_holds_so_many_claims_and_takes_the_next_at_once(
    open_house: OpenHouse,
) -> None:
    device = SteppedDevice()
    hold = device.hold("0", "denoise")
    flags = {"queues.sdxl_queue.claims_max": 2, "intake.poll_seconds": 600}
    async with open_house(device, **flags) as house:
        for number in range(12):
            await house.push("sdxl_queue", payload(str(number)))
        await hold.reached()
        await house.reached("1", "queued")
        await house.barrier()
        assert house.service.roster.held("sdxl_queue") == 2
        assert len(house.service.roster) == 2
        await house.push("chat_queue", payload("c", "enhance_base"))
        await house.reached("c", "queued")
        hold.release()
        for number in range(12):
            await house.ended(str(number))
        await house.quiet()


async def test_what_is_being_written_keeps_no_job_from_the_device(
    open_house: OpenHouse, monkeypatch: pytest.MonkeyPatch
) -> None:
    hold, image = Hold(), SpoolRenderer.image

    async def slow(self: SpoolRenderer, part: Part, produced: ImageProduced) -> Asset:
        if str(part.spec.id) == job_id("a"):
            await hold.wait()
        return await image(self, part, produced)

    monkeypatch.setattr(SpoolRenderer, "image", slow)
    async with open_house(**{"scheduler.waiting_jobs_max": 1}) as house:
        await house.push("sdxl_queue", payload("a"))
        await hold.reached()
        assert (await house.run("b"))["status"] == "completed"
        hold.release()
        assert (await house.ended("a"))["status"] == "completed"
        await house.quiet()


async def test_what_starts_nothing_gives_its_place_back(open_house: OpenHouse) -> None:
    async with open_house(**{"queues.sdxl_queue.claims_max": 1}) as house:
        await house.run("a")
        await house.quiet()
        for element in (payload("a"), payload("a", prompt="another"), b"not JSON", payload("a")):
            await house.push("sdxl_queue", element)
        assert (await house.run("b"))["status"] == "completed"
        await house.quiet()


@pytest.mark.parametrize(("side", "order"), [("left", "abcd"), ("right", "dcba")])
async def test_the_side_that_is_taken_from(open_house: OpenHouse, side: str, order: str) -> None:
    device = SteppedDevice()
    hold = device.hold("first", "encode")
    flags = {"queues.sdxl_queue.claims_max": 1, "queues.sdxl_queue.pop_side": side}
    async with open_house(device, **flags) as house:
        await house.push("sdxl_queue", payload("first"))
        await hold.reached()
        for name in "abcd":
            await house.push("sdxl_queue", payload(name))
        hold.release()
        for name in "abcd":
            await house.ended(name)
        ran = list(dict.fromkeys(device.order))
        assert ran == [job_id("first"), *(job_id(name) for name in order)]


async def test_a_full_queue_keeps_no_other_from_its_turn(open_house: OpenHouse) -> None:
    device = SteppedDevice()
    hold = device.hold("0", "encode")
    async with open_house(device, **{"scheduler.waiting_jobs_max": 1}) as house:
        for number in range(10):
            await house.push("sdxl_queue", payload(str(number)))
        await hold.reached()
        await house.push("wan_queue", payload("w", "wan_generate"))
        await house.push("chat_queue", payload("c", "enhance_base"))
        hold.release()
        for name in ("w", "c", *map(str, range(10))):
            await house.ended(name)
        ran = list(dict.fromkeys(device.order))
        assert max(ran.index(job_id("w")), ran.index(job_id("c"))) <= 5


@pytest.mark.usefixtures("quick_retries")
async def test_a_claim_whose_reply_is_lost_is_asked_for_again(open_house: OpenHouse) -> None:
    async with open_house() as house:
        await house.run("before")
        await house.quiet()
        claim, asked, broken = house.source.claim, list[str](), 3

        async def losing(queue: str, claim_id: str, lease_seconds: float) -> Claimed | None:
            nonlocal broken
            claimed = await claim(queue, claim_id, lease_seconds)
            if claimed is not None and broken:
                broken -= 1
                asked.append(claim_id)
                alarms.append(house.service.health()["alarms"])
                raise ConnectionError("reply lost")
            return claimed

        alarms: list[Sequence[str]] = []
        house.source.claim = losing  # type: ignore[method-assign]
        body = await house.run("a")
        await house.quiet()
        assert body["status"] == "completed"
        assert house.starts("a") == 3
        assert len(asked) == 3
        assert len(set(asked)) == 1, "under the same id"
        assert alarms == [[], ["queue_unavailable"], ["queue_unavailable"]]
        assert house.service.health()["alarms"] == []


@pytest.mark.usefixtures("quick_retries")
async def test_one_queue_that_is_refused_rings_though_others_serve(open_house: OpenHouse) -> None:
    """As a key of another type is on a Redis server."""
    async with open_house() as house:
        claim, wrong = house.source.claim, True

        async def refusing(queue: str, claim_id: str, lease_seconds: float) -> Claimed | None:
            if queue == "wan_queue" and wrong:
                raise QueueRefused("WRONGTYPE")
            return await claim(queue, claim_id, lease_seconds)

        house.source.claim = refusing  # type: ignore[method-assign]
        await house.push("wan_queue", payload("video", "wan_generate"))
        await until_called(house, "claim", 1)
        for name in "abc":
            assert (await house.run(name))["status"] == "completed"
            assert house.service.health()["alarms"] == ["queue_refused"]
        wrong = False
        assert (await house.ended("video"))["status"] == "completed"
        await house.quiet()
        assert house.service.health()["alarms"] == []


async def until_called(house: House, name: str, times: int) -> None:
    """Return once the source's method has been called so often."""
    method, called, calls = getattr(house.source, name), anyio.Event(), 0

    async def counting(*args: Any) -> Any:
        nonlocal calls
        calls += 1
        if calls >= times:
            called.set()
        return await method(*args)

    setattr(house.source, name, counting)
    with anyio.fail_after(20):
        await called.wait()
    setattr(house.source, name, method)


# Renewed and reaped often, by a clock that stands: nobody's lease runs out, however slow this is.
SHORT = {"intake.lease_seconds": 0.05, "intake.renew_seconds": 0.01}


class StandingClock(SystemClock):
    """Its wall clock is moved by hand."""

    def __init__(self) -> None:
        self.time = super().wall()

    def wall(self) -> float:
        return self.time


async def test_leases_are_renewed_while_a_job_is_held(open_house: OpenHouse) -> None:
    device, clock = SteppedDevice(), StandingClock()
    hold = device.hold("a", "denoise")
    async with open_house(device, clock=clock, **SHORT) as house:
        await house.push("sdxl_queue", payload("a"))
        await hold.reached()
        until = "SELECT lease_until FROM queue_items"
        first = await house._database(lambda c: c.execute(until).fetchone()[0])
        clock.time += 0.01
        await until_called(house, "renew", 3)
        assert await house._database(lambda c: c.execute(until).fetchone()[0]) > first
        hold.release()
        await house.ended("a")
        await house.quiet()
        assert house.starts("a") == 3


async def test_a_queue_that_fails_for_a_while_takes_no_loop_down(open_house: OpenHouse) -> None:
    device = SteppedDevice()
    hold = device.hold("a", "denoise")
    async with open_house(device, clock=StandingClock(), **SHORT) as house:
        await house.push("sdxl_queue", payload("a"))
        await hold.reached()
        renew, reap = house.source.renew, house.source.reap

        async def failing(*args: Any) -> Any:
            raise ConnectionError("down")

        house.source.renew = failing  # type: ignore[method-assign]
        await until_called(house, "renew", 3)
        assert house.service.health()["alarms"] == ["queue_unavailable"]
        house.source.renew, house.source.reap = renew, reap  # type: ignore[method-assign]
        await until_called(house, "renew", 2)
        assert house.service.health()["alarms"] == []
        hold.release()
        assert (await house.ended("a"))["status"] == "completed"
        await house.quiet()


async def test_a_lost_lease_rings(open_house: OpenHouse) -> None:
    device = SteppedDevice()
    hold = device.hold("a", "denoise")
    flags = {**SHORT, "queues.sdxl_queue.claims_max": 1}
    async with open_house(device, clock=StandingClock(), **flags) as house:
        await house.push("sdxl_queue", payload("a"))
        await hold.reached()
        job = house.service.roster.get(UUID(job_id("a")))
        assert job is not None
        rung: list[str] = []
        ring = house.service.alarms.ring

        def rings(name: str) -> None:
            rung.append(name)
            ring(name)

        house.service.alarms.ring = rings  # type: ignore[method-assign]
        await house.source.hand_back(job.claimed.claim_id)
        await job.left.wait()
        assert rung == ["lease_lost"]
        await until_called(house, "renew", 2)
        assert rung == ["lease_lost"], "the claim that it is run under now is not lost"
        hold.release()
        assert (await house.ended("a"))["status"] == "completed"
        await house.quiet()


async def test_what_a_dead_worker_held_is_put_back(open_house: OpenHouse) -> None:
    device = SteppedDevice()
    hold = device.hold("a", "denoise")
    flags = {**SHORT, "queues.sdxl_queue.claims_max": 1}
    async with open_house(device, clock=StandingClock(), **flags) as house:
        await house.push("sdxl_queue", payload("a"))
        await hold.reached()
        await house.push("sdxl_queue", payload("b"))
        await house.source.claim("sdxl_queue", "another worker's", -1)
        await until_called(house, "reap", 2)
        hold.release()
        assert (await house.ended("b"))["status"] == "completed"
        await house.quiet()
