"""Callbacks as the backend's edge function takes them: it checks signatures, order and metadata,
and refuses with a reason what it could not store."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import AbstractAsyncContextManager
from typing import Any

import anyio
import httpx
import pytest
from support.edge import Edge, deno_edge
from support.house import LIMIT_SECONDS, SECRET, USER, House, OpenHouse, job_id, payload
from support.stage import SteppedDevice

from ourvidz.adapters.http_answers import plain_client
from ourvidz.adapters.notify_http import HttpNotifier
from ourvidz.adapters.spool import SpoolRenderer
from ourvidz.jobs import Asset
from ourvidz.ports import Delivered, ImageProduced, NotifyRejected, Part, RenderFailed
from scheduler.types import Fault

pytestmark = [pytest.mark.slow, pytest.mark.anyio]

# Each shape with one of the two kinds of service key.
BACKENDS = {"job-callback": "eyJhbGciOi.J9.x", "generation-complete": "sb_secret_x"}


@pytest.fixture(scope="module", params=BACKENDS)
def backend(request: pytest.FixtureRequest, tmp_path_factory: Any) -> Iterator[Edge]:
    with deno_edge(tmp_path_factory.mktemp("deno"), request.param, BACKENDS[request.param]) as edge:
        yield edge


@pytest.fixture
def edge(backend: Edge) -> Iterator[Edge]:
    """Nothing of what is sent in a test may be refused."""
    before = backend.refusals()
    yield backend
    assert backend.refusals() == before


class Against:
    """A house that reports to the edge function."""

    def __init__(self, open_house: OpenHouse, edge: Edge) -> None:
        self._open_house = open_house
        self._edge = edge

    def __call__(self, *args: Any, **flags: Any) -> AbstractAsyncContextManager[House]:
        flags = {"callback.progress": False, "callback.shape": self._edge.shape, **flags}
        return self._open_house(*args, url=self._edge.url, service_key=self._edge.key, **flags)


@pytest.fixture
def open_against(open_house: OpenHouse, edge: Edge) -> Against:
    return Against(open_house, edge)


async def run(
    house: House, edge: Edge, name: str, type_: str = "sdxl_generate", **fields: Any
) -> Any:
    """The job's row at the backend, once everything is delivered."""
    edge.queue(name)
    queues = {"sdxl_generate": "sdxl_queue", "wan_generate": "wan_queue"}
    await house.push(queues.get(type_, "chat_queue"), payload(name, type_, **fields))
    await house.reached(name, "completed", "failed", "cancelled")
    await house.quiet()
    assert house.service.health()["alarms"] == []
    return edge.job(name)


def folder(name: str) -> str:
    return f"{USER}/{job_id(name)}"


async def test_images(open_against: Against, edge: Edge) -> None:
    async with open_against() as house:
        job = await run(house, edge, "a", batch_size=3, seed=7)
    assert job["status"] == "completed"
    assert [a["path"] for a in job["assets"]] == [f"{folder('a')}/{i}.png" for i in range(3)]
    assert [a["seed"] for a in job["assets"]] == [7, 8, 9]
    assert [a["thumbnail"] for a in job["assets"]] == [
        f"{folder('a')}/{i}.thumb.webp" for i in range(3)
    ]
    assert job["metadata"]["original_prompt"] == job["metadata"]["final_prompt"] == "a pear"
    assert job["events"] == [
        {"id": f"{job_id('a')}.completed", "status": "completed", "skipped": False}
    ]


async def test_a_video(open_against: Against, edge: Edge) -> None:
    async with open_against() as house:
        job = await run(house, edge, "v", "wan_generate", frames=17, seed=5)
    (asset,) = job["assets"]
    assert asset["path"] == f"{folder('v')}/0.mp4"
    assert (asset["seed"], asset["durationSeconds"]) == (5, 17 / 16)
    assert job["durationSeconds"] == 2, "17 frames of 16 a second, rounded up"


@pytest.mark.parametrize(
    ("type_", "name"), [("chat", "response"), ("enhance_base", "enhanced_prompt")]
)
async def test_a_text(open_against: Against, edge: Edge, type_: str, name: str) -> None:
    async with open_against() as house:
        job = await run(house, edge, "t", type_)
    assert (job["status"], job["assets"]) == ("completed", [])
    assert job["metadata"][name].startswith("word")


async def test_a_chain(open_against: Against, edge: Edge) -> None:
    async with open_against() as house:
        job = await run(house, edge, "c", enhance="instruct", prompt="a gull", batch_size=2)
    assert len(job["assets"]) == 2
    assert job["metadata"]["original_prompt"] == "a gull"
    assert job["metadata"]["final_prompt"].startswith("word")
    assert len(job["events"]) == 1


async def test_a_batch_with_a_failed_image(
    open_against: Against, edge: Edge, monkeypatch: pytest.MonkeyPatch
) -> None:
    image = SpoolRenderer.image

    async def failing(self: SpoolRenderer, part: Part, produced: ImageProduced) -> Asset:
        if produced.index in (0, 2):
            raise RenderFailed("encoder error -2")
        return await image(self, part, produced)

    monkeypatch.setattr(SpoolRenderer, "image", failing)
    async with open_against() as house:
        job = await run(house, edge, "a", batch_size=4, seed=7)
    assert job["status"] == "completed"
    assert [(a["original"], a["seed"]) for a in job["assets"]] == [(1, 8), (3, 10)]
    assert job["metadata"]["failed_indices"] == [0, 2]


async def test_out_of_memory_comes_with_its_numbers(open_against: Against, edge: Edge) -> None:
    device = SteppedDevice()
    device.fail("a", "denoise", 1, Fault.OUT_OF_MEMORY, Fault.OUT_OF_MEMORY)
    async with open_against(device) as house:
        job = await run(house, edge, "a")
    assert (job["status"], job["error"]["code"]) == ("failed", "OOM_ERROR")
    assert "5100 bytes of weights, 500 to work in, the budget is 51000" in job["error"]["message"]


@pytest.mark.parametrize("fields", [{"steps": 9999}, {"type": None}], ids=str)
async def test_a_malformed_payload_is_answered(
    open_against: Against, edge: Edge, fields: dict[str, Any]
) -> None:
    async with open_against() as house:
        edge.queue("bad")
        await house.push("sdxl_queue", payload("bad", **fields))
        await run(house, edge, "other")
        await house.quiet()
        assert len(await house.dead_letters()) == 1
    job = edge.job("bad")
    assert (job["status"], job["error"]["code"]) == ("failed", "INVALID_PARAMETER")


async def test_cancelled_through_our_own_door(open_against: Against, edge: Edge) -> None:
    device = SteppedDevice()
    hold = device.hold("a", "denoise", 2)
    async with open_against(device) as house:
        edge.queue("a")
        await house.push("sdxl_queue", payload("a"))
        await hold.reached()
        await house.service.cancel(job_id("a"))
        await house.reached("a", "cancelled")
        await house.quiet()
    job = edge.job("a")
    assert (job["status"], job["error"]["code"]) == ("failed", "CANCELLED")


async def test_cancelled_by_the_backend(open_against: Against, edge: Edge) -> None:
    """Only the answer to a report of progress tells the service; it says nothing more."""
    device = SteppedDevice()
    first = device.hold("a", "denoise", 1)
    device.hold("a", "denoise", 3)  # never released: only the answer can end it
    flags = {"callback.progress": True, "callback.progress_seconds": 0.001}
    async with open_against(device, **flags) as house:
        edge.queue("a")
        await house.push("sdxl_queue", payload("a"))
        await first.reached()
        edge.cancel("a")
        first.release()
        await house.reached("a", "cancelled")
        await house.quiet()
        assert house.starts("a") == 2, "it was not decoded"
    job = edge.job("a")
    assert (job["status"], job["assets"]) == ("cancelled", [])
    assert [e["status"] for e in job["events"] if e["skipped"]] == ["processing"]
    assert {e["status"] for e in job["events"]} == {"processing"}


async def test_progress_is_shown(open_against: Against, edge: Edge) -> None:
    device = SteppedDevice()
    hold = device.hold("a", "denoise", 2)
    flags = {"callback.progress": True, "callback.progress_seconds": 0.001}
    told = anyio.Event()
    async with open_against(device, **flags) as house:
        notifier: Any = house.service.delivery.announcer.notifier
        notify = notifier.notify

        async def noting(event_id: str, body: bytes) -> Delivered:
            delivered: Delivered = await notify(event_id, body)
            told.set()
            return delivered

        notifier.notify = noting
        edge.queue("a")
        await house.push("sdxl_queue", payload("a"))
        await hold.reached()
        with anyio.fail_after(LIMIT_SECONDS):
            await told.wait()
        assert edge.job("a")["status"] == "processing"
        hold.release()
        await house.reached("a", "completed")
        await house.quiet()
    job = edge.job("a")
    assert job["status"] == "completed"
    assert job["progress"] == sorted(job["progress"])
    assert len({event["id"] for event in job["events"]}) == len(job["events"])


async def test_a_callback_that_is_repeated_is_stored_once(
    open_against: Against, edge: Edge
) -> None:
    """Its answer was lost on the way."""
    async with open_against() as house:
        notifier: Any = house.service.delivery.announcer.notifier
        client, lost = notifier._client, [httpx.ReadError("lost"), httpx.ReadTimeout("lost")]
        send = client.send

        async def losing(*args: Any, **options: Any) -> httpx.Response:
            answer = await send(*args, **options)
            if lost:
                await answer.aclose()
                raise lost.pop()
            return answer

        client.send = losing
        job = await run(house, edge, "a", batch_size=2)
    assert len(job["assets"]) == 2
    assert [event["skipped"] for event in job["events"]] == [False, True, True]
    assert len({event["id"] for event in job["events"]}) == 1


@pytest.mark.parametrize(
    ("secret", "key", "why"),
    [
        ("another secret", None, "x-callback-signature"),
        (SECRET, "", "apikey"),
        (SECRET, "eyJanother.key", "apikey"),
    ],
)
async def test_what_the_backend_would_not_believe(
    backend: Edge, secret: str, key: str | None, why: str
) -> None:
    """So that what the other tests show means something."""
    async with plain_client() as client:
        sender = HttpNotifier(backend.url, secret, backend.key if key is None else key, 30, client)
        with pytest.raises(NotifyRejected, match=f"answered 401.*{why}"):
            await sender.notify(f"{job_id('x')}.failed", b"{}")


async def test_a_body_that_the_backend_could_not_store(backend: Edge) -> None:
    backend.queue("x")
    body = b'{"job_id":"%s","status":"completed","assets":[],"metadata":{}}' % job_id("x").encode()
    async with plain_client() as client:
        sender = HttpNotifier(backend.url, SECRET, backend.key, 30, client)
        with pytest.raises(NotifyRejected, match=r"answered 400.*job_type"):
            await sender.notify(f"{job_id('x')}.completed", body)
        processing = b'{"job_id":"%s","status":"processing","assets":[],"metadata":{"progress":3}}'
        told = await sender.notify(f"{job_id('x')}.processing.1", processing % job_id("x").encode())
    assert told == Delivered(skipped=False)
