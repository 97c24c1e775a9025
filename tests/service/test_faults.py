"""Whatever goes wrong between the service and its servers, each job has exactly one end."""

from __future__ import annotations

from collections.abc import AsyncIterator, Iterator, Mapping

import pytest
from support.fault_proxy import Delay, Drip, Fault, LoseReply, Reset, Silence, Status, Truncate
from support.house import OpenHouse, job_id
from support.rclone import Rclone, rclone
from support.redis_process import RedisProcess
from support.roads import KINDS, Lives, Roads, redis_and_s3, upstash_and_presigned

from ourvidz.adapters import device_fake
from ourvidz.adapters.receiver import Receiver

pytestmark = [
    pytest.mark.anyio,
    pytest.mark.slow,
    pytest.mark.usefixtures("quick_retries"),
]

SET_UPS = {"redis": redis_and_s3, "upstash": upstash_and_presigned}


@pytest.fixture(autouse=True)
def large_pictures(monkeypatch: pytest.MonkeyPatch) -> None:
    """So large that they go to S3 in parts."""
    monkeypatch.setattr(device_fake, "_SIDE_MAX", 1400)


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Rclone]:
    with rclone(tmp_path_factory.mktemp("rclone")) as running:
        yield running


@pytest.fixture(params=SET_UPS)
async def roads(
    request: pytest.FixtureRequest, redis: RedisProcess, server: Rclone, receiver: Receiver
) -> AsyncIterator[Roads]:
    async with SET_UPS[request.param](redis, server, receiver) as roads:
        yield roads


def each_kind() -> list[tuple[str, str, str]]:
    return [
        (name, place, kind)
        for name, places in KINDS.items()
        for place, kinds in places.items()
        for kind in sorted(kinds)
    ]


async def test_no_kind_of_request_is_left_out(open_house: OpenHouse, roads: Roads) -> None:
    await Lives(open_house, roads).run()
    asked = {place: proxy.kinds for place, proxy in roads.proxies.items()}
    assert asked == KINDS[roads.name]


@pytest.mark.parametrize(("roads", "place", "kind"), each_kind(), indirect=["roads"])
async def test_the_reply_to_each_kind_of_request_is_lost(
    open_house: OpenHouse, roads: Roads, place: str, kind: str
) -> None:
    rules = [roads.plan(place, LoseReply(), kind), roads.plan(place, LoseReply(), kind, after=2)]
    await Lives(open_house, roads).run()
    assert rules[0].hit == [kind]


FAULTS: Mapping[str, Fault] = {
    "latency": Delay(0.02),
    "reset": Reset(),
    "half open": Silence(),
    "half open after it was executed": Silence(executed=True),
    "truncated": Truncate(),
    "drips": Drip(),
    "drips and stops": Drip(endless=True),
    "503": Status(503),
    "503 after it was executed": Status(503, executed=True),
    "429": Status(429, headers={"Retry-After": "0"}),
    "200 with HTML": Status(200),
}
# More requests than one job makes of a server.
MOST = 40
# What tells a connection that is silent from one that is slow.
PATIENCE = {
    "queue_server.timeout_seconds": 0.5,
    "store.timeout_seconds": 0.5,
    "callback.timeout_seconds": 0.5,
}


def can_meet(fault: Fault, name: str, place: str) -> bool:
    """A server that speaks no HTTP answers no status; a page in place of an answer tells nothing
    where a 2xx says all: a callback's, and that of a store without an ETag."""
    if not isinstance(fault, Status):
        return True
    if fault.status == 200 and place not in ("queues", "signer"):
        return False
    return (name, place) != ("redis", "queues")


@pytest.mark.parametrize("fault", FAULTS)
async def test_each_kind_of_request_meets_each_fault(
    open_house: OpenHouse, roads: Roads, fault: str
) -> None:
    rules = [
        roads.plan(place, FAULTS[fault], kind)
        for name, place, kind in each_kind()
        if name == roads.name and can_meet(FAULTS[fault], name, place)
    ]
    await Lives(open_house, roads).run(**PATIENCE)
    assert [rule.kind for rule in rules if not rule.hit] == []


@pytest.mark.parametrize("fault", ["reset", "503", "lost replies"])
async def test_a_storm_passes(open_house: OpenHouse, roads: Roads, fault: str) -> None:
    """Every request to every server, many times over, and by then in the middle of everything."""
    planted = {**FAULTS, "lost replies": LoseReply()}[fault]
    for place in roads.proxies:
        if can_meet(planted, roads.name, place):
            for before in (0, 10, 40):
                roads.plan(place, planted, after=before, times=15)
    await Lives(open_house, roads).run()


async def test_an_upload_that_cannot_be_called_off_is_left_to_its_store(
    open_house: OpenHouse, redis: RedisProcess, server: Rclone, receiver: Receiver
) -> None:
    async with redis_and_s3(redis, server, receiver) as roads:
        roads.plan("store", Status(500), "PUT part")
        called_off = roads.plan("store", LoseReply(), "DELETE abort")
        await Lives(open_house, roads).run()
        assert called_off.hit == ["DELETE abort"]


async def test_the_reply_to_every_request_of_a_job_is_lost_in_turn(
    open_house: OpenHouse, roads: Roads
) -> None:
    flags = {**roads.flags, "intake.poll_seconds": 30.0}
    async with open_house(queues=roads.queues, **flags) as house:
        for place, proxy in roads.proxies.items():
            for number in range(MOST):
                name = f"{place} {number}"
                rule = proxy.plan(LoseReply(), after=number)
                roads.push("sdxl_queue", name)
                assert (await house.ended(name))["status"] == "completed"
                await house.quiet()
                ends = house.terminal(job_id(name))
                assert len({(end.headers["webhook-id"], end.raw) for end in ends}) == 1
                proxy.faults.clear()
                if not rule.hit:
                    break
            assert number > 1, "every request has lost its reply"
            assert number < MOST - 1
        assert await house.dead_letters() == []
