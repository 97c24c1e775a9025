"""What is sent and what is printed, without a service."""

from __future__ import annotations

from typing import Any

import pytest
import typer

from ourvidz.cli import show
from ourvidz.cli.payload import encoded, payload


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("a pear, \N{PEAR}", "a pear, \N{PEAR}"),
        ("two\n\tlines", "two\n\tlines"),
        ("\x1b[2J\x07", "\\x1b[2J\\x07"),
        ("\r\x9b\u202e\ud800", "\\r\\x9b\\u202e\\ud800"),
    ],
)
def test_text_of_others_cannot_move_the_cursor(text: str, shown: str) -> None:
    assert show.plain(text) == shown


@pytest.mark.parametrize(
    ("text", "role", "content"),
    [
        ("hi", "user", "hi"),
        ("system: be brief", "system", "be brief"),
        ("assistant:", "assistant", ""),
        ("user:user: x", "user", "user: x"),
        ("System: x", "user", "System: x"),
        ("tool: x", "user", "tool: x"),
    ],
)
def test_a_message_may_name_its_role(text: str, role: str, content: str) -> None:
    assert payload({}, [text], []) == {"messages": [{"role": role, "content": content}]}


def test_options_that_were_not_given_are_not_sent() -> None:
    assert payload({"seed": 0, "prompt": "", "steps": None}, [], []) == {"seed": 0, "prompt": ""}


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("a=1", 1),
        ("a=[1, 2]", [1, 2]),
        ("a=null", None),
        ("a=b=c", "b=c"),
        ("a=", ""),
        ("a={", "{"),
    ],
)
def test_a_field_is_json_or_else_text(text: str, value: Any) -> None:
    assert payload({}, [], [text]) == {"a": value}


def test_what_is_no_utf_8_cannot_be_sent() -> None:
    with pytest.raises(typer.BadParameter, match="JSON"):
        encoded({"prompt": "\udc80"})


def process(name: str, position: int | None) -> dict[str, Any]:
    places = {"queue_position": position, "eta_seconds": None}
    steps = {"progress": 0.0, "phase": None, "steps_done": 0, "steps_total": 1}
    return {"id": name, "type": "chat", "status": "queued", **steps, **places}


def test_ps_shows_jobs_in_their_order(capsys: pytest.CaptureFixture[str]) -> None:
    given = [process("no place", None), process("second", 2), process("runs", 0)]
    show.processes({"jobs": given, "scheduler": {"components": {}, "ledger": {}}})
    jobs = capsys.readouterr().out.split("\n\n")[0].splitlines()[1:]
    assert [row.split("  ")[0] for row in jobs] == ["runs", "second", "no place"]
