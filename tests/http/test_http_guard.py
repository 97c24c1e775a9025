"""Tokens, hosts and origins."""

from __future__ import annotations

import pytest
from support.api import HOST, TOKEN, Api, Exchange, chat, problem, running

pytestmark = pytest.mark.anyio

CLOSED = [
    ("GET", "/jobs"),
    ("POST", "/jobs"),
    ("PUT", "/jobs/x"),
    ("GET", "/jobs/x"),
    ("POST", "/jobs/x/cancel"),
    ("GET", "/callbacks/parked"),
    ("POST", "/callbacks/parked/retry"),
    ("GET", "/dead-letters"),
    ("GET", "/jobs/x/events"),
    ("GET", "/metrics"),
    ("GET", "/ps"),
    ("GET", "/openapi.json"),
    ("GET", "/no/such/path"),
    ("DELETE", "/jobs"),
    ("GET", "/health/"),
    ("GET", "//health"),
    ("GET", "/health/../jobs"),
    ("GET", "/%68ealth/x"),
]


@pytest.fixture
def locked() -> Api:
    return Api(TOKEN)


def bearer(token: str) -> dict[str, str]:
    return {"Authorization": f"Bearer {token}"}


@pytest.mark.parametrize(("method", "path"), CLOSED)
async def test_everything_needs_the_token(locked: Api, method: str, path: str) -> None:
    exchange = Exchange(locked.app, method, path)
    async with running(exchange):
        pass
    assert exchange.status == 401
    assert exchange.headers["www-authenticate"] == 'Bearer realm="ourvidz"'
    assert exchange.headers["content-type"] == "application/problem+json"


async def test_but_what_supervisors_read(locked: Api) -> None:
    assert (await locked.client.get("/health")).status_code == 200
    assert (await locked.client.get("/ping")).status_code == 200


@pytest.mark.parametrize("scheme", ["Bearer", "bearer", "BEARER"])
async def test_the_token_opens(locked: Api, scheme: str) -> None:
    headers = {"Authorization": f"{scheme} {TOKEN}"}
    answer = await locked.client.post("/jobs", json=chat(), headers=headers)
    assert answer.status_code == 202


@pytest.mark.parametrize(
    "authorization",
    [
        "",
        " ",
        "Bearer",
        "Bearer ",
        TOKEN,
        f"Basic {TOKEN}",
        f"Bearer {TOKEN[:-1]}",
        f"Bearer {TOKEN}x",
        f"Bearer {TOKEN.upper()}",
        f'Bearer "{TOKEN}"',
        f"Bearer Bearer {TOKEN}",
        f"Bearer{TOKEN}",
        "Bearer None",
        "Bearer \u00fc",
        "Bearer " + " " * 10_000,
    ],
)
async def test_nothing_else_opens(locked: Api, authorization: str) -> None:
    headers = [(b"authorization", authorization.encode("latin-1"))]
    answer = await locked.client.get("/jobs", headers=headers)
    found = problem(answer, 401, "UNAUTHORIZED")
    assert TOKEN not in answer.text
    assert 'error="invalid_token"' in answer.headers["www-authenticate"]
    assert found["hint"]


async def test_two_authorizations_are_none(locked: Api) -> None:
    headers = [("Authorization", f"Bearer {TOKEN}"), ("Authorization", "Bearer x")]
    problem(await locked.client.get("/jobs", headers=headers), 401, "UNAUTHORIZED")


async def test_a_token_in_the_query_does_not_open(locked: Api) -> None:
    answer = await locked.client.get("/jobs", params={"token": TOKEN, "access_token": TOKEN})
    problem(answer, 401, "UNAUTHORIZED")


async def test_a_token_beyond_ascii_is_compared_as_utf8() -> None:
    api = Api("schlüssel")
    headers = [(b"authorization", "Bearer schlüssel".encode())]
    assert (await api.client.get("/jobs", headers=headers)).status_code == 200


async def test_with_a_token_hosts_and_origins_are_free(locked: Api) -> None:
    client = locked.client_with("gpu.example.org", origin="https://app.example.org")
    answer = await client.get("/jobs", headers=bearer(TOKEN))
    assert answer.status_code == 200
    assert "access-control-allow-origin" not in answer.headers


@pytest.mark.parametrize(
    "host",
    ["localhost", "LOCALHOST:7860", "127.0.0.1", "127.1.2.3:80", "[::1]", "[::1]:7860"],
)
async def test_this_machine_by_its_names(api: Api, host: str) -> None:
    exchange = Exchange(api.app, "GET", "/jobs", {"host": host})
    async with running(exchange):
        pass
    assert exchange.status == 200


@pytest.mark.parametrize(
    "host",
    [
        "evil.example",
        "localhost.evil.example",
        "127.0.0.1.evil.example",
        "evil.example@127.0.0.1",
        "127.0.0.1@evil.example",
        "localhost:7860@evil.example",
        "127.0.0.1, evil.example",
        "0.0.0.0:7860",
        "192.168.0.7",
        "[::ffff:8.8.8.8]",
        "[::",
        "127.1",
        "2130706433",
        "localhost.",
        "localhost:port",
        "localhost/",
        "",
        " ",
    ],
)
async def test_another_host_is_refused_without_a_token(api: Api, host: str) -> None:
    for path in ("/jobs", "/health", "/no/such/path"):
        exchange = Exchange(api.app, "GET", path, {"host": host})
        async with running(exchange):
            pass
        assert exchange.status == 403
        assert b"FOREIGN_HOST" in exchange.body


async def test_the_configured_host_is_this_machine() -> None:
    api = Api(**{"http.host": "127.0.0.2"})
    answer = await api.client_with("127.0.0.2:7860").get("/jobs")
    assert answer.status_code == 200


async def test_an_old_client_without_a_host_is_served(api: Api) -> None:
    exchange = Exchange(api.app, "GET", "/health")
    exchange.drop_header("host")
    async with running(exchange):
        pass
    assert exchange.status == 200


@pytest.mark.parametrize(
    "origin",
    [
        "https://evil.example",
        "null",
        "http://localhost:3000",
        f"https://{HOST}",
        "http://127.0.0.1",
        f"http://{HOST}.evil.example",
        f"http://{HOST}, https://evil.example",
        "",
    ],
)
async def test_pages_of_other_sites_are_refused(api: Api, origin: str) -> None:
    for method, path in (("POST", "/jobs"), ("GET", "/jobs"), ("OPTIONS", "/jobs")):
        answer = await api.client.request(method, path, headers={"Origin": origin})
        problem(answer, 403, "FOREIGN_ORIGIN")
        assert not any(name.startswith("access-control") for name in answer.headers)
    assert api.service.bodies == []


async def test_a_page_of_the_service_itself_may_ask(api: Api) -> None:
    headers = {"Origin": f"http://{HOST}", "Sec-Fetch-Site": "same-origin"}
    assert (await api.client.get("/jobs", headers=headers)).status_code == 200


async def test_one_foreign_origin_of_two_is_enough(api: Api) -> None:
    headers = [("Origin", f"http://{HOST}"), ("Origin", "https://evil.example")]
    problem(await api.client.get("/jobs", headers=headers), 403, "FOREIGN_ORIGIN")


@pytest.mark.parametrize("site", ["cross-site", "same-site", "odd"])
async def test_the_browsers_own_mark_counts_too(api: Api, site: str) -> None:
    answer = await api.client.get("/jobs", headers={"Sec-Fetch-Site": site})
    problem(answer, 403, "FOREIGN_ORIGIN")


async def test_what_the_user_typed_is_served(api: Api) -> None:
    assert (await api.client.get("/jobs", headers={"Sec-Fetch-Site": "none"})).status_code == 200


async def test_no_url_is_built_from_a_host_that_is_none(locked: Api) -> None:
    exchange = Exchange(
        locked.app,
        "POST",
        "/jobs",
        {"content-type": "application/json", "host": "evil.example/x?y", **bearer(TOKEN)},
        [b'{"type":"chat","prompt":"x"}'],
    )
    async with running(exchange):
        pass
    assert exchange.status == 202
    assert exchange.headers["location"].startswith(f"http://{HOST}/jobs/")
    assert b"evil" not in exchange.body
