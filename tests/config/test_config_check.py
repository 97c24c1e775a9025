"""What is wrong with a file: its line and value, what is allowed and what was meant."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from ourvidz.config import EX_CONFIG, ConfigError, Problem, check, load

EXAMPLE = Path(__file__).parents[2] / "config.toml"


def only(problems: list[Problem]) -> Problem:
    assert len(problems) == 1, [str(p) for p in problems]
    return problems[0]


def test_the_exit_code_is_the_one_of_sysexits() -> None:
    assert EX_CONFIG == 78


def test_a_good_file_has_no_problem(write: Any) -> None:
    assert check(write()) == []


@pytest.mark.parametrize(
    ("old", "new", "line", "key", "value", "allowed", "nearest"),
    [
        # unknown keys
        ('kind = "cpu"', 'knd = "cpu"', 5, "device.knd", "cpu", "knows kind, index", "device.kind"),
        ("index = 0", "port = 1", 6, "device.port", 1, "unknown key", "http.port"),
        ("[device]", "[devise]", 4, "devise", None, "unknown key", "device"),
        ("[device]", "budget_bytes = 9\n[device]", 4, "service.budget_bytes", 9, "unknown key",
         "device.budget_bytes"),
        ("[service]", "zzzz = 1\n[service]", 1, "zzzz", 1, "the root knows service", None),
        ('family = "sdxl"', 'famly = 1\nfamily = "sdxl"', 19, "models.sdxl.famly", 1,
         "[models.sdxl]", "models.sdxl.family"),
        ("max = 150", "max = 150, mx = 2", 12, "limits.steps.mx", 2, "unknown", "limits.steps.max"),
        ("index = 0", '"in dex" = 0', 6, 'device."in dex"', 0, "unknown key", "device.index"),
        # wrong types
        ('kind = "cpu"', "kind = 3", 5, "device.kind", 3, 'one of "cpu", "cuda"', None),
        ("port = 7860", 'port = "7860"', 9, "http.port", "7860", "integer from 0 to 65535", None),
        ("port = 7860", "port = 7860.0", 9, "http.port", 7860.0, "an integer from 0", None),
        ("port = 7860", "port = true", 9, "http.port", True, "an integer from 0", None),
        ("port = 7860", "port = 2024-01-01", 9, "http.port", None, "an integer from 0", None),
        ("port = 7860", "enabled = 1", 9, "http.enabled", 1, "true or false", None),
        ("port = 7860", 'enabled = "yes"', 9, "http.enabled", "yes", "true or false", None),
        ('data_dir = "state"', "data_dir = []", 2, "service.data_dir", [], "a path", None),
        ("steps = { min = 1, max = 150 }", "steps = 5", 12, "limits.steps", 5, "a table", None),
        ('types = ["sdxl_generate"]', 'types = "chat"', 23, "queues.sdxl_queue.types", "chat",
         "a list of", None),
        ('path = "models/sdxl"', 'path = "x"\nconfig_path = 07:32:00', 21,
         "models.sdxl.config_path", None, "a path, or empty", None),
        # out of range
        ('kind = "cpu"', 'kind = "gpu"', 5, "device.kind", "gpu", 'one of "cpu", "cuda"', None),
        ("index = 0", "index = -1", 6, "device.index", -1, "an integer from 0 to 63", None),
        ("port = 7860", "port = 65536", 9, "http.port", 65536, "from 0 to 65535", None),
        ("port = 7860", "port = 0x" + "f" * 4000, 9, "http.port", None, "from 0 to 65535", None),
        ("port = 7860", "wait_seconds_max = nan", 9, "http.wait_seconds_max", None, "above", None),
        ("port = 7860", "wait_seconds_max = inf", 9, "http.wait_seconds_max", None, "above", None),
        ("port = 7860", "wait_seconds_max = 0", 9, "http.wait_seconds_max", 0, "above 0", None),
        ("port = 7860", 'host = "http://x"', 9, "http.host", "http://x", "without scheme", None),
        ("port = 7860", 'default_user_id = "1"', 9, "http.default_user_id", "1", "a UUID", None),
        ('data_dir = "state"', 'data_dir = " "', 2, "service.data_dir", " ", "not empty", None),
        ('data_dir = "state"', r'data_dir = "a\u0000b"', 2, "service.data_dir", None, "path", None),
        ('wan = "two"', 'wan = ""', 16, "enhancement.wan", "", "1 to 4000 characters", None),
        ("[models.sdxl]", "[models.Sdxl]", 18, "models.Sdxl", None, "lower-case letters", None),
        ("[models.sdxl]", "[models.a__b]", 18, "models.a__b", None, "lower-case letters", None),
        ('types = ["sdxl_generate"]', 'types = [\n"chat",\n"nope"]', 25,
         "queues.sdxl_queue.types[1]", "nope", 'one of "sdxl_generate"', None),
        # required
        ('path = "models/sdxl"\n', "", 18, "models.sdxl.path", None,
         "is required and must be a path", None),
        ('wan = "two"\n', "", 14, "enhancement.wan", None, "is required", None),
        # one key against another
        ("index = 0", "budget_bytes = 5\nreserve_bytes = 5", 7, "device.reserve_bytes", 5,
         "less than budget_bytes (5)", None),
        ("index = 0", "budget_bytes = 0", 4, "device.reserve_bytes", None, "less than", None),
        ("min = 1, max = 150", "min = 9, max = 8", 12, "limits.steps.min", 9, "exceed max", None),
        ("[http]", "[intake]\nlease_seconds = 5\nrenew_seconds = 5\n[http]", 10,
         "intake.renew_seconds", 5, "less than lease_seconds (5)", None),
        ("[http]", "[callback]\nretry_seconds_min = 9\nretry_seconds_max = 8\n[http]", 9,
         "callback.retry_seconds_min", 9, "exceed retry_seconds_max (8)", None),
        ("[http]", '[callback]\nurl = "ftp://h/x"\n[http]', 9, "callback.url", "ftp://h/x",
         "http:// or https://", None),
        ("[http]", '[store]\nkind = "s3"\n[http]', 8, "store.endpoint", None,
         'must be set where kind is "s3"', None),
        ("[http]", '[store]\nkind = "presigned"\nendpoint = "https://h/s3"\n[http]', 8,
         "store.presign_url", None, 'must be set where kind is "presigned"', None),
        ("[http]", '[store]\nkind = "gcs"\n[http]', 9, "store.kind", "gcs",
         'one of "folder", "s3", "presigned"', None),
        ("[http]", '[store]\nendpoint = "h.example/s3"\n[http]', 9, "store.endpoint",
         "h.example/s3", "http:// or https://", None),
        ("[http]", "[store]\npart_bytes = 1_000_000\n[http]", 9, "store.part_bytes", 1_000_000,
         "from 5242880", None),
        ("[http]", '[store]\ncache_control = "a\\nb"\n[http]', 9, "store.cache_control", None,
         "printable", None),
        ("[http]", '[store]\nendpont = ""\n[http]', 9, "store.endpont", "", "unknown key",
         "store.endpoint"),
        ('job_class = "fast"', 'job_class = "quick"', 27, "legacy_types.sdxl_image_fast.job_class",
         "quick", "scheduler.class_weights: fast, normal", None),
        ("[queues.sdxl_queue]\ntypes = [\"sdxl_generate\"]", "[queues]", 22, "queues", None,
         "at least one", None),
        ("[queues.sdxl_queue]", '[queues.a]\ntypes = ["sdxl_generate"]\n[queues.sdxl_queue]', 25,
         "queues.sdxl_queue.types[0]", "sdxl_generate", "not also be in a", None),
    ],
)  # fmt: skip
def test_each_mistake_is_named(
    write: Any, old: str, new: str, line: int, key: str, value: Any, allowed: str, nearest: str
) -> None:
    path = write((old, new))
    problem = only(check(path))
    assert (problem.file, problem.line, problem.key_path) == (str(path), line, key)
    assert allowed in problem.message
    assert problem.nearest == nearest
    if value is not None:
        assert problem.value == value
        assert type(problem.value) is type(value)


@pytest.mark.parametrize("table", ["models", "queues", "legacy_types", "enhancement"])
def test_the_tables_that_only_a_file_can_give_are_required(write: Any, table: str) -> None:
    text = "\n".join(f"[{t}]" for t in ("models", "queues", "legacy_types") if t != table)
    text += "" if table == "enhancement" else "\n[enhancement]\nsdxl='a'\nwan='b'\n"
    missing = [p for p in check(write(text=text)) if p.key_path == table]
    assert "is required" in only(missing).message


@pytest.mark.parametrize(
    ("raw", "line", "message"),
    [
        (b"a = 1\na = 2\n", 2, "no valid TOML: Cannot overwrite a value"),
        (b"[a\n", 1, "no valid TOML: Expected ']'"),
        (b"a = 1\nb = \n", 2, "no valid TOML: Invalid value"),
        (b"a = 1\n\nb = '''x", 3, "no valid TOML: Expected \"'''\""),
        (b"a = 1\n\nb = '\xff'\n", 3, "UTF-8"),
        (b"a = " + b"[" * 40 + b"]" * 40, None, "deeper than 32"),
        (b"a = " + b"[" * 9000 + b"]" * 9000, None, "deeper than 32"),
        (b"a = " + b"9" * 5000, None, "4300 digits"),
        (b"#" * (1 << 20) + b"\n", None, "at most 1048576 bytes"),
    ],
)
def test_a_file_that_cannot_be_read_as_toml(
    tmp_path: Path, raw: bytes, line: Any, message: str
) -> None:
    path = tmp_path / "config.toml"
    path.write_bytes(raw)
    problem = only(check(path))
    assert (problem.file, problem.line, problem.key_path) == (str(path), line, "")
    assert message in problem.message


def test_a_byte_order_mark_is_no_mistake(write: Any) -> None:
    path = write()
    path.write_bytes(b"\xef\xbb\xbf" + path.read_bytes())
    assert check(path) == []


def test_a_file_that_is_missing_or_a_folder(tmp_path: Path) -> None:
    assert "No such file" in only(check(tmp_path / "none.toml")).message
    assert "directory" in only(check(tmp_path)).message


def test_several_problems_are_all_reported_in_the_order_of_the_file(write: Any) -> None:
    path = write(
        ('kind = "cpu"', 'kind = "gpu"'), ("port = 7860", "prt = 1"), ("width = 1024", "width = 1")
    )
    assert [p.line for p in check(path)] == [5, 9, 30]


def test_the_number_of_problems_is_bounded(write: Any) -> None:
    text = "\n".join(f"key{n} = {n}" for n in range(500))
    assert len(check(write(text=text))) == 100


def test_a_problem_reads_like_a_compiler_message(write: Any) -> None:
    path = write(('kind = "cpu"', 'kind = "gpu"'))
    expected = f'{path}:5: device.kind = "gpu": must be one of "cpu", "cuda"'
    assert str(only(check(path))) == expected
    unknown = str(only(check(write(("index = 0", "indx = 0")))))
    assert unknown.startswith(f"{path}:6: device.indx = 0: unknown key; [device] knows kind, ")
    assert unknown.endswith("; did you mean device.index?")


@pytest.mark.parametrize(
    ("value", "text"),
    [
        ("a\nb\x1b[2J", r'"a\nb\u001b[2J"'),
        ("x" * 200, '"' + "x" * 80 + '..."'),
        ({"a": 1}, "{...}"),
        ([], "[]"),
        (False, "false"),
        (1 << 80, "an integer of 81 bits"),
        ("https://u:pw@h/", '"https://**redacted**@h/"'),
    ],
)
def test_values_are_shown_short_printable_and_without_secrets(value: Any, text: str) -> None:
    assert str(Problem("f", 1, "k", value, "m")) == f"f:1: k = {text}: m"


def test_the_error_of_a_load_carries_the_problems(write: Any) -> None:
    with pytest.raises(ConfigError, match=r"device\.kind") as caught:
        load(write(('kind = "cpu"', 'kind = "gpu"'), ("port = 7860", "port = -1")), {})
    assert [p.key_path for p in caught.value.problems] == ["device.kind", "http.port"]
    assert str(caught.value).count("\n") == 1
    assert caught.value.retryable is False


@settings(
    max_examples=40,
    deadline=None,
    derandomize=True,
    suppress_health_check=[HealthCheck.function_scoped_fixture],
)
@given(
    st.integers(0, 900),
    st.sampled_from(["", "\n", "[", "]", "{", "}", '"', "'", "=", ".", "#", "0", "x", "[[a]]\n"]),
    st.integers(0, 30),
)
def test_no_file_however_odd_is_more_than_a_list_of_problems(
    write: Any, at: int, put: str, cut: int
) -> None:
    text = write().read_text(encoding="utf-8")
    path = write(text=text[:at] + put + text[at + cut :])
    for problem in check(path):
        assert problem.file == str(path)
        assert problem.message
        assert "\n" not in str(problem)
    write()
