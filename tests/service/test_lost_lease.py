"""A lease that is lost, at every stage: nothing more is begun for the job here, and whoever claims
it next, here or elsewhere, goes on with what there is."""

from __future__ import annotations

from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import Any
from uuid import UUID

import anyio
import pytest
import structlog
from support.house import LIMIT_SECONDS, House, OpenHouse, job_id, payload
from support.stage import Hold, StagedStore, SteppedDevice
from support.turns import turns

from ourvidz.adapters.receiver import Answer, Receiver
from ourvidz.jobs import JobState
from ourvidz.service.health import LEASE_LOST
from ourvidz.service.leases import Leases

pytestmark = pytest.mark.anyio

QUIET = {"callback.progress": False}
SLOWLY = {**QUIET, "callback.retry_seconds_min": 600, "callback.retry_seconds_max": 600}
BATCH = {"batch_size": 3, "seed": 9}


@dataclass
class Elsewhere:
    """Another worker takes what this one holds, or gives it back."""

    house: House
    leases: Leases

    async def takes(self, id_: str = "") -> None:
        """The job's claim is not ours any more, and this worker has heard of it."""
        held = self.house.service.leases.held()
        (claim_id,) = (claim for claim, job in held.items() if job == (id_ or job_id("a")))
        await self._move(claim_id, "elsewhere")
        await self.hears()

    async def hears(self) -> None:
        """As the renewal does that finds out."""
        source = self.house.source
        lost = await source.renew(list(self.house.service.leases.held()), 60)
        assert len(lost) == 1
        for claim_id in lost:
            await self.leases._let_go(claim_id)

    async def gives_back(self) -> None:
        await self.house.source.hand_back("elsewhere")

    async def _move(self, claim_id: str, new: str) -> None:
        def operation(connection: Any) -> None:
            update = "UPDATE queue_items SET claim_id = ? WHERE claim_id = ?"
            assert connection.execute(update, (new, claim_id)).rowcount == 1

        await self.house._database(operation)


@asynccontextmanager
async def house_of(
    open_house: OpenHouse, device: SteppedDevice | None = None, **flags: Any
) -> AsyncIterator[tuple[House, Elsewhere, StagedStore]]:
    async with open_house(device, **{**QUIET, **flags}) as house:
        store = StagedStore(house.root / "store")
        house.service.delivery.uploads.store = store
        yield house, Elsewhere(house, house.service.leases), store


async def let_go(house: House, state: JobState = JobState.QUEUED) -> None:
    """Return once nobody here holds the job; and it is as it should be then."""
    with anyio.fail_after(LIMIT_SECONDS):
        while house.service.roster.busy or house.service.delivery.pending:
            await turns()
    assert await house.state("a") is state
    assert house.service.leases.held() == {}
    assert house.service.delivery.uploads._begun == {}
    assert await house.elements() == 1, "its element is another's affair"


def held_back(house: House, call: str, hold: Hold) -> None:
    """The journal does what is asked of it once ``hold`` is released."""
    usual = getattr(house.service.journal, call)

    async def slowly(*args: Any, **options: Any) -> None:
        await hold.wait()
        await usual(*args, **options)

    setattr(house.service.journal, call, slowly)


async def comes_again(house: House, elsewhere: Elsewhere, indices: Sequence[int] = (0,)) -> None:
    await elsewhere.gives_back()
    body = await house.ended("a")
    await house.quiet()
    assert body["status"] == "completed"
    assert [a["metadata"]["asset_index"] for a in body["assets"]] == list(indices)
    assert len(house.terminal(job_id("a"))) == 1
    assert await house.dead_letters() == []


async def test_while_it_is_prepared(open_house: OpenHouse) -> None:
    hold = Hold()
    async with house_of(open_house) as (house, elsewhere, store):
        parts = house.service.intake.flow.parts
        admission = parts.admission

        async def admit(_: Any) -> None:
            await hold.wait()

        policy = type("A", (), {"admit": staticmethod(admit)})()
        object.__setattr__(parts, "admission", policy)
        await house.push("sdxl_queue", payload("a"))
        await hold.reached()
        await elsewhere.takes()
        await let_go(house)
        assert (house.starts("a"), store.puts, await house.attempts()) == (0, [], [0])
        object.__setattr__(parts, "admission", admission)
        await comes_again(house, elsewhere)


async def test_while_it_waits(open_house: OpenHouse) -> None:
    device = SteppedDevice()
    hold = device.hold("first", "denoise")
    async with house_of(open_house, device) as (house, elsewhere, _):
        await house.push("sdxl_queue", payload("first"))
        await hold.reached()
        await house.push("sdxl_queue", payload("a"))
        await house.reached("a", "queued")
        with anyio.fail_after(LIMIT_SECONDS):
            while await house.state("a") is not JobState.WAITING:
                await turns()
        await elsewhere.takes()
        with anyio.fail_after(LIMIT_SECONDS):
            while await house.state("a") is not JobState.QUEUED:
                await turns()
        hold.release()
        await house.ended("first")
        assert house.starts("a") == 0
        await comes_again(house, elsewhere)


async def test_before_it_runs(open_house: OpenHouse) -> None:
    """The queue knows its claim no more when its first run is to be counted."""
    device = SteppedDevice()
    hold = device.hold("first", "denoise")
    async with house_of(open_house, device) as (house, elsewhere, _):
        await house.push("sdxl_queue", payload("first"))
        await hold.reached()
        await house.push("sdxl_queue", payload("a"))
        await house.reached("a", "queued")
        held = house.service.leases.held()
        (claim_id,) = (claim for claim, job in held.items() if job == job_id("a"))
        await elsewhere._move(claim_id, "elsewhere")
        with structlog.testing.capture_logs() as logs:
            hold.release()
            await house.ended("first")
            await let_go(house)
        assert "lease_lost" in {line["event"] for line in logs}
        assert "command_broke" not in {line["event"] for line in logs}, "it is no defect"
        assert device.order.count(job_id("a")) == 0
        assert house.service.health()["alarms"] == ["lease_lost"]
        await comes_again(house, elsewhere)


@pytest.mark.parametrize(("phase", "step"), [("encode", 0), ("denoise", 2)])
async def test_while_it_runs(open_house: OpenHouse, phase: str, step: int) -> None:
    device = SteppedDevice()
    hold = device.hold("a", phase, step)
    async with house_of(open_house, device) as (house, elsewhere, store):
        await house.push("sdxl_queue", payload("a", **BATCH))
        await hold.reached()
        await elsewhere.takes()
        await let_go(house)
        assert (store.puts, house.receiver.callbacks) == ([], ())
        hold.release()
        await comes_again(house, elsewhere, range(3))


async def test_what_is_rendered_by_then_is_not_made_again(open_house: OpenHouse) -> None:
    device = SteppedDevice()
    last = device.hold("a", "decode", 2)
    async with house_of(open_house, device) as (house, elsewhere, store):
        upload = Hold()
        store.before_put = lambda _: upload.wait()
        await house.push("sdxl_queue", payload("a", **BATCH))
        await last.reached()
        await upload.reached()
        with anyio.fail_after(LIMIT_SECONDS):
            while len(await house.service.journal.assets(UUID(job_id("a")))) < 2:
                await turns()
        await elsewhere.takes()
        await let_go(house)
        upload.release()
        await turns()
        assert store.puts == [], "what was under way is called off"
        store.before_put = None
        last.release()
        device.order.clear()
        await comes_again(house, elsewhere, range(3))
        assert len(device.order) == 3
        assert sorted(store.puts) == sorted(set(store.puts))


async def test_while_its_end_is_written_down(open_house: OpenHouse) -> None:
    """It is decided that it is rendered; it is not delivered all the same."""
    hold = Hold()
    async with house_of(open_house) as (house, elsewhere, store):
        store.before_put = lambda _: anyio.sleep_forever()
        held_back(house, "finish", hold)
        await house.push("sdxl_queue", payload("a"))
        await hold.reached()
        await elsewhere.takes()
        hold.release()
        await let_go(house)
        assert (store.puts, house.receiver.callbacks) == ([], ())
        store.before_put = None
        await comes_again(house, elsewhere)
        assert house.starts("a") == 3


async def test_while_its_files_are_stored(open_house: OpenHouse) -> None:
    hold = Hold()
    async with house_of(open_house) as (house, elsewhere, store):

        async def second(key: str) -> None:
            if not key.endswith("0.png"):
                await hold.wait()

        store.before_put = second
        await house.push("sdxl_queue", payload("a", batch_size=2))
        await hold.reached()
        await house.rendered("a")
        with anyio.fail_after(LIMIT_SECONDS):
            while not store.puts:
                await turns()
        await elsewhere.takes()
        await let_go(house)
        hold.release()
        await turns()
        assert [key.rpartition("/")[2] for key in store.puts] == ["0.png"]
        assert house.receiver.callbacks == ()
        assert house.service.health()["alarms"] == []
        await comes_again(house, elsewhere, range(2))
        assert house.starts("a") == 3, "nothing is made again"


async def test_while_its_callback_is_tried_again(open_house: OpenHouse, receiver: Receiver) -> None:
    receiver.reset([Answer(503)])
    async with house_of(open_house, **SLOWLY) as (house, elsewhere, store):
        await house.push("sdxl_queue", payload("a"))
        with anyio.fail_after(LIMIT_SECONDS):
            await receiver.until(lambda seen: len(seen) == 1)
        await house.barrier()
        await elsewhere.takes()
        await let_go(house, JobState.COMPLETED)
        assert len(receiver.callbacks) == 1
        stored = len(store.puts)
        await elsewhere.gives_back()
        with anyio.fail_after(LIMIT_SECONDS):
            await receiver.until(lambda seen: len(seen) == 2)
        await house.quiet()
        first, again = house.terminal(job_id("a"))
        assert (first.raw, first.headers["webhook-id"]) == (again.raw, again.headers["webhook-id"])
        assert (house.starts("a"), len(store.puts)) == (3, stored)


@pytest.mark.parametrize("id_", [job_id("bad"), "../no UUID"])
async def test_a_refused_payload_is_answered_by_the_next_claim(
    open_house: OpenHouse, receiver: Receiver, id_: str
) -> None:
    receiver.reset([Answer(503)])
    async with house_of(open_house, **SLOWLY) as (house, elsewhere, _):
        await house.push("sdxl_queue", payload("a", id=id_, steps=9999))
        with anyio.fail_after(LIMIT_SECONDS):
            await receiver.until(lambda seen: len(seen) == 1)
        await house.barrier()
        await elsewhere.takes(id_)
        with anyio.fail_after(LIMIT_SECONDS):
            while house.service.delivery.pending:
                await turns()
        assert (len(receiver.callbacks), await house.dead_letters()) == (1, [])
        await elsewhere.gives_back()
        with anyio.fail_after(LIMIT_SECONDS):
            await receiver.until(lambda seen: len(seen) == 2)
        await house.quiet()
        first, again = house.terminal(id_)
        assert (first.raw, first.headers["webhook-id"]) == (again.raw, again.headers["webhook-id"])
        assert len(await house.dead_letters()) == 1


async def test_a_failed_job_is_answered_by_the_next_claim(open_house: OpenHouse) -> None:
    """It is decided that it fails: that stands, and is not said without a lease."""
    hold, device = Hold(), SteppedDevice()
    device.fail("a", "denoise", 1, RuntimeError("planted"))
    async with house_of(open_house, device) as (house, elsewhere, _):
        held_back(house, "finish", hold)
        await house.push("sdxl_queue", payload("a"))
        await hold.reached()
        await elsewhere.takes()
        hold.release()
        await let_go(house, JobState.FAILED)
        assert house.receiver.callbacks == ()
        await elsewhere.gives_back()
        assert (await house.ended("a"))["status"] == "failed"
        await house.quiet()
        assert len(house.terminal(job_id("a"))) == 1


async def test_while_it_is_acknowledged(open_house: OpenHouse) -> None:
    """All is said and done but for the element, which is dropped when it comes again."""
    hold = Hold()
    async with house_of(open_house) as (house, elsewhere, _):
        acknowledge = house.source.acknowledge

        async def too_late(claim_id: str) -> None:
            house.source.acknowledge = acknowledge  # type: ignore[method-assign]
            await elsewhere._move(claim_id, "elsewhere")
            await hold.wait()
            await acknowledge(claim_id)

        house.source.acknowledge = too_late  # type: ignore[method-assign]
        await house.push("sdxl_queue", payload("a"))
        await hold.reached()
        hold.release()
        await let_go(house, JobState.COMPLETED)
        await elsewhere.gives_back()
        await house.quiet()
        assert len(house.terminal(job_id("a"))) == 1
        assert house.starts("a") == 3


@pytest.mark.parametrize("stage", ["run", "upload"])
async def test_its_element_comes_again_before_it_is_let_go(
    open_house: OpenHouse, stage: str
) -> None:
    """The newer claim is given back, for the job to be begun by a claim that is whole."""
    hold, device = Hold(), SteppedDevice()
    step = device.hold("a", "denoise", 1)
    async with house_of(open_house, device) as (house, elsewhere, store):
        held_back(house, "requeue", hold)
        if stage == "upload":
            step.release()
            store.before_put = lambda _: anyio.sleep_forever()
        await house.push("sdxl_queue", payload("a"))
        await (house.rendered("a") if stage == "upload" else step.reached())
        await elsewhere.takes()
        await hold.reached()
        store.before_put = None
        await elsewhere.gives_back()
        with anyio.fail_after(LIMIT_SECONDS):
            while not house.service.leases.held().keys() - {"elsewhere"}:
                await turns()
        await house.barrier()
        hold.release()
        step.release()
        assert (await house.ended("a"))["status"] == "completed"
        await house.quiet()
        assert len(house.terminal(job_id("a"))) == 1


@pytest.mark.parametrize("first", ["cancel", "lease"])
async def test_a_cancelled_job_is_still_cancelled_when_it_comes_again(
    open_house: OpenHouse, first: str
) -> None:
    """But it is not this worker that may say so, as long as it has no lease."""
    hold, device = Hold(), SteppedDevice()
    step = device.hold("a", "denoise", 1)
    async with house_of(open_house, device) as (house, elsewhere, _):
        held_back(house, "requeue", hold)
        await house.push("sdxl_queue", payload("a"))
        await step.reached()
        job = house.service.roster.get(UUID(job_id("a")))
        assert job is not None
        if first == "lease":
            job.lose()
        job.ask_stop("api")
        await elsewhere.takes()
        hold.release()
        await let_go(house)
        assert house.receiver.callbacks == ()
        started = house.starts("a")
        await elsewhere.gives_back()
        assert (await house.ended("a"))["status"] == "failed"
        await house.quiet()
        assert await house.status("a") == "cancelled"
        assert house.starts("a") == started


async def test_no_progress_is_reported_any_more(open_house: OpenHouse) -> None:
    device = SteppedDevice()
    hold = device.hold("a", "denoise", 2)
    fast = {"callback.progress": True, "callback.progress_seconds": 0.001}
    async with house_of(open_house, device, **fast) as (house, elsewhere, _):
        await house.push("sdxl_queue", payload("a"))
        await hold.reached()
        with anyio.fail_after(LIMIT_SECONDS):
            await house.receiver.until(lambda seen: len(seen) >= 1)
        job = house.service.roster.get(UUID(job_id("a")))
        assert job is not None
        job.lose()
        told = len(house.receiver.callbacks)
        for _ in range(3):
            job.moved.notify()
            await turns()
        assert len(house.receiver.callbacks) <= told + 1, "one may have been under way"
        await elsewhere.takes()
        await let_go(house)


async def test_the_renewal_finds_out(open_house: OpenHouse) -> None:
    """The embedded queue puts an expired element back itself, and claims it once more."""
    device = SteppedDevice()
    hold = device.hold("a", "denoise", 2)
    async with house_of(open_house, device, **{"intake.renew_seconds": 0.01}) as (house, other, _):
        await house.push("sdxl_queue", payload("a"))
        await hold.reached()
        (claim_id,) = house.service.leases.held()
        await other._move(claim_id, "elsewhere")
        await let_go(house)
        hold.release()
        await comes_again(house, other)


async def test_its_alarm_goes_out_though_nothing_is_held_any_more(open_house: OpenHouse) -> None:
    async with open_house(**QUIET, **{"intake.renew_seconds": 0.01}) as house:
        house.service.alarms.ring(LEASE_LOST)
        with anyio.fail_after(LIMIT_SECONDS):
            while house.service.health()["alarms"]:
                await turns()


async def test_a_recovered_delivery_needs_no_lease(
    open_house: OpenHouse, receiver: Receiver
) -> None:
    """Its element was put back by the start itself; it is not called lost."""
    receiver.reset([Answer(503)])
    async with open_house(**SLOWLY) as house:
        await house.push("sdxl_queue", payload("a"))
        with anyio.fail_after(LIMIT_SECONDS):
            await receiver.until(lambda seen: len(seen) == 1)
        house.kill()
    receiver.reset([Answer(503)])
    async with open_house(**SLOWLY, **{"queues.sdxl_queue.claims_max": 1}) as house:
        house.service.intake.stop()
        with anyio.fail_after(LIMIT_SECONDS):
            await receiver.until(lambda seen: len(seen) == 1)
        assert house.service.delivery.pending == 1
        held = house.service.leases.held()
        assert await house.source.renew(list(held), 60) == frozenset()
        house.kill()


@pytest.mark.parametrize("end", ["completed", "given up", "drained"])
async def test_what_is_let_go_on_purpose_is_not_lost(open_house: OpenHouse, end: str) -> None:
    """A renewal may come while the queue is being told."""
    hold, device = Hold(), SteppedDevice()
    step = device.hold("a", "denoise", 1)
    flags = {"intake.attempts_max": 1, "service.drain_seconds": 0.02}
    async with house_of(open_house, device, **flags) as (house, _, _store):
        for name in ("acknowledge", "dead_letter", "hand_back"):
            usual = getattr(house.source, name)

            async def slowly(*args: Any, usual: Any = usual) -> None:
                await usual(*args)
                await hold.wait()

            setattr(house.source, name, slowly)
        await house.push("sdxl_queue", payload("a"))
        if end == "given up":
            await house._database(lambda c: c.execute("UPDATE queue_items SET attempts = 1"))
        else:
            await step.reached()
        if end == "drained":
            await house.drain()
        else:
            step.release()
        await hold.reached()
        assert house.service.leases.held() == {}
        hold.release()
        if end == "drained":
            await house.drained()
        else:
            await house.quiet()
