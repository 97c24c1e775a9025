"""Callbacks that were given up, over HTTP."""

from __future__ import annotations

from collections.abc import AsyncIterator
from typing import Any

import pytest
from support.api import Api, problem

from ourvidz.ports import ParkedAnswer

pytestmark = pytest.mark.anyio


def parked(name: str) -> ParkedAnswer:
    return ParkedAnswer(f"{name}.failed", name, 3, "the receiver answered 401", 1_700_000_000.0)


@pytest.fixture
def full(api: Api) -> Api:
    api.service.parked = [parked(name) for name in "abc"]
    return api


async def retried(api: Api, **params: Any) -> list[str]:
    """Which ones are no longer parked after a retry."""
    before = [p.job_id for p in api.service.parked]
    answer = await api.client.post("/callbacks/parked/retry", params=params)
    after = [p.job_id for p in api.service.parked]
    assert answer.status_code == 202
    assert answer.json() == {"retried": len(before) - len(after)}
    return [job for job in before if job not in after]


async def test_they_are_listed_with_their_reasons(full: Api) -> None:
    answer = await full.client.get("/callbacks/parked", params={"limit": 2})
    assert answer.status_code == 200
    assert [one["job_id"] for one in answer.json()["callbacks"]] == ["a", "b"]
    assert answer.json()["callbacks"][0] == {
        "event_id": "a.failed",
        "job_id": "a",
        "attempts": 3,
        "error": "the receiver answered 401",
        "created_at": "2023-11-14T22:13:20.000+00:00",
    }


async def test_none_is_no_error(api: Api) -> None:
    assert (await api.client.get("/callbacks/parked")).json() == {"callbacks": []}
    assert await retried(api) == []


async def test_those_named_are_sent_once_more(full: Api) -> None:
    assert await retried(full, event_id=["c.failed", "a.failed", "x"]) == ["a", "c"]


async def test_or_all_of_them(full: Api) -> None:
    assert await retried(full) == ["a", "b", "c"]


async def test_or_the_oldest(full: Api) -> None:
    assert await retried(full, limit=2) == ["a", "b"]


@pytest.mark.parametrize("limit", ["0", "1001", "x"])
async def test_a_limit_that_is_none(api: Api, limit: str) -> None:
    for verb, path in (("GET", "/callbacks/parked"), ("POST", "/callbacks/parked/retry")):
        answer = await api.client.request(verb, path, params={"limit": limit})
        problem(answer, 422, "INVALID_PARAMETER")


async def test_a_body_is_refused_and_sends_nothing(full: Api) -> None:
    answer = await full.client.post("/callbacks/parked/retry", json={"event_id": ["a.failed"]})
    problem(answer, 422, "INVALID_PARAMETER")
    assert len(full.service.parked) == 3


async def test_a_body_without_a_length_is_refused_unread(full: Api) -> None:
    async def endless() -> AsyncIterator[bytes]:
        while True:
            yield b"{"

    request = full.client.build_request("POST", "/callbacks/parked/retry", content=endless())
    assert request.headers["transfer-encoding"] == "chunked"
    problem(await full.client.send(request), 422, "INVALID_PARAMETER")
    assert len(full.service.parked) == 3
