"""Log lines: stable keys, the bound job, libraries in the same form, nothing that must not show."""

from __future__ import annotations

import dataclasses
import enum
import io
import json
import logging
import sys
import threading
import uuid
import warnings
from collections.abc import Callable, Iterator
from datetime import datetime, timedelta
from hashlib import sha256
from pathlib import Path
from typing import Any

import anyio.to_thread
import pytest
import structlog
from hypothesis import given, settings
from hypothesis import strategies as st

from ourvidz import logs

CAT = "a cat on the moon"
CAT_FIELDS = {"prompt_sha256": sha256(CAT.encode()).hexdigest()[:12], "prompt_chars": len(CAT)}
log = structlog.get_logger()
Lines = Callable[[], list[dict[str, Any]]]


class Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True


class Broken(io.StringIO):
    def write(self, text: str) -> int:
        raise BrokenPipeError(text)


def raised(error: Exception) -> Exception:
    """The error with a traceback, in whose frame lies a value that must not show."""
    hidden = "local" + "-value"
    try:
        raise error
    except type(error):
        assert hidden
        return error


@pytest.fixture(autouse=True)
def libraries_speak_up() -> None:
    """Another test may have imported them, quieted as a service quiets them."""
    for name in ("transformers", "diffusers"):
        logging.getLogger(name).setLevel(logging.NOTSET)


@pytest.fixture(autouse=True)
def untouched_logging() -> Iterator[None]:
    root = logging.getLogger()
    handlers, level = root.handlers[:], root.level
    yield
    root.handlers[:] = handlers
    root.setLevel(level)
    logging.captureWarnings(False)
    structlog.reset_defaults()
    logs.configure("json", "info", False, io.StringIO())
    root.handlers[:] = handlers
    root.setLevel(level)
    logging.captureWarnings(False)
    structlog.reset_defaults()


@pytest.fixture
def out() -> io.StringIO:
    return io.StringIO()


@pytest.fixture
def lines(out: io.StringIO) -> Lines:
    logs.configure("json", "debug", False, out)
    return lambda: [json.loads(line) for line in out.getvalue().splitlines()]


def test_a_line_is_json_with_the_action_first_named(lines: Lines, out: io.StringIO) -> None:
    log.info("job_claimed", queue="sdxl_queue", attempts=2)
    (line,) = lines()
    assert list(line) == ["timestamp", "level", "action", "queue", "attempts"]
    assert (line["level"], line["action"]) == ("info", "job_claimed")
    assert datetime.fromisoformat(line["timestamp"]).utcoffset() == timedelta(0)
    assert out.getvalue().endswith("}\n")


def test_levels_below_the_configured_one_are_not_written(out: io.StringIO) -> None:
    logs.configure("json", "warning", False, out)
    log.info("quiet")
    logging.getLogger("uvicorn").info("quiet")
    assert out.getvalue() == ""
    log.warning("heard")
    logging.getLogger("uvicorn").warning("heard")
    assert len(out.getvalue().splitlines()) == 2


def test_a_bound_job_is_in_every_line_inside_and_in_none_outside(lines: Lines) -> None:
    job = uuid.UUID(int=7)
    with logs.bind_job(job):
        log.info("inside")
        with logs.bind_job("child"):
            log.info("deeper")
        logging.getLogger("some.library").warning("here")
        log.info("named", job="explicit")
    log.info("outside")
    assert [line.get("job") for line in lines()] == [
        str(job), "child", str(job), "explicit", None,
    ]  # fmt: skip


@pytest.mark.anyio
async def test_the_job_follows_a_task_and_its_threads_and_no_other_task(lines: Lines) -> None:
    started = anyio.Event()

    async def one() -> None:
        with logs.bind_job("one"):
            started.set()
            await anyio.to_thread.run_sync(lambda: log.info("in_thread"))

    async def other() -> None:
        await started.wait()
        log.info("in_other")

    async with anyio.create_task_group() as group:
        group.start_soon(one)
        group.start_soon(other)
    assert {line["action"]: line.get("job") for line in lines()} == {
        "in_thread": "one",
        "in_other": None,
    }


def test_records_of_libraries_come_through_the_same_renderer(lines: Lines) -> None:
    logging.getLogger("uvicorn.error").info("Started on %s", "port 1")
    logging.getLogger("transformers.models").warning("slow")
    with warnings.catch_warnings():
        warnings.simplefilter("always")
        warnings.warn("careful", stacklevel=1)
    logging.getLogger("httpx").info("HTTP Request: GET https://h/x?token=abc")
    found = [(line["action"], line["logger"], line["message"]) for line in lines()]
    assert found[:2] == [
        ("library_log", "uvicorn.error", "Started on port 1"),
        ("library_log", "transformers.models", "slow"),
    ]
    assert found[2][1] == "py.warnings"
    assert "careful" in found[2][2]
    assert len(found) == 3, "every request at INFO is too much"


def test_libraries_with_handlers_of_their_own_lose_them(lines: Lines) -> None:
    logger = logging.getLogger("diffusers")
    own = io.StringIO()
    logger.addHandler(logging.StreamHandler(own))
    logger.propagate = False
    logs.route_libraries()
    logging.getLogger("diffusers.loaders").warning("once")
    assert own.getvalue() == ""
    assert [line["message"] for line in lines()] == ["once"]


def test_a_second_configuration_replaces_the_first(lines: Lines, out: io.StringIO) -> None:
    logging.getLogger().addHandler(logging.StreamHandler(out))
    second = io.StringIO()
    logs.configure("json", "info", False, second)
    log.info("once")
    logging.getLogger("x").warning("once")
    assert out.getvalue() == ""
    assert len(second.getvalue().splitlines()) == 2


def test_standard_error_is_the_default_even_when_it_is_replaced(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    logs.configure("json", "info", False)
    log.info("first")
    assert "first" in capsys.readouterr().err
    monkeypatch.setattr(sys, "stderr", other := io.StringIO())
    log.info("second")
    assert "second" in other.getvalue()


@pytest.mark.parametrize(
    ("format_", "stream", "is_json"),
    [
        ("auto", io.StringIO, True),
        ("auto", Terminal, False),
        ("json", Terminal, True),
        ("console", io.StringIO, False),
    ],
)
def test_people_get_readable_lines_on_a_terminal(
    format_: Any, stream: type[io.StringIO], is_json: bool
) -> None:
    out = stream()
    logs.configure(format_, "info", False, out)
    log.info("job_claimed", queue="sdxl_queue")
    text = out.getvalue()
    assert text.startswith("{") is is_json
    assert "job_claimed" in text
    assert ("\x1b[" in text) is (format_ == "auto" and stream is Terminal)


def test_text_cannot_move_the_terminal() -> None:
    logs.configure("console", "info", False, out := io.StringIO())
    log.info("failed", reason="\x1b[2J\x07", nested={"a": "\x1b]0;x"})
    log.error("failed", exc_info=raised(ValueError("\x1b[31m")))
    assert "\x1b" not in out.getvalue()
    assert "\x07" not in out.getvalue()
    assert "\nTraceback" in out.getvalue()


def test_an_exception_brings_its_traceback_without_variables(lines: Lines) -> None:
    error = raised(RuntimeError("no loc"))
    try:
        raise error
    except RuntimeError:
        log.exception("phase_failed", code="OOM_ERROR")
    (line,) = lines()
    assert line["level"] == "error"
    assert line["exception"].startswith("Traceback")
    assert line["exception"].endswith("RuntimeError: no loc")
    assert "local-value" not in json.dumps(line)


USER_TEXT = [
    "prompt", "negative_prompt", "system_prompt", "original_prompt", "Final_Prompt", "text",
    "messages", "content", "response", "payload", "raw", "body",
]  # fmt: skip


@pytest.mark.parametrize("key", USER_TEXT)
def test_what_users_wrote_is_hash_and_length(out: io.StringIO, key: str) -> None:
    logs.configure("json", "info", False, out)
    log.info("job_claimed", **{key: CAT, "nested": {key: CAT}, "list": [{key: CAT}]})
    assert "moon" not in out.getvalue()
    line = json.loads(out.getvalue())
    expected = {f"{key}_sha256": CAT_FIELDS["prompt_sha256"], f"{key}_chars": 17}
    assert line["nested"] == expected
    assert line["list"] == [expected]
    assert expected.items() <= line.items()

    logs.configure("json", "info", True, out := io.StringIO())
    log.info("job_claimed", **{key: CAT})
    assert json.loads(out.getvalue())[key] == CAT


def test_structured_user_text_is_hashed_as_a_whole(lines: Lines, out: io.StringIO) -> None:
    log.info("chat", messages=[{"role": "user", "content": CAT}], raw=CAT.encode(), prompt=None)
    (line,) = lines()
    assert "moon" not in out.getvalue()
    assert set(line) >= {"messages_sha256", "messages_chars"}
    assert line["raw_sha256"] == CAT_FIELDS["prompt_sha256"]
    assert line["prompt"] is None


def test_counts_that_sound_like_text_or_secrets_are_kept(lines: Lines) -> None:
    log.info("done", prompt_tokens=3, tokens=4, max_tokens=5, text=0, token=True)
    (line,) = lines()
    assert [line[k] for k in ("prompt_tokens", "tokens", "max_tokens", "text", "token")] == [
        3, 4, 5, 0, True,
    ]  # fmt: skip


@dataclasses.dataclass
class Work:
    prompt: str
    steps: int
    token: str


class Opaque:
    def __repr__(self) -> str:
        return CAT


def test_objects_show_their_fields_guarded_or_their_type_alone(lines: Lines) -> None:
    log.info("job_claimed", work=Work(CAT, 4, "s3cret"), other=Opaque())
    (line,) = lines()
    assert line["work"] == {**CAT_FIELDS, "steps": 4, "token": "**redacted**"}
    assert line["other"] == "<Opaque>"


def test_a_library_that_quotes_a_cut_prompt_is_cut_short(out: io.StringIO) -> None:
    message = f"The following part was truncated: ['{CAT}']"
    logs.configure("json", "info", False, out)
    logging.getLogger("transformers.tokens").warning(message)
    assert "moon" not in out.getvalue()
    assert "was truncated: <hidden>" in out.getvalue()
    logs.configure("json", "info", True, out)
    logging.getLogger("transformers.tokens").warning(message)
    assert "moon" in out.getvalue()


@pytest.mark.parametrize("log_prompts", [False, True])
@pytest.mark.parametrize("format_", ["json", "console"])
def test_secrets_are_never_written(format_: Any, log_prompts: bool) -> None:
    logs.configure(format_, "debug", log_prompts, out := io.StringIO())
    secret = "s3cr3t-v4lue"
    log.info("called", token=secret, secret=secret, Authorization=f"Bearer {secret}", apikey=secret)
    log.info("called", headers={"authorization": f"Bearer {secret}", "X-Api-Key": secret})
    log.info("called", headers=[(b"authorization", secret.encode()), ("cookie", secret)])
    log.info("called", url=f"https://u:{secret}@h/x?token={secret}")
    log.info(f"called with Bearer {secret}", job_callback_secret=secret)
    logging.getLogger("x").warning("GET /x?apikey=%s", secret)
    error = raised(ValueError(f"no answer from https://h/?token={secret}"))
    log.error("failed", reason=error, exc_info=error)
    assert secret not in out.getvalue()
    assert out.getvalue().count("redacted") >= 12


class Colour(enum.Enum):
    RED = "red"


def test_values_of_any_kind_become_json(lines: Lines) -> None:
    log.info(
        "odd", id=uuid.UUID(int=1), path=Path("/x"), colour=Colour.RED, big=2**80, nan=float("nan"),
        raw_bytes=b"abc", keys={1: "a", None: "b"}, error=ValueError("no"), set={1}, lone="\ud800",
    )  # fmt: skip
    (line,) = lines()
    assert line["id"] == "00000000-0000-0000-0000-000000000001"
    assert (line["path"], line["colour"], line["big"]) == ("/x", "red", "<81 bits>")
    assert (line["nan"], line["raw_bytes"], line["lone"]) == ("nan", "<3 bytes>", "\\ud800")
    assert (line["keys"], line["error"]) == ({"1": "a", "None": "b"}, "ValueError: no")
    assert line["set"] == [1]


def test_a_line_is_bounded(lines: Lines, out: io.StringIO) -> None:
    loop: list[Any] = []
    loop.append(loop)
    log.info("big", note="x" * 10**6, items=list(range(10**5)), loop=loop)
    log.info("wide", **{f"k{n}": n for n in range(1000)})
    big, wide = lines()
    assert "(1000000 characters)" in big["note"]
    assert len(big["items"]) == 100
    assert (wide["action"], wide["level"], wide["left_out"]) == ("wide", "info", 902)
    assert len(out.getvalue()) < 40_000


class Hostile:
    def __repr__(self) -> str:
        raise RuntimeError("no repr")

    __str__ = __repr__


@pytest.mark.parametrize(
    "call",
    [
        lambda: log.info("odd", prompt=Hostile()),
        lambda: log.info("odd", error=ValueError(Hostile())),
        lambda: logging.getLogger("x").warning("%d", "no number"),
        lambda: logging.getLogger("x").warning("%s", Hostile()),
    ],
)
def test_a_line_that_cannot_be_written_is_replaced(
    lines: Lines, out: io.StringIO, call: Any
) -> None:
    logging.getLogger().handlers.clear()  # the test runner's own raises on purpose
    logs.configure("json", "debug", False, out)
    call()
    log.info("after")
    failed, after = lines()
    assert (failed["action"], failed["level"]) == ("log_failed", "error")
    assert after["action"] == "after"


def test_a_stream_that_is_gone_does_not_stop_the_service() -> None:
    logs.configure("json", "info", False, Broken())
    log.info("lost")
    closed = io.StringIO()
    logs.configure("json", "info", False, closed)
    closed.close()
    log.info("lost")
    logging.getLogger("x").warning("lost")


def test_lines_of_threads_do_not_mix(lines: Lines) -> None:
    def work(name: str) -> None:
        for n in range(50):
            log.info("step", name=name, n=n)

    threads = [threading.Thread(target=work, args=(f"t{n}",)) for n in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(lines()) == 200


VALUES = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text() | st.binary(),
    lambda inner: (
        st.lists(inner)
        | st.tuples(inner, inner)
        | st.dictionaries(st.text() | st.integers(), inner)
    ),
    max_leaves=8,
)


@settings(max_examples=40, deadline=None, derandomize=True)
@given(st.dictionaries(st.from_regex(r"[a-z_]{1,12}", fullmatch=True), VALUES, max_size=4))
def test_whatever_is_logged_is_one_json_line(fields: dict[str, Any]) -> None:
    fields = {f"f_{key}": value for key, value in fields.items()}
    logs.configure("json", "info", False, out := io.StringIO())
    log.info("odd", **fields)
    (text,) = out.getvalue().split("\n")[:-1]
    assert json.loads(text)["action"] == "odd"
