"""A recorded scheduler decides once more as it did, and where it does not, that is found."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import pytest
from support.recordings import SETTINGS, busy, demand, header, numbered, read_again

from ourvidz.adapters.recording_lines import encode
from scheduler import messages as m
from scheduler.contest import CONTESTANTS
from scheduler.errors import InputError
from scheduler.recording import Turn, wordless
from scheduler.replay import Difference, Replay, scheduler_of
from scheduler.types import Budget, Fault, Lease, Outcome


def replayed(turns: Sequence[Any], policy: str = "default") -> tuple[Replay, Difference | None]:
    again = Replay(scheduler_of(header(policy)))
    return again, next(filter(None, map(again.feed, turns)), None)


@pytest.mark.parametrize("policy", CONTESTANTS)
def test_the_same_events_give_the_same_decisions(policy: str) -> None:
    turns = busy(header(policy))
    again, difference = replayed(read_again(turns), policy)
    assert difference is None
    assert again.broke == ""
    assert again.turns == len(turns)
    assert again.events == sum(len(turn.events) for turn in turns)
    assert again.commands == sum(len(turn.commands or ()) for turn in turns) > 30


def test_another_policy_decides_otherwise() -> None:
    _, difference = replayed(busy(header("fifo-lru")), "srpt-setup")
    assert difference is not None


def planted(change: object) -> tuple[int, list[Turn]]:
    """The number of a turn that starts something, and all turns with that one changed."""
    turns = busy(header())
    place = next(n for n, t in enumerate(turns) if any(isinstance(c, m.Start) for c in t.commands))
    turns[place] = change(turns[place])  # type: ignore[operator]
    return place + 1, turns


def test_a_command_too_few_is_found() -> None:
    number, turns = planted(lambda turn: replace(turn, commands=()))
    again, difference = replayed(turns)
    assert difference is not None
    assert (difference.number, difference.place) == (number, 0)
    assert difference.turn == turns[number - 1]
    assert difference.expected == "nothing more"
    assert difference.got.startswith("Start(lease=Lease(")
    assert again.turns == number


def test_a_command_too_many_is_found() -> None:
    more = m.Evict("sdxl.unet")
    number, turns = planted(lambda turn: replace(turn, commands=(*turn.commands, more)))
    _, difference = replayed(turns)
    assert difference is not None
    assert difference.number == number
    assert difference.place == len(turns[number - 1].commands or ()) - 1
    assert (difference.expected, difference.got) == (repr(more), "nothing more")


def test_the_first_of_several_differences_is_told() -> None:
    turns = busy(header())
    place = next(n for n, t in enumerate(turns) if len(t.commands or ()) > 2)
    first, second, *rest = turns[place].commands or ()
    other = m.Evict("sdxl.unet")
    turns[place] = replace(turns[place], commands=(first, other, *rest))
    _, difference = replayed(turns)
    assert difference is not None
    assert (difference.number, difference.place) == (place + 1, 1)
    assert (difference.expected, difference.got) == (repr(other), repr(wordless(second)))


def test_an_event_that_was_not_recorded_is_missed() -> None:
    turns = busy(header())
    _, difference = replayed([turns[0], *turns[2:]])
    assert difference is not None


def test_a_turn_that_broke_the_scheduler_breaks_it_again() -> None:
    turns = busy(header())[:3]
    turns.append(Turn(200.0, turns[0].events, None))
    again, difference = replayed(turns)
    assert difference is None
    assert again.broke.startswith("ProtocolError: job job-0 arrived, but it is here already")


def test_a_turn_that_breaks_it_only_now_is_a_difference() -> None:
    turns = busy(header())[:3]
    turns.append(Turn(200.0, turns[0].events, (m.Stage("sdxl.unet"),)))
    _, difference = replayed(turns)
    assert difference is not None
    assert difference.expected == repr(m.Stage("sdxl.unet"))
    assert difference.got.startswith("ProtocolError: ")


def test_a_turn_that_broke_it_and_does_not_now_is_a_difference() -> None:
    turns = busy(header())
    turns[2] = replace(turns[2], commands=None)
    _, difference = replayed(turns)
    assert difference is not None
    assert (difference.number, difference.expected) == (3, "it raised")


def test_masters_that_were_there_are_not_staged_again() -> None:
    made = replace(header(), staged=("sdxl.unet",))
    commands = scheduler_of(made).handle(m.JobArrived(demand("j", "sdxl.unet")), 100.0)
    assert commands[:1] == [m.Load("sdxl.unet")]


@pytest.mark.parametrize("policy", CONTESTANTS)
def test_a_policy_comes_with_its_eviction(policy: str, monkeypatch: pytest.MonkeyPatch) -> None:
    made: list[object] = []
    monkeypatch.setattr(
        "scheduler.replay.Scheduler", lambda *_, eviction, **__: made.append(eviction)
    )
    scheduler_of(header(policy))
    assert made == [CONTESTANTS[policy](SETTINGS).eviction]


def test_a_policy_that_does_not_exist() -> None:
    with pytest.raises(InputError, match="policy is 'lifo', allowed: default, "):
        scheduler_of(header("lifo"))


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"staged": ("nope",)}, "staged has 'nope', known components: "),
        ({"staged": ("qwen_base.model",) * 2}, "a component comes twice"),
        ({"components": header().components * 2}, "a component comes twice"),
        ({"components": (), "staged": ("a",)}, "staged has 'a', known components: none"),
        (
            {"staged": ("qwen_base.model",), "budget": Budget(110, 1)},
            "staged has 30 bytes, allowed: up to 1",
        ),
    ],
)
def test_masters_that_cannot_be_there(change: dict[str, Any], message: str) -> None:
    with pytest.raises(InputError, match=f"header: {message}"):
        scheduler_of(replace(header(), **change))


def test_failures_are_compared_without_their_words() -> None:
    """A library's error may quote what it was given: words are not written down."""
    turns: list[Turn] = []
    scheduler = scheduler_of(header())

    def turn(event: m.Event) -> None:
        turns.append(Turn(100.0, (event,), tuple(scheduler.handle(event, 100.0))))

    turn(m.JobArrived(demand("j", "sdxl.unet")))
    turn(m.StageFailed("sdxl.unet", "no such word: pear", permanent=True))
    assert isinstance(turns[-1].commands[0], m.Settle)  # type: ignore[index]
    assert b"pear" not in b"".join(map(encode, numbered(turns)))
    again, difference = replayed(read_again(turns))
    assert difference is None
    assert again.commands == 2


def test_wordless_messages_are_otherwise_what_they_were() -> None:
    lease = Lease(1, "j", 0)
    failed = m.RunFailed(lease, Fault.RUN, "pear")
    assert wordless(failed) == m.RunFailed(lease, Fault.RUN, "")
    settle = m.Settle("j", Outcome.FAILED, Fault.RUN, "pear")
    assert wordless(settle) == m.Settle("j", Outcome.FAILED, Fault.RUN)
    assert wordless(m.Evicted("c")) == m.Evicted("c")
