"""The house's sizes and manners, checked over every tracked file."""

from __future__ import annotations

import ast
import re
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
FUNCTION_LINES_MAX = 60
FILE_LINES_MAX = 400
TEST_FILE_LINES_MAX = 500
COLUMNS_MAX = 100
UNFINISHED = re.compile(r"\b(TODO|FIXME|XXX|HACK|NotImplementedError)\b")
BANNER = re.compile(r"^\s*(#|//|--).*[-=*#~_]{5,}\s*$")
EMOJI = re.compile("[\U0001f300-\U0001faff\u2600-\u27bf\ufe0f]")


def tracked(*patterns: str) -> list[Path]:
    command = ["git", "ls-files", "--cached", "--others", "--exclude-standard", *patterns]
    listed = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=True)
    return [ROOT / line for line in listed.stdout.splitlines() if (ROOT / line).is_file()]


def functions(path: Path) -> Iterator[tuple[str, int]]:
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
            yield node.name, (node.end_lineno or node.lineno) - node.lineno + 1


def relative(path: Path) -> str:
    return str(path.relative_to(ROOT))


def lines_max(path: Path) -> int:
    return TEST_FILE_LINES_MAX if relative(path).startswith("tests/") else FILE_LINES_MAX


def test_no_function_is_longer_than_a_screen() -> None:
    found = [
        f"{relative(path)}: {name} has {lines} lines"
        for path in tracked("*.py")
        for name, lines in functions(path)
        if lines > FUNCTION_LINES_MAX
    ]
    assert not found


def test_no_module_is_too_long_to_read_in_one_sitting() -> None:
    found = {
        relative(path): lines
        for path in tracked("*.py")
        if (lines := path.read_text(encoding="utf-8").count("\n")) > lines_max(path)
    }
    assert not found


@pytest.mark.parametrize("pattern", [UNFINISHED, EMOJI], ids=["unfinished marks", "emoji"])
def test_nothing_unfinished_or_shouting_is_committed(pattern: re.Pattern[str]) -> None:
    texts = tracked("*.py", "*.md", "*.toml", "Makefile", "*.yml", "*.sql", "*.ts", "deploy/*")
    found = [
        f"{relative(path)}:{number}"
        for path in texts
        if "tests" not in path.parts  # where odd text is data
        for number, line in enumerate(path.read_text(encoding="utf-8").splitlines(), 1)
        if pattern.search(line)
    ]
    assert not found


def test_no_comment_is_a_banner() -> None:
    found = [
        f"{relative(path)}:{number}"
        for path in tracked("*.py", "*.toml", "*.ts", "*.mjs", "Makefile", ".ci/*")
        for number, line in enumerate(path.read_text(encoding="utf-8").splitlines(), 1)
        if BANNER.search(line)
    ]
    assert not found


def test_lines_fit_the_page() -> None:
    found = [
        f"{relative(path)}:{number}"
        for path in tracked("*.py", "*.toml")
        for number, line in enumerate(path.read_text(encoding="utf-8").splitlines(), 1)
        if len(line) > COLUMNS_MAX
    ]
    assert not found


def test_every_module_says_what_it_is_for() -> None:
    packages = ("ourvidz", "scheduler", "pipelines", "bench")
    modules = [path for path in tracked("*.py") if relative(path).split("/")[0] in packages]
    found = [
        relative(path)
        for path in modules
        if path.read_text(encoding="utf-8").strip()
        and ast.get_docstring(ast.parse(path.read_text(encoding="utf-8"))) is None
    ]
    assert not found


def test_no_large_file_is_committed() -> None:
    found = {
        relative(path): path.stat().st_size for path in tracked() if path.stat().st_size > 10**6
    }
    assert not found
