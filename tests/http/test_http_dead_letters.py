"""Dead letters over HTTP."""

from __future__ import annotations

import pytest
from support.api import Api, problem

from ourvidz.ports import DeadLetter, QueueUnavailable

pytestmark = pytest.mark.anyio


async def test_they_are_shown_with_their_reasons(api: Api) -> None:
    api.service.letters = [
        DeadLetter("sdxl_queue", b"\xff{" + b"x" * 4094, 5002, "no JSON", 1_700_000_000.0),
        DeadLetter("wan_queue", b"[]", 2, "no object", 1_600_000_000.0),
    ]
    found = (await api.client.get("/dead-letters")).json()["dead_letters"]
    assert found[0] == {
        "queue": "sdxl_queue",
        "reason": "no JSON",
        "at": "2023-11-14T22:13:20.000+00:00",
        "bytes": 5002,
        "element": "\ufffd{" + "x" * 4094,
    }
    assert [one["reason"] for one in found] == ["no JSON", "no object"]
    answer = await api.client.get("/dead-letters", params={"limit": 1})
    assert answer.json()["dead_letters"] == found[:1]


async def test_a_queue_that_is_away_is_said_so(api: Api) -> None:
    api.service.defect = QueueUnavailable("secret host")
    answer = await api.client.get("/dead-letters")
    assert "secret" not in problem(answer, 503, "QUEUE_DOWN")["detail"]


@pytest.mark.parametrize("limit", ["0", "201", "x"])
async def test_a_limit_that_is_none(api: Api, limit: str) -> None:
    answer = await api.client.get("/dead-letters", params={"limit": limit})
    problem(answer, 422, "INVALID_PARAMETER")
