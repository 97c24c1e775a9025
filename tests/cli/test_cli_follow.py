"""Following a job over cuts, and what is drawn meanwhile."""

from __future__ import annotations

import io
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from typing import Any

import httpx
import orjson
import pytest
from rich.console import Console

from ourvidz.cli.client import ApiError, Target, Unavailable
from ourvidz.cli.follow import RETRIES_MAX, Bar, follow
from ourvidz.cli.sse import ServerEvent

pytestmark = pytest.mark.anyio

Answer = Callable[[], httpx.Response]


@dataclass(frozen=True, slots=True)
class Scripted(Target):
    """A service that gives these answers in order, and keeps the requests."""

    answers: list[Answer] = field(default_factory=list)
    requests: list[httpx.Request] = field(default_factory=list)

    def options(self) -> dict[str, Any]:
        def answer(request: httpx.Request) -> httpx.Response:
            self.requests.append(request)
            return self.answers.pop(0)()

        return {"base_url": self.url, "transport": httpx.MockTransport(answer)}


def scripted(*answers: Answer) -> Scripted:
    return Scripted("http://service", answers=list(answers))


def stream(*events: tuple[str, str]) -> Answer:
    """A stream of events (id, name) that ends behind them."""
    text = "".join(f"id: {number}\nevent: {name}\ndata: {{}}\n\n" for number, name in events)
    return lambda: httpx.Response(200, text=f": hello\n\n{text}")


def refused() -> httpx.Response:
    raise httpx.ConnectError("refused")


def busy() -> httpx.Response:
    return httpx.Response(503, json={"detail": "stopping", "retryable": True})


async def names(service: Target) -> list[str]:
    seen: list[str] = []
    await follow(service, "some/job", lambda event: seen.append(event.name), retry_seconds=0)
    return seen


async def test_it_ends_with_the_end() -> None:
    service = scripted(stream(("1", "status"), ("2", "progress"), ("3", "end"), ("4", "status")))
    assert await names(service) == ["status", "progress", "end"]
    assert [request.url.raw_path for request in service.requests] == [b"/jobs/some%2Fjob/events"]


async def test_after_a_cut_it_goes_on_where_it_was() -> None:
    service = scripted(
        stream(("1", "status"), ("2", "progress")), refused, busy, stream(("3", "end"))
    )
    assert await names(service) == ["status", "progress", "end"]
    assert [request.headers.get("Last-Event-ID") for request in service.requests] == [
        None,
        *("2", "2", "2"),
    ]


@pytest.mark.parametrize(
    ("answer", "said"),
    [(refused, "refused"), (busy, "stopping"), (stream(), "without an end")],
    ids=["refused", "busy", "cut"],
)
async def test_it_gives_up_in_the_end(answer: Answer, said: str) -> None:
    service = scripted(*[answer] * (RETRIES_MAX + 1))
    with pytest.raises(Unavailable, match=said):
        await names(service)
    assert service.answers == []


async def test_events_in_between_renew_its_patience() -> None:
    # The stream with the first event is cut too.
    cuts: Iterable[Answer] = [refused] * (RETRIES_MAX - 1)
    service = scripted(*cuts, stream(("1", "status")), *cuts, stream(("2", "end")))
    assert await names(service) == ["status", "end"]


async def test_a_job_that_is_not_there_is_not_waited_for() -> None:
    service = scripted(lambda: httpx.Response(404, json={"detail": "id: no job has this id"}))
    with pytest.raises(ApiError, match="no job has this id"):
        await names(service)


def draw(console: Console) -> None:
    with Bar(console) as bar:
        for data in ({"status": "queued"}, {"progress": 40.0, "phase": "denoise"}, {"text": "a"}):
            bar.show(ServerEvent("1", "any", orjson.dumps(data).decode()))


async def test_the_bar_is_for_terminals() -> None:
    terminal, pipe = io.StringIO(), io.StringIO()
    draw(Console(file=terminal, force_terminal=True, width=80))
    draw(Console(file=pipe, force_terminal=False))
    assert "denoise" in terminal.getvalue()
    assert "40 %" in terminal.getvalue()
    assert pipe.getvalue().strip() == ""
