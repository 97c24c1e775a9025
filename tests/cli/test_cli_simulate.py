"""``ourvidz simulate``: rows of JSON, and what is said of files that cannot be used."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from support.command import CONFIG, Cli

from scheduler.contest import CONTESTANTS

PROFILE = """
[device]
vram_bytes = 100
host_pinned_bytes = 100
[links]
disk_to_host = 10
host_to_device = 100
[links_naive]
disk_to_device = 5
[slo_seconds]
chat = 15
enhance_base = 15
enhance_instruct = 15
sdxl_generate = 30
wan_generate = 600
[components]
"qwen" = 50
[[phase]]
types = ["chat"]
name = "generate"
components = ["qwen"]
token_seconds = 0.25
"""
CHAT = {"type": "chat", "user": "u", "tokens": 4}


@pytest.fixture
def files(tmp_path: Path) -> tuple[Path, Path]:
    """A workload of two chats, with a byte order mark and an empty line, and its profile."""
    lines = [json.dumps(CHAT | {"id": name, "arrival_s": 0.5}) for name in "ab"]
    workload, profile = tmp_path / "w.jsonl", tmp_path / "p.toml"
    workload.write_text("\ufeff" + "\r\n\n".join(lines) + "\n", encoding="utf-8")
    profile.write_text(PROFILE)
    return workload, profile


def test_one_object_a_line_and_policy(cli: Cli, files: tuple[Path, Path]) -> None:
    for flags in ([], ["--json"], ["--policy", "default"], ["--config", str(CONFIG)]):
        done = cli("simulate", *map(str, files), *flags)
        assert (done.code, done.err) == (0, "")
        (row,) = map(json.loads, done.out.splitlines())
        assert (row["policy"], row["jobs"], row["mean_flow_s"]) == ("default", 2, 2.0)
    done = cli("simulate", *map(str, files), "--policy", "all", "--json")
    rows = [json.loads(line) for line in done.out.splitlines()]
    assert [row["policy"] for row in rows] == list(CONTESTANTS)
    assert {row["bound_mean_flow_s"] for row in rows} == {1.5}


def test_a_table_on_a_terminal(
    cli: Cli, files: tuple[Path, Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("sys.stdout.isatty", lambda: True, raising=False)
    done = cli("simulate", *map(str, files))
    assert "default" in done.out
    assert "100.0%" in done.out


def test_a_policy_that_does_not_exist(cli: Cli, files: tuple[Path, Path]) -> None:
    done = cli("simulate", *map(str, files), "--policy", "lifo")
    assert done.code == 2
    assert "allowed: default, fifo-exclusive" in " ".join(done.err.split())


@pytest.mark.parametrize(
    ("name", "content", "said"),
    [
        ("w.jsonl", b"", "w.jsonl: the workload has no requests"),
        ("w.jsonl", b"{}\n", "w.jsonl: line 1: type is missing"),
        ("w.jsonl", b"\n{\n", "w.jsonl: line 2 is not JSON"),
        ("w.jsonl", b"\xff\n", "w.jsonl: line 1 is not JSON"),
        ("p.toml", b"", "p.toml: [device] is missing"),
        ("p.toml", b"=", "p.toml is not TOML"),
        ("p.toml", b"\xff", "p.toml is not TOML"),
        ("p.toml", b"a = " + b"[" * 3000, "p.toml nests too deeply"),
        ("p.toml", b"a = " + b"1" * 5000, "p.toml is not TOML: Exceeds the limit"),
        (
            "p.toml",
            PROFILE.replace("vram_bytes = 100", f"vram_bytes = 0x{'f' * 20000}").encode(),
            "vram_bytes is a number with too many digits, allowed: a number from 0",
        ),
        ("p.toml", PROFILE.replace("vram_bytes = 100", "vram_bytes = 40").encode(), "needs 50"),
        ("p.toml", PROFILE.replace('["chat"]', '["enhance_base"]').encode(), "for type chat"),
    ],
)
def test_files_that_cannot_be_used(
    cli: Cli, files: tuple[Path, Path], name: str, content: bytes, said: str
) -> None:
    (files[0].parent / name).write_bytes(content)
    done = cli("simulate", *map(str, files))
    assert (done.code, done.out) == (1, "")
    assert said in done.err
    assert "Traceback" not in done.err


def test_files_that_are_not_there(cli: Cli, files: tuple[Path, Path]) -> None:
    done = cli("simulate", str(files[0]), str(files[1].parent))
    assert done.code == 1
    assert "cannot be read: Is a directory" in done.err
    done = cli("simulate", "nowhere.jsonl", str(files[1]))
    assert "nowhere.jsonl cannot be read: No such file or directory" in done.err
