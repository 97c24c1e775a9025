"""What looking up help costs: no library that a verb works with."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

from support.command import CONFIG, Cli

from ourvidz import __version__

# Every help text in one process, then a verb that talks to a service which is not there.
_WALK = """
import contextlib, io, json, sys
import typer
from ourvidz.cli.exits import guarded
from ourvidz.cli.main import app

def run(*arguments):
    with contextlib.redirect_stdout(io.StringIO()), contextlib.redirect_stderr(io.StringIO()):
        try:
            guarded(lambda: app(list(arguments)))
        except SystemExit as exited:
            return exited.code or 0

def walk(command, path):
    yield path
    for name, inner in getattr(command, "commands", {}).items():
        yield from walk(inner, (*path, name))

paths = list(walk(typer.main.get_command(app), ()))
codes = {" ".join(path): run(*path, "--help") for path in paths}
after_help = sorted(sys.modules)
code = run("jobs", "list", "--url", "http://127.0.0.1:1")
print(json.dumps({"codes": codes, "help": after_help, "jobs": [code, sorted(sys.modules)]}))
"""
_VERBS = {
    *("", "serve", "demo", "submit", "ps", "simulate", "replay"),
    "version",
    *("jobs", "jobs list", "jobs show", "jobs cancel"),
    "dead-letters",
    *("callbacks", "callbacks list", "callbacks retry"),
    *("models", "models list", "models verify", "models make-tiny"),
    *("config", "config check", "config show"),
}
_HEAVY = {"torch", "diffusers", "transformers", "accelerate", "av", "PIL"}
_SERVER = {"fastapi", "uvicorn", "aioboto3", "sqlite3"}
_OF_THE_VERBS = {"numpy", "httpx", "anyio", "structlog"}


def test_help_and_the_client_verbs_import_nothing_that_they_do_not_use(tmp_path: Path) -> None:
    done = subprocess.run(
        [sys.executable, "-c", _WALK], cwd=tmp_path, capture_output=True, text=True, check=True
    )
    found = json.loads(done.stdout)
    assert set(found["codes"]) == _VERBS
    assert set(found["codes"].values()) == {0}
    assert sorted(set(found["help"]) & (_HEAVY | _SERVER | _OF_THE_VERBS)) == []
    code, modules = found["jobs"]
    assert code == 75
    assert sorted(set(modules) & (_HEAVY | _SERVER | {"numpy"})) == []


def test_the_module_runs(tmp_path: Path) -> None:
    done = subprocess.run(
        [sys.executable, "-m", "ourvidz", "version"],
        cwd=tmp_path,
        capture_output=True,
        text=True,
        check=True,
    )
    assert done.stdout == f"ourvidz {__version__}\n"


def test_text_that_the_terminal_cannot_show_is_escaped(tmp_path: Path) -> None:
    flags = ("--config", str(CONFIG), "--set", "models.sdxl.label=\N{PEAR}")
    done = subprocess.run(
        [sys.executable, "-m", "ourvidz", "config", "show", *flags],
        cwd=tmp_path,
        env={"PYTHONIOENCODING": "latin-1"},
        capture_output=True,
        text=True,
        check=True,
    )
    assert 'label = "\\U0001f350"' in done.stdout


def test_a_command_line_that_is_wrong_is_a_usage_error(cli: Cli) -> None:
    for arguments in (("nonsense",), ("serve", "--nonsense"), ("jobs", "list", "--limit", "0")):
        done = cli(*arguments)
        assert done.code == 2, arguments
        assert "Usage: " in done.err
