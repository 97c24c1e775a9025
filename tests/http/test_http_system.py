"""Health, readiness, metrics and processes."""

from __future__ import annotations

import pytest
from prometheus_client.parser import text_string_to_metric_families
from support.api import Api

pytestmark = pytest.mark.anyio


@pytest.mark.parametrize(
    ("state", "health", "ping"),
    [("starting", 503, 204), ("ready", 200, 200), ("draining", 503, 503)],
)
async def test_readiness_is_in_the_status(api: Api, state: str, health: int, ping: int) -> None:
    api.service.state = state
    answer = await api.client.get("/health")
    assert (answer.status_code, answer.json()["status"]) == (health, state)
    answer = await api.client.get("/ping")
    assert (answer.status_code, answer.content) == (ping, b"")


async def test_health_says_what_is_offered(api: Api) -> None:
    found = (await api.client.get("/health")).json()
    assert found["endpoints"] == [
        "GET /health",
        "GET /ping",
        "GET /metrics",
        "GET /ps",
        "POST /jobs",
        "GET /jobs",
        "PUT /jobs/{job_id}",
        "GET /jobs/{job_id}",
        "POST /jobs/{job_id}/cancel",
        "GET /jobs/{job_id}/events",
        "GET /callbacks/parked",
        "POST /callbacks/parked/retry",
        "GET /dead-letters",
    ]
    offered = found["capabilities"]
    assert offered["job_types"] == [
        "chat",
        "enhance_base",
        "enhance_instruct",
        "sdxl_generate",
        "wan_generate",
    ]
    assert "sdxl_image_fast" in offered["legacy_job_types"]
    assert offered["models"]["sdxl"] == "sdxl"
    assert offered["wait_seconds_max"] == 90
    assert offered["body_bytes_max"] == 1_000_000


async def test_health_shows_no_paths_of_this_machine(api: Api) -> None:
    answer = await api.client.get("/health")
    assert answer.json()["device"] == {"kind": "cpu", "broken_models": ["wan"]}
    assert "/secret" not in answer.text


async def test_metrics_are_brought_up_to_date_and_parse(api: Api) -> None:
    await api.submit()
    answer = await api.client.get("/metrics")
    assert answer.headers["content-type"].startswith("text/plain; version=")
    families = {f.name: f for f in text_string_to_metric_families(answer.text)}
    assert families["ourvidz_waiting_jobs"].samples[0].value == 1
    assert "ourvidz_loop_lag_seconds" in families


async def test_processes(api: Api) -> None:
    answer = await api.client.get("/ps")
    assert answer.json() == {"jobs": [], "scheduler": {"running": []}}
