"""A producer pushes a job twice, as the official client does, and two workers find one each."""

from __future__ import annotations

from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from uuid import UUID

import anyio
import orjson
import pytest
from support.house import LIMIT_SECONDS, House, OpenHouse, job_id, payload
from support.queues import shared_server
from support.redis_process import RedisProcess
from support.stage import SteppedDevice
from support.turns import turns

from ourvidz.adapters.receiver import ReceivedCallback
from ourvidz.jobs import JobResult
from ourvidz.service.faults import CANCELLED
from ourvidz.service.service import TooLate

pytestmark = [pytest.mark.anyio, pytest.mark.slow]

QUIET = {"callback.progress": False}


@dataclass(frozen=True, slots=True)
class Workers:
    """Both take from one server and store in one folder."""

    open_house: OpenHouse
    redis: RedisProcess
    root: Path

    def push(self, name: str, **fields: Any) -> None:
        self.redis.client.rpush("sdxl_queue", orjson.dumps(payload(name, **fields)))

    @asynccontextmanager
    async def open(self, name: str, device: SteppedDevice | None = None) -> AsyncIterator[House]:
        flags = {**QUIET, "store.dir": str(self.root / "store")}
        queues = shared_server("redis", self.redis)
        async with self.open_house(device, root=self.root / name, queues=queues, **flags) as house:
            yield house

    async def nothing_waits(self) -> None:
        with anyio.fail_after(LIMIT_SECONDS):
            while self.redis.client.llen("sdxl_queue"):
                await turns()

    def files(self, name: str) -> dict[str, bytes]:
        found = (self.root / "store").rglob(f"{job_id(name)}/*")
        return {str(path): path.read_bytes() for path in found}


@pytest.fixture
def workers(open_house: OpenHouse, redis: RedisProcess, tmp_path: Path) -> Workers:
    redis.empty()
    return Workers(open_house, redis, tmp_path)


async def let_go(second: House, workers: Workers) -> None:
    await workers.nothing_waits()
    with anyio.fail_after(LIMIT_SECONDS):
        while second.service.roster.busy:
            await turns()


def one_end(house: House, name: str) -> ReceivedCallback:
    (end,) = house.terminal(job_id(name))
    return end


async def test_a_second_element_is_let_go_while_another_worker_has_the_job(
    workers: Workers,
) -> None:
    device = SteppedDevice()
    hold = device.hold("a", "denoise")
    async with workers.open("first", device) as first:
        workers.push("a")
        await hold.reached()
        first.service.intake.stop()
        async with workers.open("second") as second:
            workers.push("a")
            await let_go(second, workers)
            assert second.starts("a") == 0
            assert await second.job("a") is None
            hold.release()
            assert (await first.ended("a"))["status"] == "completed"
            await first.quiet()
            one_end(first, "a")
            assert await first.dead_letters() == []


async def test_a_second_element_is_let_go_when_the_job_has_ended(workers: Workers) -> None:
    async with workers.open("first") as first:
        workers.push("a")
        await first.ended("a")
        await first.quiet()
    async with workers.open("second") as second:
        workers.push("a")
        workers.push("b")
        assert (await second.ended("b"))["status"] == "completed"
        await second.quiet()
        assert second.starts("a") == 0
        one_end(second, "a")
        assert await second.dead_letters() == []


async def test_another_body_is_dead_lettered(workers: Workers) -> None:
    async with workers.open("first") as first:
        workers.push("a")
        await first.ended("a")
        await first.quiet()
    async with workers.open("second") as second:
        workers.push("a", prompt="another")
        workers.push("a", steps="many")
        await second.run("b")
        await second.quiet()
        assert one_end(second, "a").status == "completed"
        reasons = ["same id, another body, at another worker"] * 2
        assert await second.dead_letters() == reasons


@pytest.mark.parametrize("spellings", [(str, str), (str.upper, str.lower)], ids=["same", "other"])
async def test_what_is_malformed_is_answered_once(
    workers: Workers, spellings: Sequence[Any]
) -> None:
    for spelling, name in zip(spellings, ("first", "second"), strict=True):
        async with workers.open(name) as house:
            body = payload("bad", steps="many")
            workers.push("bad", **{**body, "id": spelling(body["id"])})
            await house.run(name)
            await house.quiet()
    ids = {end.headers["webhook-id"] for end in house.receiver.callbacks}
    assert len([each for each in ids if each.endswith(".failed")]) == 1
    assert len([c for c in house.receiver.callbacks if c.status == "failed"]) == 1
    assert len(await house.dead_letters()) == 2


async def test_what_nobody_remembers_is_run_again_to_the_same_effect(workers: Workers) -> None:
    ends, files = [], []
    for name in ("first", "second"):
        async with workers.open(name) as house:
            workers.push("a", batch_size=2)
            await house.run(name)
            await house.quiet()
            assert house.starts("a") == 3
            ends.append(house.terminal(job_id("a"))[-1])
            files.append(workers.files("a"))
            workers.redis.client.delete(f"ourvidz:job:{job_id('a')}")
    assert files[0] == files[1]
    assert len(files[0]) == 4
    assert ends[0].headers["webhook-id"] == ends[1].headers["webhook-id"]
    assert ends[0].body["assets"] == ends[1].body["assets"]


@asynccontextmanager
async def submitted(workers: Workers) -> AsyncIterator[House]:
    """A worker to whose API "a" was submitted, and that claims nothing."""
    async with workers.open("first") as first:
        first.service.intake.stop()
        await first.service.submit(payload("a"))
        yield first


async def test_what_is_cancelled_in_its_queue_is_run_by_nobody(workers: Workers) -> None:
    async with submitted(workers) as first:
        await first.service.cancel(job_id("a"))
        assert (await first.ended("a"))["metadata"]["error"]["code"] == "CANCELLED"
    async with workers.open("second") as second:
        await let_go(second, workers)
        await second.quiet()
        assert second.starts("a") == 0
        one_end(second, "a")
        assert await second.dead_letters() == []


@pytest.mark.parametrize("ended", [False, True], ids=["runs", "has ended"])
async def test_what_another_worker_has_is_not_cancelled(workers: Workers, ended: bool) -> None:
    async with submitted(workers) as first:
        device = SteppedDevice()
        hold = device.hold("a", "denoise")
        async with workers.open("second", device) as second:
            await hold.reached()
            if ended:
                hold.release()
                await second.ended("a")
                await second.quiet()
            with pytest.raises(TooLate, match="another worker"):
                await first.service.cancel(job_id("a"))
            assert await first.status("a") == "queued"
            hold.release()
            assert (await second.ended("a"))["status"] == "completed"
            await second.quiet()
            one_end(second, "a")


async def test_a_cancel_that_a_kill_kept_from_the_queue_is_undone(workers: Workers) -> None:
    """Written down, but nobody was told of it; and the job ran elsewhere."""
    async with submitted(workers) as first:
        record = await first.service.journal.get(UUID(job_id("a")))
        assert record is not None
        cancelled = JobResult("cancelled", error=CANCELLED)
        assert await first.service.journal.cancel_queued(record.spec.id, cancelled)
        first.kill()
    async with workers.open("second") as second:
        assert (await second.ended("a"))["status"] == "completed"
        await second.quiet()
    async with workers.open("first") as first:
        await first.quiet()
        one_end(first, "a")
        assert await first.status("a") == "queued"
