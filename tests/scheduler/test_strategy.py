"""What is given up for room, and which commands bring components in, apart from any job."""

from dataclasses import replace

import pytest

from scheduler.messages import Evict, Load, Stage, Unstage
from scheduler.residency import USE_HALF_LIFE_SECONDS, Failure, Residency
from scheduler.strategy import Eviction, Shelf, Want, bring_in, ready, victims
from scheduler.types import Component, Tier
from tests.scheduler.shell import LINKS, brief

T = Tier
NOW = 10.0


def shelf(device: int, host: int, kept=(), waiters=None, **places) -> Shelf:
    """``name=(size, tier[, last_used[, uses]])``; ``device`` and ``host`` are the budgets."""
    items = {}
    for name, (size, tier, *used) in places.items():
        item = Residency(Component(name, size), tier, master=tier is not T.ABSENT)
        item.last_used, item.uses = [*used, 0.0, 0.0][:2]
        items[name] = item
    return Shelf(
        residencies=items,
        device_free=device - sum(i.size for i in items.values() if i.on_device),
        host_free=host - sum(i.size for i in items.values() if i.master),
        kept=kept,
        waiters=lambda name: (waiters or {}).get(name, 0),
        load_seconds=lambda item: LINKS.load_seconds(item.size),
        reload_seconds=lambda item: LINKS.stage_seconds(item.size) + LINKS.load_seconds(item.size),
        now=NOW,
    )


def say(want: Want, on: Shelf) -> list[str]:
    return [brief(move) for move in bring_in(want, on)]


def chosen(on: Shelf, lack: int) -> list[str]:
    return [r.name for r in victims(on.residencies.values(), lack, on.evict_price)]


def test_victims_nobody_waits_for_go_first_by_last_use() -> None:
    on = shelf(
        99,
        99,
        waiters={"hot": 1},
        hot=(5, T.RESIDENT, 0.0),
        late=(5, T.RESIDENT, 9.0),
        early=(5, T.RESIDENT, 1.0),
    )
    assert chosen(on, 1) == ["early"]
    assert chosen(on, 6) == ["early", "late"]
    assert chosen(on, 11) == ["early", "late", "hot"]


def test_victims_that_are_waited_for_go_by_seconds_times_waiters() -> None:
    on = shelf(
        99,
        99,
        waiters={"big": 1, "small": 2, "wanted": 9},
        big=(30, T.RESIDENT, 0.0),
        small=(10, T.RESIDENT, 5.0),
        wanted=(10, T.RESIDENT, 0.0),
    )
    assert chosen(on, 1) == ["small"]
    assert chosen(on, 11) == ["big"]
    assert chosen(on, 41) == ["small", "big", "wanted"]


def test_victims_nobody_waits_for_go_by_how_much_use_their_bytes_are() -> None:
    on = shelf(99, 99, used=(5, T.RESIDENT, 1.0, 2.0), seldom=(5, T.RESIDENT, 9.0, 1.0))
    assert chosen(on, 1) == ["seldom"]
    # Of two that are used alike, the larger is back sooner for each byte that it gives up.
    on = shelf(99, 99, large=(20, T.RESIDENT, 1.0, 1.0), small=(5, T.RESIDENT, 1.0, 1.0))
    assert chosen(on, 1) == ["large"]
    on = shelf(99, 99, empty=(0, T.RESIDENT, 1.0, 1.0), small=(5, T.RESIDENT, 1.0, 1.0))
    assert chosen(on, 1) == ["small"]


def test_of_two_alike_the_one_that_is_back_sooner_goes() -> None:
    slow = {"one": 5.0, "two": 1.0}
    on = shelf(99, 99, one=(5, T.RESIDENT, 1.0, 1.0), two=(5, T.RESIDENT, 1.0, 1.0))
    on = replace(on, load_seconds=lambda item: slow[item.name])
    assert chosen(on, 1) == ["two"]
    on = shelf(99, 99, one=(1, T.RESIDENT, 1.0, 1.0), two=(2, T.RESIDENT, 1.0, 1.0))
    on = replace(on, load_seconds=lambda item: {"one": 0.9, "two": 1.0}[item.name])
    assert chosen(on, 1) == ["two"]


def test_strangers_that_do_not_suffice_are_followed_by_the_family_each_once() -> None:
    on = shelf(
        100,
        999,
        **{"x.a": (20, T.RESIDENT, 9.0), "y.a": (20, T.RESIDENT, 0.0), "x.b": (60, T.STAGED)},
        **{"x.c": (20, T.RESIDENT, 1.0), "x.d": (20, T.RESIDENT, 2.0)},
    )
    on = replace(on, eviction=Eviction.FAMILY)
    assert say(Want(("x.b",), 0), on) == ["Evict y.a", "Evict x.c"]


def test_a_master_on_its_way_out_that_is_needed_must_come_again() -> None:
    on = shelf(999, 50, a=(20, T.UNSTAGING), b=(30, T.STAGED))
    assert say(Want(("a",), 0), on) == []
    on = shelf(999, 50, a=(20, T.UNSTAGING), b=(30, T.STAGED), c=(20, T.ABSENT))
    assert say(Want(("a", "c"), 0), on) == ["Unstage b"]


def test_uses_fade_by_half_in_an_hour() -> None:
    then = NOW - USE_HALF_LIFE_SECONDS
    for uses, first in ((1.9, "old"), (2.1, "new")):
        on = shelf(99, 99, old=(5, T.RESIDENT, then, uses), new=(5, T.RESIDENT, NOW, 1.0))
        assert chosen(on, 1) == [first]


def test_victims_equal_in_all_go_by_name() -> None:
    on = shelf(99, 99, b=(5, T.RESIDENT), a=(5, T.RESIDENT))
    assert chosen(on, 5) == ["a"]


def test_victims_made_needless_by_a_later_one_are_let_off() -> None:
    on = shelf(99, 99, a=(2, T.RESIDENT, 0.0), b=(3, T.RESIDENT, 1.0), c=(9, T.RESIDENT, 2.0))
    assert chosen(on, 9) == ["c"]
    assert chosen(on, 10) == ["a", "c"]
    assert chosen(on, 12) == ["b", "c"]


@pytest.mark.parametrize("lack", [0, -3])
def test_no_victims_where_nothing_lacks(lack: int) -> None:
    assert chosen(shelf(99, 99, a=(2, T.RESIDENT)), lack) == []


def test_all_victims_where_they_do_not_suffice() -> None:
    assert chosen(shelf(99, 99, a=(2, T.RESIDENT), b=(3, T.RESIDENT)), 6) == ["a", "b"]


def test_stage_then_load() -> None:
    want = Want(("a", "b"), 5)
    assert say(want, shelf(20, 20, a=(5, T.ABSENT), b=(6, T.ABSENT))) == ["Stage a", "Stage b"]
    assert say(want, shelf(20, 20, a=(5, T.STAGING), b=(6, T.STAGED))) == ["Load b"]
    assert say(want, shelf(20, 20, a=(5, T.STAGED), b=(6, T.LOADING))) == ["Load a"]
    assert say(want, shelf(20, 20, a=(5, T.RESIDENT), b=(6, T.RESIDENT))) == []


def test_what_moves_away_is_waited_for() -> None:
    want = Want(("a", "b"), 5)
    assert say(want, shelf(20, 20, a=(5, T.EVICTING), b=(6, T.UNSTAGING))) == []


def test_evict_for_weights_and_working_bytes() -> None:
    places = {"a": (5, T.STAGED), "old": (4, T.RESIDENT, 1.0), "new": (4, T.RESIDENT, 2.0)}
    assert say(Want(("a",), 7), shelf(20, 50, **places)) == ["Load a"]
    assert say(Want(("a",), 8), shelf(20, 50, **places)) == ["Evict old", "Load a"]
    assert say(Want(("a",), 12), shelf(20, 50, **places)) == ["Evict old", "Evict new", "Load a"]


def test_an_eviction_on_its_way_counts_as_room_to_come() -> None:
    on = shelf(10, 50, a=(5, T.STAGED), going=(5, T.EVICTING), spare=(5, T.RESIDENT))
    assert say(Want(("a",), 0), on) == []
    assert say(Want(("a",), 1), on) == ["Evict spare"]


def test_neither_what_is_kept_nor_what_is_needed_is_evicted() -> None:
    on = shelf(10, 50, kept=("used",), a=(5, T.RESIDENT), used=(3, T.RESIDENT), b=(2, T.STAGED))
    assert say(Want(("a", "b"), 9), on) == ["Load b"]


def test_loads_go_as_far_as_there_is_room() -> None:
    on = shelf(10, 50, a=(6, T.STAGED), b=(4, T.STAGED), c=(3, T.STAGED), x=(1, T.LOADING))
    assert say(Want(("a", "b", "c"), 0), on) == ["Load a", "Load c"]


def test_a_clear_device_comes_first() -> None:
    want = Want(("a", "b"), 1, clear=True)
    places = {"a": (5, T.STAGED), "b": (5, T.RESIDENT)}
    assert say(want, shelf(50, 50, **places, x=(1, T.RESIDENT))) == ["Evict x"]
    assert say(want, shelf(50, 50, **places, x=(1, T.EVICTING))) == []
    assert say(want, shelf(50, 50, **places, x=(1, T.LOADING))) == []
    assert say(want, shelf(50, 50, **places, x=(1, T.STAGED))) == ["Load a"]


def test_unstage_for_masters() -> None:
    places = {"a": (5, T.ABSENT), "old": (4, T.STAGED, 1.0), "new": (4, T.STAGED, 2.0)}
    assert say(Want(("a",), 0), shelf(20, 13, **places)) == ["Stage a"]
    assert say(Want(("a",), 0), shelf(20, 12, **places)) == ["Unstage old"]
    assert say(Want(("a",), 0), shelf(20, 8, **places)) == ["Unstage old", "Unstage new"]


def test_a_master_on_its_way_out_counts_as_room_to_come() -> None:
    on = shelf(20, 9, a=(5, T.ABSENT), going=(4, T.UNSTAGING), spare=(4, T.STAGED))
    assert say(Want(("a",), 0), on) == []


def test_the_master_of_a_failed_load_may_go() -> None:
    on = shelf(20, 8, a=(5, T.ABSENT), broken=(4, T.FAILED))
    on.residencies["broken"].failure = Failure("why", False, 9.0)
    assert say(Want(("a",), 0), on) == ["Unstage broken"]
    on.residencies["broken"].master = False
    assert say(Want(("a",), 0), on) == []


def test_evict_what_must_be_unstaged_when_nothing_else_is_left() -> None:
    places = {"a": (5, T.ABSENT), "on": (4, T.RESIDENT), "off": (2, T.STAGED)}
    assert say(Want(("a",), 0), shelf(20, 9, **places)) == ["Unstage off"]
    assert say(Want(("a",), 0), shelf(20, 8, **places)) == ["Evict on", "Unstage off"]
    places["on"] = (4, T.EVICTING)
    assert say(Want(("a",), 0), shelf(20, 8, **places)) == ["Unstage off"]


def test_an_eviction_for_the_device_also_serves_the_host() -> None:
    on = shelf(6, 8, a=(5, T.ABSENT), x=(4, T.RESIDENT, 1.0), y=(2, T.RESIDENT, 2.0))
    assert say(Want(("a",), 0), on) == ["Evict x", "Evict y"]
    on = shelf(9, 8, a=(5, T.ABSENT), x=(4, T.RESIDENT, 1.0), y=(2, T.RESIDENT, 2.0))
    assert say(Want(("a",), 0), on) == ["Evict x"]


def test_what_is_kept_stays_on_device_and_host_however_much_is_lacking() -> None:
    places = {"a": (5, T.STAGED), "c": (3, T.ABSENT), "x": (4, T.RESIDENT), "y": (4, T.STAGED)}
    want = Want(("a", "c"), 9)
    assert say(want, shelf(10, 13, kept=("x", "y"), **places)) == ["Load a"]
    assert say(want, shelf(10, 13, kept=("x",), **places)) == ["Unstage y", "Load a"]
    assert say(want, shelf(10, 13, kept=("y",), **places)) == ["Evict x", "Load a"]


def test_ready() -> None:
    want = Want(("a", "b"), 4)
    both = {"a": (3, T.RESIDENT), "b": (3, T.RESIDENT)}
    assert ready(want, shelf(10, 9, **both))
    assert not ready(want, shelf(9, 9, **both))
    assert not ready(want, shelf(10, 9, a=(3, T.RESIDENT), b=(3, T.LOADING)))
    clear = Want(("a", "b"), 4, clear=True)
    assert ready(clear, shelf(99, 99, **both, x=(1, T.STAGED)))
    for tier in (T.LOADING, T.RESIDENT, T.EVICTING):
        assert not ready(clear, shelf(99, 99, **both, x=(1, tier)))


def test_the_moves_are_commands() -> None:
    on = shelf(8, 9, a=(5, T.STAGED), b=(3, T.ABSENT), x=(4, T.RESIDENT))
    moves = bring_in(Want(("a", "b"), 0), on)
    assert moves == [Evict("x")]
    on = shelf(99, 9, a=(5, T.STAGED), b=(3, T.ABSENT), y=(4, T.STAGED))
    moves = bring_in(Want(("a", "b"), 0), on)
    assert moves == [Unstage("y"), Load("a")]
    on = shelf(99, 99, a=(5, T.STAGED), b=(3, T.ABSENT))
    assert bring_in(Want(("a", "b"), 0), on) == [Stage("b"), Load("a")]
