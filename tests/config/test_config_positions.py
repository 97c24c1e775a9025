"""Lines of keys, against a writer that knows them and against what ``tomllib`` finds."""

from __future__ import annotations

import tomllib
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ourvidz.config.positions import positions
from ourvidz.config.schema import KeyPath

CONFIG = (Path(__file__).parents[2] / "config.toml").read_text(encoding="utf-8")
# A value's text and the key paths inside it with their lines below its first.
Value = tuple[str, list[tuple[KeyPath, int]]]
SCALARS = (
    "1", "-2.5e3", "0xff", "true", "inf", "1979-05-27", "1979-05-27 07:32:00", "07:32:00.5",
    '""', "''", '"a # b = [c] {d}"', "'x\\]}'", r'"\" ] \\"', '""""""', "''''''", '"""a"""""',
    '"""\nmulti # x = 1\n[table]\n"quoted" ""pair"" \\\\\n\\""" end"""',
    "'''\nliteral ' and '' \\\n[[x]] # y\n'''''",
)  # fmt: skip


def all_paths(value: Any, path: KeyPath = ()) -> set[KeyPath]:
    entries: list[tuple[Any, Any]] = []
    if isinstance(value, dict):
        entries = list(value.items())
    elif isinstance(value, list):
        entries = list(enumerate(value))
    found = {path} if path else set()
    return found.union(*(all_paths(inner, (*path, key)) for key, inner in entries))


class Writer:
    """Draws a document and notes the line of everything that it writes."""

    def __init__(self, draw: Any) -> None:
        self.draw = draw
        self.text = ""
        self.lines: dict[KeyPath, int] = {}
        self.keys = 0

    def key(self) -> tuple[str, str]:
        """A key that was not used before: as written, and as read."""
        self.keys += 1
        n = self.keys
        return self.draw(
            st.sampled_from(
                [
                    (f"k-{n}_", f"k-{n}_"),
                    (f"{n}", f"{n}"),
                    (f'"k.{n} # ="', f"k.{n} # ="),
                    (f"'k]{n}\"'", f'k]{n}"'),
                    (f'"\\u0041\\"{n}"', f'A"{n}'),
                ]
            )
        )

    def dotted(self) -> tuple[str, KeyPath]:
        parts = [self.key() for _ in range(self.draw(st.integers(1, 3)))]
        space = self.draw(st.sampled_from(["", " ", "\t"]))
        return f"{space}.{space}".join(p[0] for p in parts), tuple(p[1] for p in parts)

    def value(self, depth: int) -> Value:
        kind = self.draw(st.sampled_from(["scalar", "list", "table"] if depth else ["scalar"]))
        if kind == "scalar":
            return self.draw(st.sampled_from(SCALARS)), []
        text, found = "[" if kind == "list" else "{ ", []
        gap = st.sampled_from(["", " ", "\n", "# no ] here\n", "\n\n  "])
        for index in range(self.draw(st.integers(0, 3))):
            if kind == "list":
                text += ("," if index else "") + self.draw(gap)
                path: KeyPath = (index,)
                here = text.count("\n")
            else:
                written, path = self.dotted()
                text += ", " if index else ""
                here = text.count("\n")
                found += [(path[:n], here) for n in range(1, len(path))]
                text += f"{written} = "
            found.append((path, here))
            inner, below = self.value(depth - 1)
            found += [((*path, *at), text.count("\n") + line) for at, line in below]
            text += inner
        return text + (self.draw(gap) + "]" if kind == "list" else " }"), found

    def write_pairs(self, table: KeyPath) -> None:
        for _ in range(self.draw(st.integers(0, 3))):
            self.text += self.draw(st.sampled_from(["", "\n", "# a = 1\n", "  \t"]))
            written, path = self.dotted()
            line = self.text.count("\n") + 1
            for end in range(1, len(path) + 1):
                self.lines[(*table, *path[:end])] = line
            text, found = self.value(2)
            offset = (self.text + f"{written} = ").count("\n") + 1
            self.lines.update({(*table, *path, *at): offset + below for at, below in found})
            comment = self.draw(st.sampled_from(["", "  # note", " # 'x"]))
            self.text += f"{written} = {text}{comment}\n"

    def write_table(self) -> None:
        written, path = self.dotted()
        line = self.text.count("\n") + 1
        self.lines.update({path[:end]: line for end in range(1, len(path) + 1)})
        if self.draw(st.booleans()):
            self.text += f"[ {written} ] # header\n"
            self.write_pairs(path)
            return
        for index in range(self.draw(st.integers(1, 3))):
            entry = (*path, index)
            self.lines[entry] = self.text.count("\n") + 1
            self.text += f"[[{written}]]\n"
            self.write_pairs(entry)
            below, inner = self.key()
            self.lines[(*entry, inner)] = self.text.count("\n") + 1
            self.text += f"[{written}.{below}]\n"
            self.write_pairs((*entry, inner))


@st.composite
def documents(draw: Any) -> tuple[str, dict[KeyPath, int]]:
    writer = Writer(draw)
    writer.write_pairs(())
    for _ in range(draw(st.integers(0, 3))):
        writer.write_table()
    return writer.text, writer.lines


@settings(max_examples=60, deadline=None, derandomize=True)
@given(documents())
def test_every_key_has_the_line_on_which_it_was_written(doc: tuple[str, dict[Any, int]]) -> None:
    text, lines = doc
    assert all_paths(tomllib.loads(text)) == set(lines)
    assert positions(text) == lines
    assert positions(text.replace("\n", "\r\n")) == lines


@settings(max_examples=100, deadline=None, derandomize=True)
@given(st.integers(0, len(CONFIG)), st.integers(0, 400), st.text("[]{}\"'=.,#\n a1", max_size=8))
def test_whatever_tomllib_accepts_has_the_same_keys(at: int, cut: int, put: str) -> None:
    text = CONFIG[:at] + put + CONFIG[at + cut :]
    text = text[: at + 600]
    try:
        data = tomllib.loads(text)
    except tomllib.TOMLDecodeError:
        return
    assert set(positions(text)) == all_paths(data)


@pytest.mark.parametrize(
    ("text", "path", "line"),
    [
        ("a.b = 1\na.c = 2", ("a",), 1),
        ("[a.b]\nx=1\n\n[a]\ny=2", ("a",), 4),
        ("x = [\n 1,\n 2]", ("x", 1), 3),
        ("[[q]]\n[[q]]\nz=1", ("q", 1, "z"), 3),
        ("k = '''\n\n'''\nend = 1", ("end",), 4),
    ],
)
def test_lines_by_example(text: str, path: KeyPath, line: int) -> None:
    assert positions(text)[path] == line
