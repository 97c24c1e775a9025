"""Every line of a recording comes back as it was; what is none is refused in words."""

from __future__ import annotations

import math
from typing import Any, get_args

import orjson
import pytest
from hypothesis import given
from hypothesis import strategies as st
from support.nouns import nouns
from support.recordings import header

from ourvidz.adapters.recording_lines import (
    Beginning,
    End,
    Numbered,
    RecordingUnusable,
    decode,
    encode,
)
from scheduler import messages as m
from scheduler.recording import Header, Turn, wordless
from scheduler.types import Demand, Lease, Outcome, Phase, Sharing

pytestmark = pytest.mark.slow

EVENTS, COMMANDS = get_args(m.Event), get_args(m.Command)
LEASE = {"id": 1, "job": "j", "phase": 0}
DEMAND = {"job": "j", "phases": [], "job_class": "c", "user": "u", "arrival": 1}


def written(*commands: m.Command, events: tuple[m.Event, ...] = ()) -> dict[str, Any]:
    found: dict[str, Any] = orjson.loads(encode(Numbered(1, Turn(1.0, events, commands))))
    return found


@pytest.mark.parametrize("kind", EVENTS, ids=lambda kind: kind.__name__)
@given(data=st.data())
def test_every_event_comes_back_as_it_was(kind: type, data: st.DataObject) -> None:
    message = wordless(data.draw(nouns(kind)))
    turn = Numbered(1, Turn(1.0, (message,), None))
    assert decode(encode(turn), "it") == turn


@pytest.mark.parametrize("kind", COMMANDS, ids=lambda kind: kind.__name__)
@given(data=st.data())
def test_every_command_comes_back_as_it_was(kind: type, data: st.DataObject) -> None:
    message = wordless(data.draw(nouns(kind)))
    turn = Numbered(2**40, Turn(1.0, (), (message, message)))
    assert decode(encode(turn), "it") == turn


@given(nouns(Header), st.integers(1, 10**6))
def test_how_a_scheduler_was_made_comes_back_as_it_was(header: Header, file: int) -> None:
    assert decode(encode(Beginning(header, file)), "it") == Beginning(header, file)


@given(st.text(st.characters(exclude_categories=["Cs"])))
def test_why_a_recording_ends_comes_back_as_it_was(reason: str) -> None:
    line = encode(End(reason))
    assert decode(line, "it") == End(reason)
    assert line.index(b"\n") == len(line) - 1


@pytest.mark.parametrize("at", [0.1 + 0.2, 5e-324, 1.7976931348623157e308, -0.5, 2])
def test_numbers_stay_what_they_are(at: float) -> None:
    turn = Numbered(1, Turn(at, (), ()))
    assert decode(encode(turn), "it") == turn


def test_a_message_is_its_name_and_the_fields_that_say_something() -> None:
    lease = Lease(7, "j", 0)
    assert written(m.Start(lease, 7), m.Start(lease, 7, starters=2))["commands"] == [
        {"Start": {"lease": {"id": 7, "job": "j", "phase": 0}, "run": 7}},
        {"Start": {"lease": {"id": 7, "job": "j", "phase": 0}, "run": 7, "starters": 2}},
    ]
    assert written(events=(m.TimeReached(),)) == {
        "turn": 1,
        "at": 1.0,
        "events": [{"TimeReached": {}}],
        "commands": [],
    }
    settle = m.Settle("j", Outcome.REFUSED, detail="words")
    assert written(settle)["commands"] == [{"Settle": {"job": "j", "outcome": "refused"}}]
    phase = Phase("p", ("c",), 1, 2.0, 3, sharing=Sharing("k", 1, 2, 0.5, True))
    arrived = m.JobArrived(Demand("j", (phase,), "c", "u", 0.0))
    (event,) = written(events=(arrived,))["events"]
    sizes = {"key": "k", "units": 1, "units_max": 2}
    assert event["JobArrived"]["demand"]["phases"][0]["sharing"] == {
        **sizes,
        "exponent": 0.5,
        "mid_phase": True,
    }
    assert orjson.loads(encode(Numbered(1, Turn(1.0, (), None))))["commands"] is None


@pytest.mark.parametrize(
    ("value", "said"),
    [
        (None, "events: 0: Input should be one of JobArrived, "),
        ([], "events: 0: Input should be one of JobArrived, "),
        ({}, "events: 0: Input should be one of JobArrived, "),
        ({"Stage": {}}, "Input should be one of JobArrived, "),
        ({"Stage": {}}, "RunFailed, with its fields, not {'Stage': {}}"),
        ({"Evicted": {"component": "c"}, "Unstaged": {"component": "c"}}, "Unstaged: Extra inputs"),
        ({"Evicted": {}}, "Evicted: component: Field required"),
        ({"Evicted": {"component": 1}}, "component: Input should be a valid string, not 1"),
        ({"Evicted": {"component": "c", "x": 1}}, "x: Unexpected keyword argument, not 1"),
        ({"TimeReached": {"x": 1}}, "x: Unexpected keyword argument, not 1"),
        ({"TimeReached": 1}, "TimeReached: Input should be "),
        ({"StepReached": {"lease": LEASE, "step": True}}, "step: Input should be a valid integer"),
        ({"StepReached": {"lease": LEASE, "step": 1.5}}, "step: Input should be a valid integer"),
        ({"StepReached": {"lease": LEASE, "step": "1"}}, "valid integer, not '1'"),
        ({"StepReached": {"lease": "j", "step": 1}}, "lease: Input should be "),
        ({"PhaseFinished": {"lease": LEASE, "state_bytes": -1}}, "state_bytes is -1, allowed: fro"),
        ({"RunFailed": {"lease": LEASE, "fault": "x", "detail": ""}}, "fault: Input should be 'sh"),
        ({"JobArrived": {"demand": DEMAND | {"arrival": "x"}}}, "arrival: Input should be a valid"),
        ({"JobArrived": {"demand": DEMAND | {"arrival": True}}}, "a valid number, not True"),
        ({"JobArrived": {"demand": DEMAND | {"arrival": "inf"}}}, "a valid number, not 'inf'"),
        ({"JobArrived": {"demand": DEMAND | {"phases": {}}}}, "phases: Input should be "),
        ({"JobArrived": {"demand": DEMAND | {"deadline": "x" * 99}}}, "number, not 'xxx"),
        ({"JobArrived": {"demand": DEMAND | {"deadline": "x" * 99}}}, "xxx..."),
    ],
)
def test_what_is_no_event_is_refused(value: object, said: str) -> None:
    line = orjson.dumps({"turn": 1, "at": 1.0, "events": [value], "commands": []})
    with pytest.raises(RecordingUnusable) as caught:
        decode(line, "line 9")
    assert str(caught.value).startswith("line 9: events: 0: ")
    assert said in str(caught.value)


FIRST = orjson.loads(encode(Beginning(header(), 1)))


@pytest.mark.parametrize(
    ("line", "said"),
    [
        (b"", "line 9 is empty"),
        (b" \n", "line 9 is empty"),
        (b"{", "line 9: Invalid JSON: "),
        (b"\xff", "line 9: Invalid JSON: "),
        (
            b'{"turn": 1, "at": NaN, "events": [], "commands": []}',
            "at: Input should be a finite number",
        ),
        (
            b'{"turn": 1, "at": Infinity, "events": [], "commands": []}',
            "at: Input should be a finite number",
        ),
        (b"[]", "line 9: Input should be an object, not []"),
        (b"{}", "turn: Field required"),
        (b'{"turn": true, "at": 1.0, "events": []}', "turn: Input should be a valid integer"),
        (b'{"turn": 1, "at": 1.0, "events": []}', "commands: Field required"),
        (b'{"turn": 1, "at": 1.0, "commands": []}', "events: Field required"),
        (
            b'{"turn": 1, "at": null, "events": [], "commands": []}',
            "at: Input should be a valid number",
        ),
        (
            b'{"turn": 1, "at": 1.0, "events": {}, "commands": []}',
            "events: Input should be a valid array",
        ),
        (
            b'{"turn": 1, "at": 1.0, "events": null, "commands": []}',
            "events: Input should be a valid array",
        ),
        (
            b'{"turn": 1, "at": 1.0, "events": [], "commands": [{"Evicted": {}}]}',
            "commands: 0: Input should",
        ),
        (
            b'{"turn": 1, "at": 1.0, "events": [], "commands": [], "x": 1}',
            "x: Extra inputs are not permitted",
        ),
        (b'{"end": 1}', "end: Input should be a valid string, not 1"),
        (b'{"header": 1, "file": 1}', "header: Input should be "),
        (b'{"header": {"version": 2, "more": 1}, "file": 1}', "version: Input should be 1, not 2"),
        (orjson.dumps(FIRST | {"file": True}), "file: Input should be a valid integer, not True"),
        (orjson.dumps({"header": FIRST["header"]}), "file: Field required"),
    ],
)
def test_what_is_no_line_is_refused(line: bytes, said: str) -> None:
    with pytest.raises(RecordingUnusable) as caught:
        decode(line, "line 9")
    assert str(caught.value).startswith("line 9")
    assert said in str(caught.value)


def test_a_moment_that_is_none_cannot_be_written_and_read_again() -> None:
    line = encode(Numbered(1, Turn(math.nan, (), ())))
    with pytest.raises(RecordingUnusable, match="at: Input should be a valid number, not None"):
        decode(line, "it")


def test_bounds_of_the_nouns_hold() -> None:
    said = FIRST["header"] | {"budget": {"device_bytes": -1, "host_bytes": 1}}
    with pytest.raises(RecordingUnusable, match=r"budget\.device_bytes is -1, allowed: a fin"):
        decode(orjson.dumps(FIRST | {"header": said}), "it")
    assert decode(orjson.dumps(FIRST), "it") == Beginning(header(), 1)
