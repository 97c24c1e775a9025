"""``config check`` and ``config show``, and the options that say what the configuration is."""

from __future__ import annotations

import tomllib
from pathlib import Path

import pytest
from support.command import CONFIG, Cli

from ourvidz.redact import REDACTED

REST = CONFIG.read_text(encoding="utf-8")


def write(path: Path, old: str, new: str) -> Path:
    assert REST.count(old) == 1
    path.write_text(REST.replace(old, new), encoding="utf-8")
    return path


def line_of(path: Path, text: str) -> int:
    return path.read_text(encoding="utf-8").splitlines().index(text) + 1


def test_the_embedded_default_is_ok(cli: Cli) -> None:
    assert cli("config", "check", str(CONFIG)).out == "ok\n"
    assert cli("--config", str(CONFIG), "config", "check").out == "ok\n"
    assert cli("config", "check", "--config", str(CONFIG)).out == "ok\n"


@pytest.mark.parametrize(
    ("new", "said"),
    [
        ("prot = 7860", "http.prot = 7860: unknown key; [http] knows "),
        ('port = "seven"', 'http.port = "seven": must be an integer from 0 to 65535'),
        ("port = 70000", "http.port = 70000: must be an integer from 0 to 65535"),
    ],
    ids=["unknown key", "wrong type", "out of range"],
)
def test_check_says_where_what_and_what_is_allowed(
    cli: Cli, tmp_path: Path, new: str, said: str
) -> None:
    path = write(tmp_path / "own.toml", "port = 7860\n", f"{new}\n")
    done = cli("config", "check", "own.toml")
    assert done.code == 78
    assert done.out.startswith(f"own.toml:{line_of(path, new)}: {said}")
    assert done.out.count("\n") == 1


def test_check_names_the_nearest_key(cli: Cli, tmp_path: Path) -> None:
    write(tmp_path / "own.toml", "port = 7860\n", "prot = 7860\n")
    assert cli("config", "check", "own.toml").out.endswith("; did you mean http.port?\n")


def test_check_reports_every_problem(cli: Cli, tmp_path: Path) -> None:
    text = REST.replace("port = 7860", "port = -1").replace("threads = 2", "threads = 0")
    (tmp_path / "own.toml").write_text(text, encoding="utf-8")
    done = cli("config", "check", "own.toml")
    assert [line.split(": ")[1].split(" =")[0] for line in done.out.splitlines()] == [
        "http.port",
        "device.threads",
    ]


def test_check_of_what_is_no_toml(cli: Cli, tmp_path: Path) -> None:
    (tmp_path / "own.toml").write_text("[http]\nport = = 1\n", encoding="utf-8")
    done = cli("config", "check", "own.toml")
    assert done.code == 78
    assert done.out.startswith("own.toml:2: ")
    assert "Traceback" not in done.out + done.err


def test_check_of_a_file_that_is_not_there(cli: Cli) -> None:
    done = cli("config", "check", "none.toml")
    assert done.code == 78
    assert "none.toml" in done.out


def test_check_without_a_file_looks_at_what_serve_would_use(
    cli: Cli, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("OURVIDZ_CONFIG", str(CONFIG))
    assert cli("config", "check").code == 0
    monkeypatch.setenv("OURVIDZ__HTTP__HOST", "0.0.0.0")
    done = cli("config", "check")
    assert done.code == 78
    assert "OURVIDZ__HTTP__HOST" in done.out
    assert "OURVIDZ_TOKEN" in done.out
    assert cli("config", "check", str(CONFIG)).code == 0


def test_check_takes_flags(cli: Cli) -> None:
    done = cli("config", "check", str(CONFIG), "--set", "http.port=x", "--set", "nothing=1")
    assert done.code == 78
    assert "command line: http.port" in done.out
    assert "command line: nothing" in done.out


def test_show_is_toml_without_secrets(cli: Cli, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OURVIDZ_TOKEN", "hunter2hunter2")
    done = cli("config", "show", "--config", str(CONFIG), "--set", "http.port=1")
    assert done.code == 0
    assert "hunter2" not in done.out
    shown = tomllib.loads(done.out)
    assert shown["http"]["port"] == 1
    assert shown["secrets"] == {"ourvidz_token": REDACTED}
    assert "port = 1  # command line" in done.out


def test_flags_stand_before_and_behind_the_verb_and_the_last_one_wins(cli: Cli) -> None:
    before = ("--config", str(CONFIG), "--set", "http.port=1", "--set", "device.index=3")
    done = cli(*before, "config", "show", "--set", "http.port=2", "--set", "http.port=4")
    shown = tomllib.loads(done.out)
    assert (shown["http"]["port"], shown["device"]["index"]) == (4, 3)


def test_the_file_behind_the_verb_wins(cli: Cli, tmp_path: Path) -> None:
    write(tmp_path / "own.toml", "port = 7860\n", "port = 7\n")
    done = cli("--config", "none.toml", "config", "show", "--config", "own.toml")
    assert tomllib.loads(done.out)["http"]["port"] == 7


@pytest.mark.parametrize("flag", ["http.port", "=1", " =1"])
def test_a_flag_that_sets_nothing_is_a_usage_error(cli: Cli, flag: str) -> None:
    done = cli("config", "show", "--config", str(CONFIG), "--set", flag)
    assert done.code == 2
    assert "is not KEY=VALUE" in done.err


@pytest.mark.parametrize(
    "verb", [("serve",), ("config", "show"), ("jobs", "list"), ("ps",), ("models", "list")]
)
def test_every_verb_tells_a_wrong_configuration_on_standard_error(
    cli: Cli, verb: tuple[str, ...]
) -> None:
    done = cli(*verb, "--config", str(CONFIG), "--set", "http.port=x", "--set", "device.threads=0")
    assert done.code == 78
    assert [line.split(" =")[0] for line in done.err.splitlines()] == [
        "command line: http.port",
        "command line: device.threads",
    ]


def test_without_any_file_the_error_says_how_to_name_one(cli: Cli) -> None:
    done = cli("serve")
    assert done.code == 78
    assert "--config" in done.err


def test_the_demo_takes_no_keys(cli: Cli) -> None:
    done = cli("--set", "http.port=1", "demo")
    assert done.code == 2
    assert "the demo sets its own keys" in done.err
