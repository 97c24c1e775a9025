"""Two workers whose clocks differ by more than signatures bear: each job still has one end."""

from __future__ import annotations

import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import anyio
import pytest
from support.house import LIMIT_SECONDS, House, OpenHouse, job_id, payload
from support.queues import shared_server
from support.raw_http import raw_http
from support.rclone import Rclone, rclone
from support.redis_process import RedisProcess
from support.stage import SteppedDevice
from support.turns import turns
from support.url_signer import UrlSigner

from ourvidz.adapters.receiver import Receiver

pytestmark = [pytest.mark.anyio, pytest.mark.slow]

SKEW_SECONDS = 400.0


class Skewed:
    """``ports.Clock`` that is wrong."""

    def __init__(self, seconds: float) -> None:
        self._seconds = seconds

    def monotonic(self) -> float:
        return time.monotonic()

    def wall(self) -> float:
        return time.time() + self._seconds


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Rclone]:
    with rclone(tmp_path_factory.mktemp("rclone")) as running:
        yield running


async def one_end(house: House, receiver: Receiver, name: str) -> None:
    assert (await house.ended(name))["status"] == "completed"
    ends = house.terminal(job_id(name))
    assert [end.signature_valid for end in ends][-1] is True
    assert len({end.headers["webhook-id"] for end in ends}) == 1
    assert len({end.raw for end in ends}) == 1


async def test_two_workers_whose_clocks_differ(
    open_house: OpenHouse,
    receiver: Receiver,
    redis: RedisProcess,
    server: Rclone,
    tmp_path: Path,
) -> None:
    redis.empty()
    devices = SteppedDevice(), SteppedDevice()
    holds = [[device.hold(name, "denoise") for name in ("a", "b")] for device in devices]
    async with raw_http(UrlSigner(server.url).answer) as signer:
        flags: dict[str, Any] = {
            "queues": shared_server("redis", redis),
            "queues.sdxl_queue.claims_max": 1,
            "store.kind": "presigned",
            "store.presign_url": f"{signer}/functions/v1/presign",
        }
        ahead = open_house(devices[0], root=tmp_path / "0", clock=Skewed(SKEW_SECONDS), **flags)
        behind = open_house(devices[1], root=tmp_path / "1", clock=Skewed(-SKEW_SECONDS), **flags)
        async with ahead as one, behind as other:
            for name in ("a", "b"):
                await one.push("sdxl_queue", payload(name))
            with anyio.fail_after(LIMIT_SECONDS):
                while not all(any(hold.is_reached for hold in each) for each in holds):
                    await turns()
            assert (await one.service.source.reap(), await other.service.source.reap()) == (0, 0)
            for hold in (*holds[0], *holds[1]):
                hold.release()
            for name in ("a", "b"):
                await one_end(one, receiver, name)
            await one.quiet()
            await other.quiet()
            assert one.starts("a") + other.starts("a") == 3


@pytest.mark.parametrize("seconds", [SKEW_SECONDS, -SKEW_SECONDS])
async def test_a_worker_takes_over_from_one_whose_clock_differs(
    open_house: OpenHouse, receiver: Receiver, redis: RedisProcess, tmp_path: Path, seconds: float
) -> None:
    redis.empty()
    device = SteppedDevice()
    hold = device.hold("a", "denoise")
    queues = shared_server("redis", redis)
    async with open_house(
        device, root=tmp_path / "0", clock=Skewed(seconds), queues=queues
    ) as house:
        await house.push("sdxl_queue", payload("a"))
        await hold.reached()
        house.kill()
    async with open_house(root=tmp_path / "1", clock=Skewed(-seconds), queues=queues) as house:
        assert await house.service.source.reap() == 0, "its lease holds"
        redis.advance(house.service.settings.intake.lease_seconds + 1)
        assert await house.service.source.reap() == 1
        await one_end(house, receiver, "a")
        await house.quiet()
