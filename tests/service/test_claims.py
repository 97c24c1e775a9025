"""A queue that does not answer holds up what is done to claims; it fails no job and no service."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import anyio
import pytest
from support.house import LIMIT_SECONDS, House, OpenHouse, job_id, payload
from support.stage import Hold, SteppedDevice
from support.turns import turns

from ourvidz.adapters.queue_embedded import EmbeddedQueues
from ourvidz.jobs import JobState
from ourvidz.ports import QueueRefused, QueueUnavailable
from ourvidz.service import service

pytestmark = [pytest.mark.anyio, pytest.mark.usefixtures("quick_retries")]

QUIET = {"callback.progress": False}
AWAY = QueueUnavailable("away")
OFTEN = 5


class Away:
    """One call of the house's queues, which does not answer as long as it is ``away``."""

    def __init__(self, house: House, call: str, error: Exception) -> None:
        self.away, self.asked, self.asked_often = True, 0, anyio.Event()
        self._usual, self._error = getattr(house.source, call), error
        setattr(house.source, call, self._ask)

    async def _ask(self, *args: Any) -> Any:
        self.asked += 1
        if self.asked == OFTEN:
            self.asked_often.set()
        if self.away:
            raise self._error
        return await self._usual(*args)


@asynccontextmanager
async def away(house: House, call: str, error: Exception = AWAY) -> AsyncIterator[None]:
    """The block is left once the call was asked for in vain, again and again."""
    calls = Away(house, call, error)
    yield
    with anyio.fail_after(LIMIT_SECONDS):
        await calls.asked_often.wait()
    name = "queue_refused" if isinstance(error, QueueRefused) else "queue_unavailable"
    assert name in house.service.health()["alarms"]
    calls.away = False


async def well(house: House, *names: str) -> None:
    for name in names:
        assert (await house.ended(name))["status"] == "completed"
    await house.quiet()
    for name in names:
        assert len(house.terminal(job_id(name))) == 1
    assert house.service.health()["alarms"] == []


@pytest.mark.parametrize("error", [AWAY, QueueRefused("401")], ids=repr)
@pytest.mark.parametrize("call", ["count_attempt", "acknowledge"])
async def test_a_job_waits_for_its_queue(
    open_house: OpenHouse, call: str, error: Exception
) -> None:
    async with open_house(**QUIET) as house:
        async with away(house, call, error):
            await house.push("sdxl_queue", payload("a"))
        await well(house, "a")
        assert house.starts("a") == 3


async def test_a_malformed_payload_waits_for_its_queue(open_house: OpenHouse) -> None:
    async with open_house(**QUIET) as house:
        async with away(house, "dead_letter"):
            await house.push("sdxl_queue", payload("bad", steps=9999))
            await house.push("sdxl_queue", b"not JSON")
            assert (await house.run("a"))["status"] == "completed"
        assert (await house.ended("bad"))["status"] == "failed"
        await well(house, "a")
        assert len(await house.dead_letters()) == 2


async def test_a_second_element_waits_for_its_queue(open_house: OpenHouse) -> None:
    async with open_house(**QUIET) as house:
        await house.run("a")
        await house.quiet()
        async with away(house, "acknowledge"):
            await house.push("sdxl_queue", payload("a"))
        await well(house, "a")


async def test_a_cancel_whose_job_another_worker_took_meanwhile_is_asked_about_no_more(
    open_house: OpenHouse,
) -> None:
    async with open_house(**QUIET) as house:
        house.service.intake.stop()
        await house.service.submit(payload("a"))
        calls = Away(house, "mark", AWAY)
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(house.service.cancel, job_id("a"))
            with anyio.fail_after(LIMIT_SECONDS):
                await calls.asked_often.wait()
            house.service.delivery.supersede(job_id("a"), "mine")
            house.service.delivery.lose("mine")
        record = await house.service.cancel(job_id("a"))
        assert record is not None
        assert record.state is JobState.CANCELLED


async def test_a_drain_does_not_wait_for_ever(
    open_house: OpenHouse, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What could not be handed back is its next process's."""
    device = SteppedDevice()
    hold = device.hold("a", "denoise")
    async with open_house(device, **QUIET, **{"service.drain_seconds": 0.01}) as house:
        await house.push("sdxl_queue", payload("a"))
        await hold.reached()
        Away(house, "hand_back", AWAY)
        monkeypatch.setattr("ourvidz.service.service._CANCEL_SECONDS", 0.05)
        house.service.stop()
        await house.drained()
    async with open_house(**QUIET) as house:
        await well(house, "a")


async def test_a_claim_that_is_let_go_is_not_missed(open_house: OpenHouse) -> None:
    """A renewal that is under way meanwhile finds nothing any more."""
    async with open_house(**QUIET, **{"intake.renew_seconds": 0.001}) as house:
        renewing, renew = Hold(), house.source.renew

        async def slow(claim_ids: Any, seconds: float) -> frozenset[str]:
            await renewing.wait()
            return await renew(claim_ids, seconds)

        house.source.renew = slow  # type: ignore[method-assign]
        acknowledging, acknowledge = Hold(), house.source.acknowledge

        async def acknowledged(claim_id: str) -> None:
            await acknowledge(claim_id)
            await acknowledging.wait()

        house.source.acknowledge = acknowledged  # type: ignore[method-assign]
        await house.push("sdxl_queue", payload("a"))
        await renewing.reached()
        await acknowledging.reached()
        renewing.release()
        await turns()
        await house.barrier()
        acknowledging.release()
        await well(house, "a")


async def test_what_a_killed_process_held_is_let_go_once_its_queue_answers(
    open_house: OpenHouse, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Not when its leases run out: this worker's own are its to let go, before it claims anew."""
    device = SteppedDevice()
    hold = device.hold("a", "denoise")
    async with open_house(device, **QUIET) as house:
        await house.push("sdxl_queue", payload("a"))
        await hold.reached()
        house.kill()
    asked, recover = list[str](), EmbeddedQueues.recover

    async def away(self: EmbeddedQueues) -> int:
        asked.append("recover")
        if len(asked) < OFTEN:
            raise AWAY
        return await recover(self)

    monkeypatch.setattr(EmbeddedQueues, "recover", away)
    async with open_house(**QUIET) as house:
        await well(house, "a")
        assert len(asked) == OFTEN


async def test_a_cancel_is_not_confirmed_before_its_queue_answers(
    open_house: OpenHouse, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Another worker might have the job."""
    monkeypatch.setattr(service, "_QUEUE_SECONDS", 0.01)
    async with open_house(**QUIET) as house:
        house.service.intake.stop()
        await house.service.submit(payload("a"))
        async with away(house, "mark"):
            for _ in range(2):
                with pytest.raises(QueueUnavailable, match="another worker"):
                    await house.service.cancel(job_id("a"))
            assert house.terminal(job_id("a")) == []
        assert (await house.ended("a"))["metadata"]["error"]["code"] == "CANCELLED"
        record = await house.service.cancel(job_id("a"))
        assert record is not None
        assert record.state is JobState.CANCELLED
