"""Every message survives its way through JSON; what is no message is refused in words."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import orjson
import pytest
from hypothesis import given
from hypothesis import strategies as st
from support.nouns import nouns

from scheduler import codec
from scheduler import messages as m
from scheduler.errors import InputError
from scheduler.recording import Header
from scheduler.types import Demand, Lease, Outcome, Phase, Sharing

pytestmark = pytest.mark.slow

KINDS = [*codec.EVENTS.values(), *codec.COMMANDS.values()]
LEASE = {"id": 1, "job": "j", "phase": 0}
ARRIVED = {
    "demand": {"job": "j", "phases": [], "job_class": "c", "user": "u", "arrival": 1},
}


def through_json(value: Any) -> Any:
    return orjson.loads(orjson.dumps(value))


@pytest.mark.parametrize("kind", KINDS, ids=lambda kind: kind.__name__)
@given(data=st.data())
def test_every_message_comes_back_as_it_was(kind: type, data: st.DataObject) -> None:
    message = data.draw(nouns(kind))
    kinds = codec.EVENTS if kind.__name__ in codec.EVENTS else codec.COMMANDS
    line = through_json(codec.encode_message(message))
    assert codec.decode_message(kinds, line, "line 1") == message


@given(nouns(Header))
def test_how_a_scheduler_was_made_comes_back_as_it_was(header: Header) -> None:
    assert codec.decode(Header, through_json(codec.encode(header)), "header") == header


def test_all_events_and_commands_are_known() -> None:
    assert {"JobArrived", "TimeReached", "Aborted", "RunFailed"} <= set(codec.EVENTS)
    assert {"Stage", "Start", "Abort", "Settle"} <= set(codec.COMMANDS)
    assert not set(codec.EVENTS) & set(codec.COMMANDS)


def test_a_message_is_its_name_and_the_fields_that_say_something() -> None:
    lease = Lease(7, "j", 0)
    assert codec.encode_message(m.Start(lease, 7)) == {
        "Start": {"lease": {"id": 7, "job": "j", "phase": 0}, "run": 7}
    }
    assert codec.encode_message(m.Start(lease, 7, starters=2))["Start"]["starters"] == 2
    assert codec.encode_message(m.TimeReached()) == {"TimeReached": {}}
    settle = m.Settle("j", Outcome.REFUSED)
    assert codec.encode_message(settle) == {"Settle": {"job": "j", "outcome": "refused"}}
    phase = Phase("p", ("c",), 1, 2.0, 3, sharing=Sharing("k", 1, 2, 0.5, True))
    demand = Demand("j", (phase,), "c", "u", 0.0)
    (written,) = codec.encode_message(m.JobArrived(demand))["JobArrived"]["demand"]["phases"]
    sizes = {"key": "k", "units": 1, "units_max": 2}
    assert written["sharing"] == {**sizes, "exponent": 0.5, "mid_phase": True}


@dataclass(frozen=True, slots=True)
class Noun:
    number: float = 1.0
    pair: tuple[str, int] = ("a", 1)
    table: Mapping[str, Phase | None] | None = None


@pytest.mark.parametrize("number", [math.inf, -math.inf, 0.1 + 0.2, 5e-324, 2])
def test_numbers_stay_what_they_are(number: float) -> None:
    table = {"a": None, "b": Phase("p", (), 0, 0.0, 0)}
    noun = Noun(number, ("b", 2), table)
    assert codec.decode(Noun, through_json(codec.encode(noun)), "it") == noun


def test_no_number_stays_none() -> None:
    found = codec.decode(Noun, through_json(codec.encode(Noun(math.nan))), "it")
    assert math.isnan(found.number)


@pytest.mark.parametrize(
    ("value", "said"),
    [
        (None, "line 1 is None, allowed: one of JobArrived, "),
        ([], "line 1 is [], allowed: one of JobArrived, "),
        ({}, "line 1 is {}, allowed: one of JobArrived, "),
        ({"Stage": {}}, "line 1 is {'Stage': {}}, allowed: one of JobArrived, "),
        ({"Evicted": {}, "Unstaged": {}}, "allowed: one of JobArrived, "),
        ({"Evicted": {}}, "line 1: Evicted: "),
        ({"Evicted": {"component": 1}}, "line 1: Evicted.component is 1, allowed: str"),
        ({"Evicted": {"component": "c", "x": 1}}, "line 1: Evicted: x, allowed: component"),
        ({"TimeReached": {"x": 1}}, "line 1: TimeReached: x, allowed: nothing"),
        ({"TimeReached": 1}, "line 1: TimeReached is 1, allowed: a table"),
        ({"StepReached": {"lease": LEASE, "step": True}}, "StepReached.step is True, allowed: int"),
        ({"StepReached": {"lease": LEASE, "step": 1.5}}, "StepReached.step is 1.5, allowed: int"),
        ({"StepReached": {"lease": "j", "step": 1}}, "StepReached.lease is 'j', allowed: a table"),
        ({"PhaseFinished": {"lease": LEASE, "state_bytes": -1}}, "state_bytes is -1, allowed"),
        ({"RunFailed": {"lease": LEASE, "fault": "x", "detail": ""}}, "fault is 'x', allowed: 'sh"),
        ({"JobArrived": {"demand": ARRIVED["demand"] | {"arrival": "x"}}}, "allowed: a number"),
        ({"JobArrived": {"demand": ARRIVED["demand"] | {"arrival": True}}}, "allowed: a number"),
        ({"JobArrived": {"demand": ARRIVED["demand"] | {"arrival": "inf"}}}, "a finite number"),
        ({"JobArrived": {"demand": ARRIVED["demand"] | {"phases": {}}}}, "allowed: a list"),
        ({"JobArrived": {"demand": ARRIVED["demand"] | {"deadline": "x" * 99}}}, "xxx..., allowed"),
    ],
)
def test_what_is_no_event_is_refused(value: object, said: str) -> None:
    with pytest.raises(InputError) as caught:
        codec.decode_message(codec.EVENTS, value, "line 1")
    assert said in str(caught.value)


def test_a_pair_has_two_entries() -> None:
    with pytest.raises(InputError, match=r"it\.pair has 3 entries, allowed: 2"):
        codec.decode(Noun, {"pair": ["a", 1, 2]}, "it")
