"""Bodies that are too large, too slow or no JSON objects."""

from __future__ import annotations

import json
from collections.abc import Iterator

import anyio
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from starlette.requests import Request
from support.api import Api, Exchange, ident, problem, running

from ourvidz.http.limits import read_object
from ourvidz.http.problems import HttpProblem

pytestmark = pytest.mark.anyio

JSON = {"content-type": "application/json"}
CHUNK = b" " * 65_536


async def post(api: Api, content: bytes, **headers: str):
    return await api.client.post("/jobs", content=content, headers=JSON | headers)


def fifty_megabytes() -> Iterator[bytes]:
    return (CHUNK for _ in range(800))


@pytest.mark.parametrize("declared", [None, "10", "65536"])
async def test_a_large_body_is_refused_while_it_arrives(api: Api, declared: str | None) -> None:
    """Chunked, or with a length that is a lie: what counts is what arrives."""
    length = {} if declared is None else {"content-length": declared}
    exchange = Exchange(api.app, "POST", "/jobs", JSON | length, fifty_megabytes())
    async with running(exchange):
        pass
    assert exchange.status == 413
    assert b"BODY_TOO_LARGE" in exchange.body
    assert exchange.taken == 1_000_000 // len(CHUNK) + 1
    assert api.service.bodies == []


async def test_a_body_that_says_it_is_large_is_not_read(api: Api) -> None:
    length = {"content-length": str(50_000_000)}
    exchange = Exchange(api.app, "PUT", "/jobs/x", JSON | length, fifty_megabytes())
    async with running(exchange):
        pass
    assert (exchange.status, exchange.taken) == (422, 0)
    exchange = Exchange(api.app, "POST", "/jobs", JSON | length, fifty_megabytes())
    async with running(exchange):
        pass
    assert (exchange.status, exchange.taken) == (413, 0)


@pytest.mark.parametrize("declared", ["", "x", "-1", "٣", "9" * 5000])
async def test_a_length_that_is_no_number_is_not_believed(api: Api, declared: str) -> None:
    body = [b'{"type":"chat",', b'"prompt":"x"}']
    exchange = Exchange(api.app, "POST", "/jobs", JSON | {"content-length": declared}, body)
    async with running(exchange):
        pass
    assert exchange.status == 202


async def test_the_largest_body_is_still_read() -> None:
    api = Api(**{"http.body_bytes_max": 100})
    body = b'{"type": "chat", "prompt": "x"}'
    assert (await post(api, body.ljust(100))).status_code == 202
    found = problem(await post(api, body.ljust(101)), 413, "BODY_TOO_LARGE")
    assert "100 bytes" in found["detail"]
    assert found["field"] == "body"


async def test_a_body_that_does_not_arrive_is_not_waited_for_for_ever(api: Api) -> None:
    async def never() -> dict[str, object]:
        await anyio.sleep_forever()

    headers = [(b"content-type", b"application/json")]
    request = Request({"type": "http", "headers": headers}, never)
    with pytest.raises(HttpProblem) as caught:
        await read_object(request, 100, seconds_max=0.001)
    assert caught.value.kind.status == 408
    assert caught.value.kind.retryable


async def test_a_caller_that_leaves_in_mid_body_harms_nothing(api: Api) -> None:
    class Leaving(Exchange):
        async def _receive(self):
            return {"type": "http.disconnect"}

    exchange = Leaving(api.app, "POST", "/jobs", JSON)
    async with running(exchange):
        pass
    assert exchange.status == 0
    assert (await post(api, b'{"type": "chat", "prompt": "x"}')).status_code == 202


@pytest.mark.parametrize(
    "content",
    [
        b"",
        b" ",
        b"{",
        b'{"type": "chat",}',
        b"{'type': 'chat'}",
        b'{"seed": NaN}',
        b'{"seed": Infinity}',
        b'{"seed": -Infinity}',
        b'{"a": 01}',
        b'{"a": "\xff"}',
        b'{"a": "\\ud800"}',
        b'\xef\xbb\xbf{"type": "chat"}',
        b"\x00",
        '{"type": "chat"}'.encode("utf-16"),
        b"[" * 100_000,
        b'{"a":' * 100_000,
        b"[" * 100_000 + b"]" * 100_000,
        b"type=chat&prompt=x",
    ],
    ids=range(18),
)
async def test_what_is_no_json_is_a_clear_error(api: Api, content: bytes) -> None:
    found = problem(await post(api, content), 400, "MALFORMED_JSON")
    assert found["detail"].startswith("body: ")
    assert len(found["detail"]) < 200
    assert api.service.bodies == []


@pytest.mark.parametrize("content", [b"[]", b"null", b"7", b'"{}"', b'[{"type": "chat"}]'])
async def test_what_is_no_object_is_refused(api: Api, content: bytes) -> None:
    assert problem(await post(api, content), 422, "INVALID_PARAMETER")["field"] == "body"


@pytest.mark.parametrize("depth", [240, 300, 1000])
async def test_deep_nesting_is_answered(api: Api, depth: int) -> None:
    content = b'{"type":"chat","prompt":"x","deep":' + b"[" * depth + b"]" * depth + b"}"
    answer = await post(api, content)
    if depth == 240:
        assert answer.status_code == 202
    else:
        problem(answer, 422, "INVALID_PARAMETER")


async def test_of_a_key_that_occurs_twice_the_last_one_counts(api: Api) -> None:
    answer = await post(api, b'{"type":"chat","prompt":"a","max_tokens":7,"max_tokens":9}')
    assert answer.json()["input"]["max_tokens"] == 9


async def test_a_number_without_end_is_refused_by_its_field(api: Api) -> None:
    content = b'{"type":"chat","prompt":"a","max_tokens":' + b"9" * 5000 + b"}"
    answer = await post(api, content)
    assert answer.status_code in (400, 422)
    assert len(answer.text) < 1000


@pytest.mark.parametrize(
    "content_type",
    [
        "application/json",
        "Application/JSON; charset=UTF-8",
        'application/json; charset="utf-8"',
        "application/json;",
        "application/vnd.api+json",
    ],
)
async def test_json_by_its_names(api: Api, content_type: str) -> None:
    answer = await post(api, b'{"type": "chat", "prompt": "x"}', **{"content-type": content_type})
    assert answer.status_code == 202


@pytest.mark.parametrize(
    "content_type",
    [
        "text/plain",
        "text/json",
        "application/x-www-form-urlencoded",
        "multipart/form-data; boundary=x",
        "application/json, text/plain",
        "application/json; charset=latin-1",
        "application/json; charset=utf-16",
        "application/jsonp",
        "application",
        "/",
        "",
        ";",
        "x" * 5000,
    ],
)
async def test_anything_else_is_an_unsupported_media_type(api: Api, content_type: str) -> None:
    answer = await post(api, b'{"type": "chat", "prompt": "x"}', **{"content-type": content_type})
    found = problem(answer, 415, "UNSUPPORTED_MEDIA_TYPE")
    assert "application/json" in found["detail"]
    assert len(found["detail"]) < 300


async def test_a_body_without_a_type_is_refused(api: Api) -> None:
    answer = await api.client.post("/jobs", content=b"{}")
    problem(answer, 415, "UNSUPPORTED_MEDIA_TYPE")


async def test_compressed_bodies_are_refused(api: Api) -> None:
    answer = await post(api, b"\x1f\x8b", **{"content-encoding": "gzip"})
    problem(answer, 415, "UNSUPPORTED_MEDIA_TYPE")
    assert answer.headers["accept-encoding"] == "identity"


API = Api()
_VALUES = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=20),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=9), inner),
    max_leaves=8,
)
_KEYS = st.sampled_from(["id", "job_id", "type", "prompt", "messages", "data", "config", "seed"])


@settings(max_examples=50, deadline=None, derandomize=True)
@given(body=st.dictionaries(_KEYS | st.text(max_size=9), _VALUES, max_size=6), put=st.booleans())
def test_no_object_is_ever_a_defect(body: dict[str, object], put: bool) -> None:
    async def send() -> int:
        method, path = ("PUT", f"/jobs/{ident('a')}") if put else ("POST", "/jobs")
        content = json.dumps(body).encode()
        answer = await API.client.request(method, path, content=content, headers=JSON)
        return answer.status_code

    API.service.records.clear()

    assert anyio.run(send) in (202, 400, 422)


@settings(max_examples=100, deadline=None, derandomize=True)
@given(content=st.binary(max_size=60), content_type=st.text(max_size=40))
def test_no_bytes_are_ever_a_defect(content: bytes, content_type: str) -> None:
    async def receive() -> dict[str, object]:
        return {"type": "http.request", "body": content, "more_body": False}

    async def status(kind: bytes) -> int:
        scope = {"type": "http", "headers": [(b"content-type", kind)]}
        try:
            await read_object(Request(scope, receive), 1000)
        except HttpProblem as refusal:
            return refusal.kind.status
        return 200

    raw = content_type.encode("utf-8", "replace")
    for kind in (raw, b"application/json; " + raw):
        assert anyio.run(status, kind) in (200, 400, 415, 422)


async def test_a_body_that_nobody_reads_is_no_matter(api: Api) -> None:
    job = await api.submit()
    exchange = Exchange(api.app, "POST", f"/jobs/{job}/cancel", {}, fifty_megabytes())
    async with running(exchange):
        pass
    assert (exchange.status, exchange.taken) == (200, 0)
