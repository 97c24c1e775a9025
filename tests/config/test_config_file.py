"""``config.toml``: complete, commented, and the same as the defaults in the code."""

from __future__ import annotations

import re
import tomllib
from pathlib import Path

import pytest

from ourvidz.config import Settings, check, load
from ourvidz.config.positions import positions
from ourvidz.config.schema import KeyPath, dotted, node, patterns

FILE = Path(__file__).parents[2] / "config.toml"
TEXT = FILE.read_text(encoding="utf-8")
DATA = tomllib.loads(TEXT)
LINES = TEXT.splitlines()
NAMED = ("models", "queues", "legacy_types")
LEGACY = {
    "sdxl_image_fast": ("sdxl_generate", "fast", None, 15, 6.0, 1024, 1024, None),
    "sdxl_image_high": ("sdxl_generate", "normal", None, 25, 7.5, 1024, 1024, None),
    "image_fast": ("wan_generate", "fast", None, 25, 6.5, 480, 832, 1),
    "image_high": ("wan_generate", "normal", None, 50, 7.5, 480, 832, 1),
    "video_fast": ("wan_generate", "fast", None, 25, 6.5, 480, 832, 81),
    "video_high": ("wan_generate", "normal", None, 50, 7.5, 480, 832, 81),
    "wan_video_fast": ("wan_generate", "fast", None, 25, 6.5, 480, 832, 81),
    "wan_video_high": ("wan_generate", "normal", None, 50, 7.5, 480, 832, 81),
    "image7b_fast_enhanced": ("wan_generate", "fast", "base", 25, 6.5, 480, 832, 1),
    "image7b_high_enhanced": ("wan_generate", "normal", "base", 50, 7.5, 480, 832, 1),
    "video7b_fast_enhanced": ("wan_generate", "fast", "base", 25, 6.5, 480, 832, 81),
    "video7b_high_enhanced": ("wan_generate", "normal", "base", 50, 7.5, 480, 832, 81),
}


def pattern(path: KeyPath) -> KeyPath:
    if path[0] in NAMED or path[:2] == ("scheduler", "class_weights"):
        at = 1 if path[0] in NAMED else 2
        return (*path[:at], "*", *path[at + 1 :]) if len(path) > at else path
    return path


def leaves(table: dict[str, object], path: KeyPath = ()) -> list[KeyPath]:
    found: list[KeyPath] = []
    for key, value in table.items():
        inner = isinstance(value, dict)
        found += leaves(value, (*path, key)) if inner else [(*path, key)]  # type: ignore[arg-type]
    return found


def first_lines() -> dict[KeyPath, int]:
    """The line on which each kind of key first stands."""
    lines: dict[KeyPath, int] = {}
    at = positions(TEXT)
    for path in leaves(DATA):
        lines[pattern(path)] = min(lines.get(pattern(path), 10**6), at[path])
    return lines


def comment_above(line: int) -> str:
    start = line - 1
    while start > 0 and LINES[start - 1].startswith("#"):
        start -= 1
    return " ".join(text.lstrip("# ") for text in LINES[start : line - 1])


def test_the_file_holds_every_key_of_the_settings_and_no_other() -> None:
    assert {dotted(p) for p in first_lines()} == {dotted(p) for p in patterns()}


def test_the_file_has_no_problem_and_loads() -> None:
    assert check(FILE) == []
    settings = load(FILE, {})
    assert settings.device.kind == "cpu"
    assert set(settings.models) == {"sdxl", "wan", "qwen_base", "qwen_instruct"}
    assert list(settings.queues) == ["sdxl_queue", "wan_queue", "chat_queue"]


@pytest.mark.parametrize("path", patterns(), ids=dotted)
def test_every_key_is_explained_above_its_first_line(path: KeyPath) -> None:
    comment = comment_above(first_lines()[path])
    assert len(comment) > 10, f"{dotted(path)} has no comment"
    default = (node(path) or {}).get("default")
    if default is None or path[-1] == "config_path":
        return
    assert "default" in comment.lower()
    if isinstance(default, bool):
        assert f"default {str(default).lower()}" in comment
    elif isinstance(default, int | float):
        numbers = re.findall(r"\d[\d.]*(?:e\d+)?", comment.split("default", 1)[1])
        assert default in [float(n.rstrip(".")) for n in numbers], comment


def test_every_table_has_a_comment() -> None:
    headers = [n for n, line in enumerate(LINES, 1) if line.startswith("[")]
    assert headers
    assert [LINES[n - 1] for n in headers if not comment_above(n)] == []


def test_what_the_file_states_is_what_the_code_takes_without_it() -> None:
    required = {key: DATA[key] for key in (*NAMED, "enhancement")}
    from_code = Settings.model_validate(required)
    from_file = Settings.model_validate(DATA)
    assert from_file == from_code


def test_the_legacy_types_stand_for_what_the_old_service_did() -> None:
    table = load(FILE, {}).legacy_types
    assert {name: tuple(vars(entry).values()) for name, entry in table.items()} == LEGACY


def test_lines_are_at_most_100_columns() -> None:
    assert [line for line in LINES if len(line) > 100] == []
