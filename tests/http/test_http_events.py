"""Following a job: server-sent events, replay, pings and ends."""

from __future__ import annotations

from collections.abc import AsyncGenerator
from dataclasses import dataclass
from typing import Any

import anyio
import httpx
import orjson
import pytest
from support.api import Api, Exchange, chat, ident, problem, running
from support.virtual import run_virtually

from ourvidz.http.app import stop_open_requests
from ourvidz.http.open_requests import OpenRequests
from ourvidz.http.sse import EventStream, last_event_id
from ourvidz.jobs import ErrorCode, InvalidJob, JobError, JobState
from ourvidz.ports import JobRecord

pytestmark = pytest.mark.anyio


@dataclass
class Event:
    name: str
    id: int | None
    data: dict[str, Any]


def parsed(text: str) -> list[Event]:
    """As a browser's EventSource reads it; comments are left out."""
    found = []
    for block in text.split("\n\n"):
        lines = [line for line in block.split("\n") if line and not line.startswith(":")]
        fields = dict(line.split(": ", 1) for line in lines)
        if fields:
            number = int(fields["id"]) if "id" in fields else None
            found.append(Event(fields["event"], number, orjson.loads(fields["data"])))
    return found


async def follow(api: Api, job: str, last: str | None = None) -> httpx.Response:
    headers = {} if last is None else {"Last-Event-ID": last}
    return await api.client.get(f"/jobs/{job}/events", headers=headers)


async def ended_job(api: Api) -> str:
    job = await api.submit()
    api.service.begin(job)
    api.service.step(job, 50)
    api.service.end(job)
    return job


async def test_the_whole_history_is_replayed_to_its_end(api: Api) -> None:
    answer = await follow(api, await ended_job(api))
    assert answer.status_code == 200
    assert answer.headers["content-type"].startswith("text/event-stream")
    assert answer.headers["cache-control"] == "no-store"
    events = parsed(answer.text)
    assert [(e.name, e.id) for e in events] == [("status", 1), ("progress", 2), ("end", 3)]
    assert events[1].data == {"progress": 50}
    assert events[2].data["status"] == "completed"
    assert events[2].data["output"]["text"] == "hi"


async def test_a_client_goes_on_after_the_last_event_it_has(api: Api) -> None:
    job = await ended_job(api)
    assert [e.id for e in parsed((await follow(api, job, "1")).text)] == [2, 3]
    assert [e.id for e in parsed((await follow(api, job, "2")).text)] == [3]


async def test_a_client_that_has_the_end_is_told_to_stay_away(api: Api) -> None:
    answer = await follow(api, await ended_job(api), "3")
    assert (answer.status_code, answer.content) == (204, b"")


@pytest.mark.parametrize("last", ["99", "-1", "x", "1.0", "9" * 400, "\u00b2", "\u0661"])
async def test_an_id_that_was_never_given_out_gets_the_end_of_an_ended_job(
    api: Api, last: str
) -> None:
    job = await ended_job(api)
    headers = [(b"last-event-id", last.encode())]
    answer = await api.client.get(f"/jobs/{job}/events", headers=headers)
    assert [e.name for e in parsed(answer.text)] == ["end"]


async def test_a_job_that_ended_long_ago_has_one_event(api: Api) -> None:
    job = await ended_job(api)
    api.service.forget_events()
    for last in (None, "1", "3"):
        events = parsed((await follow(api, job, last)).text)
        assert [(e.name, e.id) for e in events] == [("end", None)]
        assert events[0].data["status"] == "completed"
        assert events[0].data["output"]["text"] == "hi"
        assert events[0].data["error"] is None


async def test_a_job_that_is_claimed_between_two_looks_has_not_ended(
    api: Api, monkeypatch: pytest.MonkeyPatch
) -> None:
    job = await api.submit()
    look, looks = api.service.record, 0

    def not_at_first(job_id: str) -> JobRecord | None:
        nonlocal looks
        looks += 1
        return None if looks == 1 else look(job_id)

    monkeypatch.setattr(api.service, "record", not_at_first)
    assert (await follow(api, job)).status_code == 404


async def test_a_refused_payload_has_one_event(api: Api) -> None:
    error = JobError(ErrorCode.INVALID_PROMPT, "prompt: missing", field="prompt")
    api.service.refused["x"] = InvalidJob("x", "chat", None, "digest", error)
    (event,) = parsed((await follow(api, "x")).text)
    assert (event.name, event.data["status"]) == ("end", "failed")
    assert event.data["error"]["code"] == "INVALID_PROMPT"


async def test_a_new_follower_of_a_queued_job_is_told_its_state_first(api: Api) -> None:
    job = await api.submit()
    async with running(Exchange(api.app, "GET", f"/jobs/{job}/events")) as stream:
        await stream.until(b"queue_position")
        api.service.begin(job)
        api.service.end(job)
    events = parsed(stream.body.decode())
    assert [(e.name, e.id) for e in events] == [("status", 0), ("status", 1), ("end", 2)]
    assert events[0].data == {
        "status": "queued",
        "progress": 0.0,
        "queue_position": None,
        "eta_seconds": None,
    }
    assert stream.complete


async def test_after_a_restart_the_state_comes_first_and_then_what_follows(api: Api) -> None:
    job = await api.submit()
    api.service.begin(job)
    api.service.forget_events()
    api.service.step(job, 10)
    headers = {"Last-Event-ID": "57"}
    async with running(Exchange(api.app, "GET", f"/jobs/{job}/events", headers)) as stream:
        await stream.until(b"event: status")
        api.service.step(job, 20)
        api.service.end(job)
    events = parsed(stream.body.decode())
    assert [(e.name, e.id) for e in events] == [("status", 1), ("progress", 2), ("end", 3)]
    assert events[0].data["status"] == "processing"


async def test_history_beyond_what_is_kept_is_replaced_by_the_state(api: Api) -> None:
    job = await api.submit()
    api.service.begin(job)
    for number in range(5000):
        api.service.step(job, number / 50)
    stream = Exchange(api.app, "GET", f"/jobs/{job}/events", {"Last-Event-ID": "1"})
    async with running(stream):
        await stream.until(b"event: status")
        api.service.end(job)
    events = parsed(stream.body.decode())
    assert [(e.name, e.id) for e in events] == [("status", 5001), ("end", 5002)]


async def test_a_client_with_everything_so_far_waits_for_more(api: Api) -> None:
    job = await api.submit()
    api.service.begin(job)
    stream = Exchange(api.app, "GET", f"/jobs/{job}/events", {"Last-Event-ID": "1"})
    async with running(stream):
        await stream.until_started()
        api.service.end(job)
    assert [e.id for e in parsed(stream.body.decode())] == [2]


async def test_an_idle_stream_is_kept_alive() -> None:
    api = Api(**{"http.sse_ping_seconds": 0.001})
    job = await api.submit()
    async with running(Exchange(api.app, "GET", f"/jobs/{job}/events")) as stream:
        await stream.until(b": ping\n\n: ping\n\n")
        api.service.end(job)
    assert [e.name for e in parsed(stream.body.decode())] == ["status", "end"]


async def test_a_stream_ends_with_its_client(api: Api) -> None:
    job = await api.submit()
    async with running(Exchange(api.app, "GET", f"/jobs/{job}/events")) as stream:
        await stream.until(b"event: status")
        assert len(api.open_requests) == 1
        stream.leave()
    assert len(api.open_requests) == 0
    assert api.service.record(job).state is JobState.QUEUED


def test_a_client_that_stops_reading_is_dropped() -> None:
    async def main() -> None:
        requests = OpenRequests()
        stream = EventStream(_endless(), requests, ping_seconds=60, send_seconds_max=5)
        exchange = Exchange(stream, "GET", "/")
        async with running(exchange):
            await exchange.until(b"frame")
            exchange.stall()
        assert not exchange.complete
        assert len(requests) == 0

    run_virtually(main)


async def _endless() -> AsyncGenerator[bytes, None]:
    while True:
        yield b"frame\n\n"
        await anyio.lowlevel.checkpoint()


async def test_more_streams_than_are_served_are_refused_for_now(api: Api) -> None:
    job = await api.submit()
    api.limit_open_requests(1)
    async with running(Exchange(api.app, "GET", f"/jobs/{job}/events")) as stream:
        await stream.until(b"event: status")
        answer = await follow(api, job)
        found = problem(answer, 503, "BUSY")
        assert found["retryable"] is True
        assert answer.headers["retry-after"] == "5"
        waiting = await api.client.post("/jobs", json=chat(), headers={"Prefer": "wait=60"})
        assert waiting.status_code == 202
        stream.leave()


async def test_streams_and_waits_end_when_the_server_stops(api: Api) -> None:
    job = await api.submit(id=ident("a"))
    body = orjson.dumps(chat(id=job))
    headers = {"content-type": "application/json", "prefer": "wait=60"}
    stream = Exchange(api.app, "GET", f"/jobs/{job}/events")
    wait = Exchange(api.app, "PUT", f"/jobs/{job}", headers, [body])
    async with running(stream), running(wait):
        await stream.until(b"event: status")
        while len(api.open_requests) < 2:
            await anyio.lowlevel.checkpoint()
        stop_open_requests(api.app)
    assert stream.complete
    assert [e.name for e in parsed(stream.body.decode())] == ["status"]
    assert wait.status == 202
    assert (await follow(api, job)).status_code == 200


@pytest.mark.parametrize(
    ("header", "number"),
    [(None, 0), ("", 0), ("0", 0), ("12", 12), ("-1", None), ("1" * 19, None), (" 1", None)],
)
def test_the_last_event_id(header: str | None, number: int | None) -> None:
    assert last_event_id(header) == number
