"""``docs/reliability.md`` names tests that exist."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

REPOSITORY = Path(__file__).parents[1]
TEXT = (REPOSITORY / "docs" / "reliability.md").read_text(encoding="utf-8")


def test_every_test_that_is_named_is_there() -> None:
    named = re.findall(r"`(tests/[\w/]+\.py)(?:::(\w+))?`", TEXT)
    assert len(named) > 20
    missing = [
        f"{path}::{name}"
        for path, name in named
        if not re.search(rf"^\s*(async )?def {name or 'test_'}", source(path), re.MULTILINE)
    ]
    assert not missing


@pytest.mark.parametrize("section", ["Guarantees", "When the device fails"])
def test_every_promise_has_a_test(section: str) -> None:
    (text,) = re.findall(rf"^## {section}\n(.*?)(?=^## |\Z)", TEXT, re.MULTILINE | re.DOTALL)
    _head, _rule, *rows = [line for line in text.splitlines() if line.startswith("|")]
    assert len(rows) > 5
    assert [row for row in rows if "`tests/" not in row.rsplit(" | ", 1)[1]] == []


def test_every_alarm_is_explained() -> None:
    (text,) = re.findall(r"^## Alarms\n(.*?)(?=^## )", TEXT, re.MULTILINE | re.DOTALL)
    explained = set(re.findall(r"^\| `(\w+)(?::NAME)?` \|", text, re.MULTILINE))
    path = "ourvidz/service/health.py"
    assert explained == set(re.findall(r'^[A-Z_]+: Final = "(\w+)"$', source(path), re.MULTILINE))


def source(path: str) -> str:
    file = REPOSITORY / path
    return file.read_text(encoding="utf-8") if file.exists() else ""
