"""Submitting, looking, listing and cancelling over HTTP."""

from __future__ import annotations

from uuid import UUID

import anyio
import pytest
from support.api import HOST, Api, Exchange, chat, ident, problem, running

from ourvidz.http.headers import wait_seconds
from ourvidz.jobs import ErrorCode, InvalidJob, JobError, JobState

pytestmark = pytest.mark.anyio


async def test_a_submitted_job_is_accepted_and_found_where_location_says(api: Api) -> None:
    answer = await api.client.post("/jobs", json=chat())
    assert answer.status_code == 202
    job = answer.json()
    assert UUID(job["id"]).version == 4
    assert job["status"] == "queued"
    assert answer.headers["location"] == f"http://{HOST}/jobs/{job['id']}"
    assert job["urls"] == {
        "get": f"http://{HOST}/jobs/{job['id']}",
        "cancel": f"http://{HOST}/jobs/{job['id']}/cancel",
        "events": f"http://{HOST}/jobs/{job['id']}/events",
    }
    assert (await api.client.get(answer.headers["location"])).json() == job


async def test_a_body_may_bring_its_id_under_either_name(api: Api) -> None:
    for name in ("id", "job_id"):
        answer = await api.client.post("/jobs", json=chat(**{name: ident(name)}))
        assert answer.status_code == 202
        assert answer.json()["id"] == ident(name)
        assert api.service.bodies[-1] == chat(**{name: ident(name)})


async def test_a_null_id_counts_as_none(api: Api) -> None:
    answer = await api.client.post("/jobs", json=chat(id=None))
    assert answer.status_code == 202
    assert UUID(answer.json()["id"])


async def test_the_same_id_and_body_is_the_same_job(api: Api) -> None:
    first = await api.client.post("/jobs", json=chat(id=ident("a")))
    again = await api.client.post("/jobs", json=chat(id=ident("a")))
    assert (first.status_code, again.status_code) == (202, 200)
    assert first.json() == again.json()
    assert first.headers["location"] == again.headers["location"]
    assert len(api.service.records) == 1


async def test_the_same_id_with_another_body_is_a_conflict(api: Api) -> None:
    await api.submit(id=ident("a"))
    answer = await api.client.post("/jobs", json=chat(id=ident("a"), max_tokens=7))
    found = problem(answer, 409, "ID_CONFLICT")
    assert found["field"] == "id"
    assert ident("a") in found["detail"]
    assert found["retryable"] is False
    assert found["hint"]


async def test_an_idempotency_key_stands_for_an_id(api: Api) -> None:
    key = {"Idempotency-Key": "order 7"}
    first = await api.client.post("/jobs", json=chat(), headers=key)
    again = await api.client.post("/jobs", json=chat(), headers=key)
    other = await api.client.post("/jobs", json=chat(), headers={"Idempotency-Key": "order 8"})
    assert [a.status_code for a in (first, again, other)] == [202, 200, 202]
    assert first.json()["id"] == again.json()["id"] != other.json()["id"]
    answer = await api.client.post("/jobs", json=chat(max_tokens=7), headers=key)
    problem(answer, 409, "ID_CONFLICT")


async def test_an_id_in_the_body_rules_over_the_key(api: Api) -> None:
    key = {"Idempotency-Key": "order 7"}
    answer = await api.client.post("/jobs", json=chat(id=ident("a")), headers=key)
    assert answer.json()["id"] == ident("a")


@pytest.mark.parametrize("key", ["", "k" * 256])
async def test_a_key_of_the_wrong_length_is_named(api: Api, key: str) -> None:
    answer = await api.client.post("/jobs", json=chat(), headers={"Idempotency-Key": key})
    assert problem(answer, 422, "INVALID_PARAMETER")["field"].lower() == "idempotency-key"


async def test_put_takes_the_id_from_the_path(api: Api) -> None:
    url = f"/jobs/{ident('a')}"
    first = await api.client.put(url, json=chat())
    again = await api.client.put(url, json=chat())
    other = await api.client.put(url, json=chat(max_tokens=7))
    assert (first.status_code, again.status_code) == (202, 200)
    assert first.json()["id"] == ident("a")
    problem(other, 409, "ID_CONFLICT")


async def test_put_knows_ids_in_capitals(api: Api) -> None:
    first = await api.client.put(f"/jobs/{ident('a').upper()}", json=chat())
    again = await api.client.put(f"/jobs/{ident('a')}", json=chat())
    assert (first.status_code, again.status_code) == (202, 200)


@pytest.mark.parametrize("name", ["id", "job_id"])
async def test_an_id_in_the_body_must_be_the_one_of_the_path(api: Api, name: str) -> None:
    url = f"/jobs/{ident('a')}"
    agreeing = await api.client.put(url, json=chat(**{name: ident("a").upper()}))
    assert agreeing.status_code == 202
    for other in (ident("b"), 7, "", ["x"]):
        answer = await api.client.put(url, json=chat(**{name: other}))
        assert problem(answer, 422, "INVALID_PARAMETER")["field"] == "id"


@pytest.mark.parametrize(
    "path", ["x", "1", ident("a")[:-1], ident("a").replace("-", ""), "%7B" + ident("a") + "%7D"]
)
async def test_put_needs_a_uuid(api: Api, path: str) -> None:
    answer = await api.client.put(f"/jobs/{path}", json=chat())
    assert problem(answer, 422, "INVALID_PARAMETER")["field"] == "id"
    assert api.service.records == {}


@pytest.mark.parametrize(
    ("body", "code", "field"),
    [
        ({}, "INVALID_PARAMETER", "type"),
        ({"type": "sdxl_generate"}, "INVALID_PROMPT", "prompt"),
        (chat(id="no uuid"), "INVALID_PARAMETER", "id"),
        (chat(id=7), "INVALID_PARAMETER", "id"),
        (chat(type="no_such_type"), "INVALID_PARAMETER", "type"),
        (chat(max_tokens=10**9), "INVALID_PARAMETER", "max_tokens"),
        (chat(temperature="hot"), "INVALID_PARAMETER", "temperature"),
    ],
)
async def test_what_cannot_be_run_names_its_field(
    api: Api, body: dict[str, object], code: str, field: str
) -> None:
    answer = await api.client.post("/jobs", json=body)
    found = problem(answer, 422, code)
    assert found["field"] == field
    assert field in found["detail"]
    assert found["retryable"] is False


async def test_unknown_keys_reach_the_service(api: Api) -> None:
    await api.submit(id=ident("a"), surprise={"deep": [1, None]})
    assert api.service.bodies[-1]["surprise"] == {"deep": [1, None]}


@pytest.mark.parametrize("verb", ["", "/events", "/cancel"])
@pytest.mark.parametrize("name", [ident("nobody"), "no-uuid", "%00", "a%20b", "x" * 3000])
async def test_an_unknown_id_is_not_found(api: Api, verb: str, name: str) -> None:
    method = "POST" if verb == "/cancel" else "GET"
    answer = await api.client.request(method, f"/jobs/{name}{verb}")
    assert problem(answer, 404, "NOT_FOUND")["field"] == "id"


async def test_a_refused_payload_is_shown_as_failed_and_cannot_be_cancelled(api: Api) -> None:
    error = JobError(ErrorCode.INVALID_PROMPT, "prompt: missing", field="prompt")
    api.service.refused["odd id"] = InvalidJob("odd id", "chat", None, "digest", error)
    found = (await api.client.get("/jobs/odd%20id")).json()
    assert found["status"] == "failed"
    assert found["error"]["code"] == "INVALID_PROMPT"
    problem(await api.client.post("/jobs/odd%20id/cancel"), 409, "TOO_LATE")


async def test_a_queued_job_is_cancelled_at_once_and_again_without_harm(api: Api) -> None:
    job = await api.submit()
    for _ in range(2):
        answer = await api.client.post(f"/jobs/{job}/cancel")
        assert answer.status_code == 200
        assert answer.json()["status"] == "cancelled"
        assert answer.json()["error"]["code"] == "CANCELLED"


async def test_a_running_job_is_asked_to_stop(api: Api) -> None:
    job = await api.submit()
    api.service.begin(job)
    answer = await api.client.post(f"/jobs/{job}/cancel")
    assert (answer.status_code, answer.json()["status"]) == (202, "processing")


@pytest.mark.parametrize("state", [JobState.COMPLETED, JobState.RENDERED])
async def test_what_is_made_cannot_be_cancelled(api: Api, state: JobState) -> None:
    job = await api.submit()
    api.service.change(job, state)
    found = problem(await api.client.post(f"/jobs/{job}/cancel"), 409, "TOO_LATE")
    assert state.value in found["detail"]


async def test_the_list_is_paged_newest_first(api: Api) -> None:
    submitted = [await api.submit() for _ in range(5)]
    seen: list[str] = []
    query: dict[str, str | int] = {"limit": 2}
    sizes = []
    while True:
        page = (await api.client.get("/jobs", params=query)).json()
        seen += [job["id"] for job in page["jobs"]]
        sizes.append(len(page["jobs"]))
        if page["next_before"] is None:
            break
        query["before"] = page["next_before"]
    assert seen == submitted[::-1]
    assert sizes == [2, 2, 1]


async def test_a_page_that_is_just_full_is_the_last(api: Api) -> None:
    for _ in range(2):
        await api.submit()
    assert (await api.client.get("/jobs?limit=2")).json()["next_before"] is None


async def test_the_list_may_be_of_one_status(api: Api) -> None:
    first, _ = await api.submit(), await api.submit()
    api.service.end(first)
    page = (await api.client.get("/jobs?status=completed")).json()
    assert [job["id"] for job in page["jobs"]] == [first]
    assert (await api.client.get("/jobs?status=failed")).json()["jobs"] == []


@pytest.mark.parametrize(
    ("query", "field"),
    [
        ("limit=0", "limit"),
        ("limit=201", "limit"),
        ("limit=ten", "limit"),
        ("limit=1e1", "limit"),
        ("limit=" + "9" * 500, "limit"),
        ("before=yesterday", "before"),
        (f"before={ident('nobody')}", "before"),
        ("status=done", "status"),
        ("status=", "status"),
    ],
)
async def test_a_bad_query_names_its_parameter(api: Api, query: str, field: str) -> None:
    found = problem(await api.client.get(f"/jobs?{query}"), 422, "INVALID_PARAMETER")
    assert found["field"] == field
    assert found["detail"].startswith(f"{field}: ")
    assert len(found["detail"]) < 300


async def test_a_caller_may_wait_for_the_end(api: Api) -> None:
    async def work() -> None:
        await api.service.submitted.wait()
        api.service.begin(ident("a"))
        api.service.step(ident("a"), 50)
        api.service.end(ident("a"))

    async with anyio.create_task_group() as tasks:
        tasks.start_soon(work)
        answer = await api.client.post(
            "/jobs", json=chat(id=ident("a")), headers={"Prefer": "wait=60"}
        )
    assert answer.status_code == 200
    assert answer.headers["preference-applied"] == "wait"
    assert answer.json()["output"]["text"] == "hi"
    assert answer.headers["location"].endswith(ident("a"))


async def test_a_wait_is_bounded_by_the_configuration() -> None:
    api = Api(**{"http.wait_seconds_max": 0.01})
    for method, path in (("POST", "/jobs"), ("PUT", f"/jobs/{ident('a')}")):
        body = chat(id=ident("a"))
        answer = await api.client.request(method, path, json=body, headers={"Prefer": "wait=3600"})
        assert answer.status_code == 202
        assert "preference-applied" not in answer.headers
        assert answer.json()["status"] == "queued"


async def test_waiting_for_an_ended_job_takes_no_time(api: Api) -> None:
    job = await api.submit(id=ident("a"))
    api.service.end(job)
    for remembered in (True, False):
        if not remembered:
            api.service.forget_events()
        answer = await api.client.post(
            "/jobs", json=chat(id=ident("a")), headers={"Prefer": "wait=60"}
        )
        assert (answer.status_code, answer.headers["preference-applied"]) == (200, "wait")


async def test_a_wait_ends_with_its_caller(api: Api) -> None:
    headers = {"content-type": "application/json", "prefer": "wait=60"}
    exchange = Exchange(
        api.app, "PUT", f"/jobs/{ident('a')}", headers, [b'{"type":"chat","prompt":"x"}']
    )
    async with running(exchange):
        await api.service.submitted.wait()
        exchange.leave()
    assert exchange.status == 202


@pytest.mark.parametrize(
    ("prefer", "seconds"),
    [
        ([], 0),
        (["wait=5"], 5),
        (["wait=500"], 90),
        (['wait="7"'], 7),
        (["respond-async, WAIT = 9"], 9),
        (["respond-async", "wait=3"], 3),
        (["wait=3, wait=4"], 3),
        (["wait=3; foo=bar"], 3),
        (["wait=0"], 0),
        (["wait"], 0),
        (["wait=-1"], 0),
        (["wait=1.5"], 0),
        (["wait=\u0661"], 0),
        (["wait=99999999999999999999"], 0),
        (["wait=abc, return=minimal"], 0),
        (["nowait=5"], 0),
    ],
)
def test_the_wait_preference(prefer: list[str], seconds: float) -> None:
    assert wait_seconds(prefer, 90) == seconds
