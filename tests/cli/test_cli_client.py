"""Where the service is, and what becomes of odd answers."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import httpx
import orjson
import pytest
import typer
from support.command import CONFIG, Cli, Served

from ourvidz.cli.client import job_path, target, unavailable
from ourvidz.cli.options import Layers
from ourvidz.config.urls import local_url
from ourvidz.errors import ConfigError

NOWHERE = "http://127.0.0.1:1"


class _Handler(BaseHTTPRequestHandler):
    status, body = 200, b"{}"
    authorization: str | None = None

    def do_GET(self) -> None:
        type(self).authorization = self.headers.get("Authorization")
        self.send_response(self.status)
        self.end_headers()
        self.wfile.write(self.body)

    def log_message(self, *_: object) -> None:
        """Into nothing."""


@contextmanager
def answering(status: int, body: bytes) -> Iterator[tuple[str, Callable[[], str | None]]]:
    """A server that always answers so; its URL, and the last ``Authorization`` that it was sent."""
    handler = type("Handler", (_Handler,), {"status": status, "body": body})
    with ThreadingHTTPServer(("127.0.0.1", 0), handler) as server:
        thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
        thread.start()
        yield f"http://127.0.0.1:{server.server_port}", lambda: handler.authorization
        server.shutdown()
        thread.join()


def test_where_nobody_answers_the_error_says_how_to_start_a_service(cli: Cli) -> None:
    done = cli("ps", "--url", NOWHERE)
    assert (done.code, done.out) == (75, "")
    assert done.err.startswith(f"ourvidz: no service answers at {NOWHERE} (")
    assert "`ourvidz serve`" in done.err
    assert done.err.count("\n") == 1


def test_the_url_comes_from_the_option_then_the_environment_then_the_configuration(
    cli: Cli, monkeypatch: pytest.MonkeyPatch, served: Served
) -> None:
    monkeypatch.setenv("OURVIDZ_CONFIG", str(CONFIG))
    port = served.url.rpartition(":")[2]
    assert cli("ps", "--set", f"http.port={port}").code == 0
    assert cli("--set", f"http.port={port}", "ps").code == 0
    monkeypatch.setenv("OURVIDZ_URL", NOWHERE)
    assert NOWHERE in cli("ps", "--set", f"http.port={port}").err
    assert cli("ps", "--url", f"{served.url}/").code == 0


@pytest.mark.parametrize("url", ["127.0.0.1:7860", "localhost", "ftp://x", "http://", "http://x:y"])
def test_a_url_that_is_none_is_a_usage_error(cli: Cli, url: str) -> None:
    done = cli("ps", "--url", url)
    assert done.code == 2
    assert "--url" in done.err


def test_a_password_in_a_url_is_refused_and_not_shown(cli: Cli) -> None:
    done = cli("ps", "--url", "http://me:hunter2@127.0.0.1:1")
    assert done.code == 2
    assert "OURVIDZ_TOKEN" in done.err
    assert "hunter2" not in done.err


@pytest.mark.parametrize(
    ("flag", "said"), [("http.port=0", "http.port"), ("http.enabled=false", "http.enabled")]
)
def test_a_configuration_that_does_not_say_where(cli: Cli, flag: str, said: str) -> None:
    done = cli("ps", "--config", str(CONFIG), "--set", flag)
    assert done.code == 2
    assert "--url" in done.err
    assert said in done.err


def test_a_proxy_of_the_environment_does_not_stand_before_this_machine(
    cli: Cli, served: Served, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("HTTP_PROXY", "http_proxy", "ALL_PROXY", "all_proxy"):
        monkeypatch.setenv(name, NOWHERE)
    assert cli("ps", "--url", served.url).code == 0


def test_the_token_is_sent_and_not_shown(cli: Cli, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OURVIDZ_TOKEN", "hunter2hunter2")
    with answering(401, orjson.dumps({"detail": "no", "hint": "so"})) as (url, authorization):
        done = cli("jobs", "list", "--url", url)
        port = url.rpartition(":")[2]
        cli("jobs", "list", "--config", str(CONFIG), "--set", f"http.port={port}")
        assert authorization() == "Bearer hunter2hunter2"
    assert (done.code, done.err) == (1, "ourvidz: no (so)\n")
    assert "hunter2" not in repr(target(Layers(CONFIG), None))


def test_files_are_looked_for_only_where_they_lie_on_this_machine() -> None:
    here = {"store.dir": "/srv/files"}
    assert target(Layers(CONFIG, here), None).files == Path("/srv/files/workspace-temp")
    elsewhere = {**here, "store.kind": "s3", "store.endpoint": "https://h.example/s3"}
    assert target(Layers(CONFIG, elsewhere), None).files is None


def test_a_token_that_cannot_be_read_is_a_configuration_error(
    cli: Cli, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("OURVIDZ_TOKEN_FILE", "/nonexistent/token")
    done = cli("jobs", "list", "--url", NOWHERE)
    assert done.code == 78
    assert "/nonexistent/token" in done.err
    with pytest.raises(ConfigError):
        target(Layers(), NOWHERE)


@pytest.mark.parametrize("body", [b"<html>hello</html>", b"", b"[1]", b"\xff"])
@pytest.mark.parametrize("status", [200, 404, 500])
def test_a_stranger_is_told_from_the_service(cli: Cli, status: int, body: bytes) -> None:
    with answering(status, body) as (url, _):
        done = cli("jobs", "list", "--url", url)
    assert (done.code, done.out) == (1, "")
    said = f"{url}/jobs answers {status} and no JSON object: is that OurVidz?"
    assert done.err == f"ourvidz: {said}\n"


@pytest.mark.parametrize(("retryable", "code"), [(True, 75), (False, 1), ("yes", 1)])
def test_what_may_succeed_later_has_a_code_of_its_own(
    cli: Cli, retryable: object, code: int
) -> None:
    problem = orjson.dumps({"detail": "busy", "retryable": retryable})
    with answering(503, problem) as (url, _):
        done = cli("ps", "--url", url)
    assert (done.code, done.err) == (code, "ourvidz: busy\n")


def test_an_answer_that_does_not_come_is_a_temporary_failure() -> None:
    failure = unavailable(target(Layers(), NOWHERE), httpx.ReadTimeout(""))
    assert failure.retryable
    assert str(failure) == f"the service at {NOWHERE} does not answer in time"


@pytest.mark.parametrize(
    ("host", "url"),
    [
        ("127.0.0.1", "http://127.0.0.1:8"),
        ("0.0.0.0", "http://127.0.0.1:8"),
        ("::", "http://[::1]:8"),
        ("::1", "http://[::1]:8"),
        ("localhost", "http://localhost:8"),
        ("worker.example.org", "http://worker.example.org:8"),
    ],
)
def test_a_service_is_reached_where_it_listens(host: str, url: str) -> None:
    assert local_url(host, 8) == url
    assert httpx.URL(url).port == 8


def test_an_id_is_one_segment_of_a_path() -> None:
    assert job_path("a/b?c#d") == "/jobs/a%2Fb%3Fc%23d"
    for dots in ("", ".", ".."):
        with pytest.raises(typer.BadParameter):
            job_path(dots)
