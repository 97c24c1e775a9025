"""Errors that are nobody's parameter, and the line that each request leaves in the log."""

from __future__ import annotations

from typing import Any

import anyio
import pytest
import structlog
from support.api import Api, Exchange, chat, ident, problem, running

from ourvidz.http import journal_route
from ourvidz.ports import QueueFull, QueueRefused, QueueUnavailable

pytestmark = pytest.mark.anyio


async def test_an_unknown_path_is_a_problem(api: Api) -> None:
    for path in ("/", "/job", "/jobs/", "/docs", "/redoc", "/jobs/a/b", "/jobs/a%2Fb", "/%0a"):
        problem(await api.client.get(path), 404, "NOT_FOUND")


async def test_an_unknown_method_is_a_problem_that_names_the_known_ones(api: Api) -> None:
    answer = await api.client.delete("/health")
    problem(answer, 405, "METHOD_NOT_ALLOWED")
    assert answer.headers["allow"] == "GET"


@pytest.mark.parametrize("error", [ValueError("a secret"), ExceptionGroup("g", [KeyError("a")])])
async def test_a_defect_is_answered_without_its_story(api: Api, error: Exception) -> None:
    api.service.defect = error
    with structlog.testing.capture_logs() as logs:
        answer = await api.client.post("/jobs", json={})
    found = problem(answer, 500, "INTERNAL_ERROR")
    assert found["retryable"] is True
    assert "secret" not in answer.text
    assert [line["event"] for line in logs] == ["http_failed", "http_request"]
    assert logs[0]["exc_info"]
    assert logs[1]["status"] == 500


async def test_a_full_queue_asks_to_come_again(api: Api) -> None:
    api.service.defect = QueueFull("chat_queue holds 5 elements, as many as it may")
    answer = await api.client.post("/jobs", json={})
    found = problem(answer, 503, "QUEUE_FULL")
    assert found["retryable"] is True
    assert found["detail"].startswith("chat_queue holds 5")
    assert answer.headers["retry-after"] == "60"


@pytest.mark.parametrize("kind", [QueueUnavailable, QueueRefused])
async def test_a_queue_that_is_down_asks_to_come_again(api: Api, kind: type[Exception]) -> None:
    api.service.defect = kind("Upstash answered 503: internal.example is down")
    answer = await api.client.post("/jobs", json={})
    found = problem(answer, 503, "QUEUE_DOWN")
    assert found["retryable"] is True
    assert "internal.example" not in answer.text
    assert answer.headers["retry-after"] == "5"


async def test_each_request_leaves_one_line_without_secrets(api: Api) -> None:
    with structlog.testing.capture_logs() as logs:
        await api.client.get("/jobs/x?token=hidden", headers={"Authorization": "Bearer hidden"})
    (line,) = logs
    assert line.pop("seconds") >= 0
    assert line == {
        "event": "http_request",
        "log_level": "info",
        "method": "GET",
        "path": "/jobs/x",
        "job": "x",
        "status": 404,
    }


async def test_refused_requests_leave_a_line_too(api: Api) -> None:
    with structlog.testing.capture_logs() as logs:
        await api.client.get("/jobs", headers={"Origin": "null"})
    assert [(line["event"], line["status"]) for line in logs] == [("http_request", 403)]


@pytest.mark.parametrize("path", ["/health", "/ping", "/metrics"])
async def test_what_is_asked_every_few_seconds_is_logged_for_debugging(api: Api, path: str) -> None:
    with structlog.testing.capture_logs() as logs:
        await api.client.get(path)
    assert [line["log_level"] for line in logs] == ["debug"]


async def test_a_path_cannot_write_to_the_terminal(api: Api) -> None:
    exchange = Exchange(api.app, "GET", "/jobs/\x1b[2J\n" + "x" * 5000)
    with structlog.testing.capture_logs() as logs:
        async with running(exchange):
            pass
    assert exchange.status == 404
    (line,) = logs
    assert line["path"].startswith("/jobs/%1B%5B2J%0A")
    assert line["job"].startswith("%1B")
    assert len(line["path"]) == len(line["job"]) == 200


async def test_a_caller_that_left_is_logged_as_such(api: Api) -> None:
    class Leaving(Exchange):
        async def _receive(self) -> dict[str, object]:
            return {"type": "http.disconnect"}

    with structlog.testing.capture_logs() as logs:
        headers = {"content-type": "application/json"}
        async with running(Leaving(api.app, "POST", "/jobs", headers)):
            pass
    assert [line["status"] for line in logs] == [499]


async def test_answers_are_private_and_what_they_say_they_are(api: Api) -> None:
    for path in ("/health", "/jobs", "/nothing"):
        answer = await api.client.get(path)
        assert answer.headers["cache-control"] == "no-store"
        assert answer.headers["x-content-type-options"] == "nosniff"


@pytest.mark.parametrize(
    ("verb", "path"),
    [
        ("GET", "/jobs"),
        ("POST", "/jobs"),
        ("GET", f"/jobs/{ident('a')}"),
        ("POST", f"/jobs/{ident('a')}/cancel"),
        ("GET", "/callbacks/parked"),
    ],
)
async def test_while_nothing_can_be_written_down_callers_are_told_to_come_again(
    api: Api, verb: str, path: str
) -> None:
    api.service.trouble = "unable to open /secret/path"
    answer = await api.client.request(verb, path, json=chat())
    found = problem(answer, 503, "JOURNAL_DOWN")
    assert found["retryable"]
    assert "secret" not in answer.text
    assert answer.headers["retry-after"] == "5"
    assert (await api.client.get("/ping")).status_code == 200


async def test_a_request_that_meets_the_trouble_does_not_wait_for_its_end(
    api: Api, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(journal_route, "_LOOK_SECONDS", 0.001)
    asked = anyio.Event()

    async def waits(*_: Any) -> Any:
        asked.set()
        await anyio.sleep_forever()

    monkeypatch.setattr(api.service, "submit", waits)

    async def breaks() -> None:
        await asked.wait()
        api.service.trouble = "full"

    with anyio.fail_after(20):
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(breaks)
            problem(await api.client.post("/jobs", json=chat()), 503, "JOURNAL_DOWN")
