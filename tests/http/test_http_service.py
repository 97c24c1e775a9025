"""The API over the real service, with its database, queues and a device that pretends."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any
from uuid import UUID

import anyio
import httpx
import pytest
from support.api import settings_of
from support.house import House, job_id, open_house, payload

from ourvidz.adapters.database import Database
from ourvidz.adapters.journal import JOURNAL_SCHEMA, SqliteJournal
from ourvidz.http import models
from ourvidz.http.app import create_api
from ourvidz.jobs import JobSpec
from ourvidz.wire import Rules, parse_object

pytestmark = pytest.mark.anyio


@asynccontextmanager
async def open_client(root: Path) -> AsyncIterator[tuple[House, httpx.AsyncClient]]:
    with anyio.fail_after(30):
        async with open_house(root) as house:
            api = create_api(house.service, house.service.settings)
            transport = httpx.ASGITransport(app=api)
            async with httpx.AsyncClient(
                transport=transport, base_url="http://localhost", timeout=30
            ) as client:
                yield house, client


async def finished(client: httpx.AsyncClient, **fields: Any) -> dict[str, Any]:
    answer = await client.post("/jobs", json=fields, headers={"Prefer": "wait=30"})
    assert answer.status_code == 200, answer.text
    assert answer.headers["preference-applied"] == "wait"
    job: dict[str, Any] = answer.json()
    models.Job.model_validate(job, extra="forbid")
    return job


async def test_jobs_of_every_kind_end_while_the_caller_waits(tmp_path: Path) -> None:
    async with open_client(tmp_path) as (_, client):
        image = await finished(client, **payload("image", batch_size=2, seed=5))
        assert [asset["index"] for asset in image["output"]["assets"]] == [0, 1]
        assert image["output"]["seed"] == 5
        video = await finished(client, **payload("video", "wan_generate"))
        assert video["output"]["assets"][0]["frames"] == 5
        text = await finished(client, **payload("text", "enhance_instruct", target_model="sdxl"))
        assert text["output"]["text"]
        for job in (image, video, text):
            assert (job["status"], job["progress"], job["error"]) == ("completed", 100.0, None)
            events = await client.get(f"/jobs/{job['id']}/events")
            assert events.text.startswith("event: ")
            assert "\nevent: end\n" in events.text


async def test_a_repeat_runs_nothing_twice_and_another_body_is_a_conflict(tmp_path: Path) -> None:
    async with open_client(tmp_path) as (house, client):
        first = await finished(client, **payload("a"))
        commands = len(house.device.log)
        assert await finished(client, **payload("a")) == first
        again = await client.put(f"/jobs/{first['id']}", json=payload("a"))
        assert (again.status_code, again.json()) == (200, first)
        other = await client.put(f"/jobs/{first['id']}", json=payload("a", seed=9))
        assert (other.status_code, other.json()["code"]) == (409, "ID_CONFLICT")
        assert len(house.device.log) == commands
        late = await client.post(f"/jobs/{first['id']}/cancel")
        assert (late.status_code, late.json()["code"]) == (409, "TOO_LATE")


async def test_pages_cover_every_job_once(tmp_path: Path) -> None:
    async with open_client(tmp_path) as (_, client):
        async with anyio.create_task_group() as tasks:
            for number in range(12):
                tasks.start_soon(_submit, client, str(number))
        seen: list[str] = []
        query: dict[str, Any] = {"limit": 5}
        while query.get("before", "") is not None:
            page = (await client.get("/jobs", params=query)).json()
            seen += [job["id"] for job in page["jobs"]]
            query["before"] = page["next_before"]
        assert sorted(seen) == sorted(job_id(str(number)) for number in range(12))


async def test_jobs_of_one_instant_are_paged_by_their_ids(tmp_path: Path) -> None:
    class Still:
        def monotonic(self) -> float:
            return 0.0

        def wall(self) -> float:
            return 1_700_000_000.123456

    database = Database(tmp_path / "journal.db")
    await database.open(JOURNAL_SCHEMA)
    journal = SqliteJournal(database, Still())
    rules = Rules.from_settings(settings_of())
    for number in range(5):
        spec = parse_object(payload(str(number)), rules)
        assert isinstance(spec, JobSpec)
        await journal.accept(spec, "q", None)
    seen, before = [], None
    while page := await journal.recent(2, before, "queued"):
        assert len(page) <= 2
        seen += [str(record.spec.id) for record in page]
        before = page[-1].spec.id
    assert seen == sorted((job_id(str(n)) for n in range(5)), reverse=True)
    assert await journal.recent(2, UUID(int=0), None) == []
    await database.aclose()


async def test_two_bodies_under_one_id_at_once_are_one_job_and_one_conflict(
    tmp_path: Path,
) -> None:
    async with open_client(tmp_path) as (house, client):
        answers: list[httpx.Response] = []

        async def put(seed: int) -> None:
            body = payload("a", seed=seed)
            answers.append(await client.put(f"/jobs/{body['id']}", json=body))

        async with anyio.create_task_group() as tasks:
            tasks.start_soon(put, 1)
            tasks.start_soon(put, 2)
        assert sorted(answer.status_code for answer in answers) == [202, 409]
        accepted = next(answer.json() for answer in answers if answer.status_code == 202)
        await house.ended("a")
        kept = (await client.get(f"/jobs/{accepted['id']}")).json()
        assert kept["input"]["seed"] == accepted["input"]["seed"]


async def _submit(client: httpx.AsyncClient, name: str) -> None:
    assert (await client.post("/jobs", json=payload(name))).status_code == 202


async def test_what_a_queue_brought_and_was_refused_is_shown(tmp_path: Path) -> None:
    async with open_client(tmp_path) as (house, client):
        await house.push("sdxl_queue", payload("bad", steps=10_000))
        await house.ended("bad")
        job = (await client.get(f"/jobs/{job_id('bad')}")).json()
        models.Job.model_validate(job, extra="forbid")
        assert (job["status"], job["error"]["code"]) == ("failed", "INVALID_PARAMETER")


@pytest.mark.parametrize("name", ["never", "no-uuid"])
async def test_what_was_never_submitted_is_not_found(tmp_path: Path, name: str) -> None:
    """It is no job that is queued, and none that is done; nor does asking make it one."""
    wanted = job_id(name) if name == "never" else name
    async with open_client(tmp_path) as (_, client):
        await finished(client, **payload("a"))
        for method, path in (("GET", ""), ("GET", "/events"), ("POST", "/cancel"), ("GET", "")):
            answer = await client.request(method, f"/jobs/{wanted}{path}")
            assert (answer.status_code, answer.json()["code"]) == (404, "NOT_FOUND")
        assert [job["id"] for job in (await client.get("/jobs")).json()["jobs"]] == [job_id("a")]


async def test_the_service_shows_itself(tmp_path: Path) -> None:
    async with open_client(tmp_path) as (_, client):
        await finished(client, **payload("a"))
        health = await client.get("/health")
        assert (health.status_code, health.json()["status"]) == (200, "ready")
        models.Health.model_validate(health.json())
        assert (await client.get("/ping")).status_code == 200
        processes = (await client.get("/ps")).json()
        models.Processes.model_validate(processes, extra="forbid")
        assert "sdxl.unet" in processes["scheduler"]["components"]
        metrics = (await client.get("/metrics")).text
        assert 'ourvidz_jobs_ended_total{status="completed",type="sdxl_generate"} 1.0' in metrics
