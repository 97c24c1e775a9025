"""The document says what the API does."""

from __future__ import annotations

import re
from typing import Any

import pytest
from support.api import Api, ident

from ourvidz.http import models
from ourvidz.jobs import JobSpec
from ourvidz.wire import parse_object
from ourvidz.wire.names import PATHS

pytestmark = pytest.mark.anyio


@pytest.fixture
def document(api: Api) -> dict[str, Any]:
    return api.app.openapi()


def operations(document: dict[str, Any]) -> list[tuple[str, dict[str, Any]]]:
    return [
        (f"{verb.upper()} {path}", operation)
        for path, verbs in document["paths"].items()
        for verb, operation in verbs.items()
    ]


def references(node: object) -> list[str]:
    if isinstance(node, dict):
        own = [node["$ref"]] if isinstance(node.get("$ref"), str) else []
        return own + [ref for value in node.values() for ref in references(value)]
    return [ref for value in node for ref in references(value)] if isinstance(node, list) else []


async def test_it_is_served(api: Api) -> None:
    answer = await api.client.get("/openapi.json")
    assert answer.status_code == 200
    assert re.fullmatch(r"3\.1\.\d", answer.json()["openapi"])


def test_every_reference_leads_somewhere(document: dict[str, Any]) -> None:
    found = references(document)
    assert found
    for reference in found:
        node: Any = document
        for step in reference.removeprefix("#/").split("/"):
            node = node[step]
        assert node


def test_every_operation_is_described_with_all_its_answers(document: dict[str, Any]) -> None:
    found = operations(document)
    assert len(found) == 13
    assert len({operation["operationId"] for _, operation in found}) == len(found)
    for name, operation in found:
        assert operation["description"], name
        statuses = set(operation["responses"])
        assert statuses & {"200", "202"}, name
        assert {"403", "500"} <= statuses, name
        guarded = name not in ("GET /health", "GET /ping")
        assert ("401" in statuses) == guarded, name
        assert ("security" in operation) == guarded, name
        for status, answer in operation["responses"].items():
            assert answer["description"], name
            if status >= "400" and not (status == "503" and name in ("GET /health", "GET /ping")):
                (media_type,) = answer["content"]
                assert media_type == "application/problem+json", (name, status)


def test_submitting_takes_a_described_body(document: dict[str, Any]) -> None:
    for path, verb in (("/jobs", "post"), ("/jobs/{job_id}", "put")):
        body = document["paths"][path][verb]["requestBody"]
        assert body["required"] is True
        assert body["content"]["application/json"]["schema"]["$ref"].endswith("/JobRequest")
    schema = document["components"]["schemas"]["JobRequest"]
    assert schema["additionalProperties"] is True
    assert schema["required"] == ["type"]
    assert len(schema["examples"]) == 4


def test_the_headers_are_described(document: dict[str, Any]) -> None:
    post = document["paths"]["/jobs"]["post"]["parameters"]
    assert {p["name"].lower() for p in post} == {"prefer", "idempotency-key"}
    follow = document["paths"]["/jobs/{job_id}/events"]["get"]["parameters"]
    assert {p["name"] for p in follow} == {"job_id", "Last-Event-ID"}


def test_the_examples_can_be_run(api: Api) -> None:
    schema = models.JobRequest.model_json_schema()
    for example in schema["examples"]:
        spec = parse_object({**example, "id": ident("a")}, api.service.rules)
        assert isinstance(spec, JobSpec), spec
        unused = [w for w in spec.warnings if "user_id" not in w]
        assert unused == [], example


def test_every_described_key_is_known_to_the_wire() -> None:
    known = {key for paths in PATHS.values() for group, key in paths if not group}
    assert models.JobRequest.model_fields.keys() <= known


async def test_answers_are_as_described(api: Api) -> None:
    job = await api.submit()
    await api.submit()
    api.service.begin(job)
    api.service.end(job)
    for path, model in (
        (f"/jobs/{job}", models.Job),
        ("/jobs", models.JobList),
        ("/health", models.Health),
        ("/ps", models.Processes),
        ("/nothing", models.ProblemDetails),
    ):
        body = (await api.client.get(path)).json()
        extra = None if path == "/health" else "forbid"
        assert model.model_validate(body, extra=extra)
