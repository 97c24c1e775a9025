"""A small soak, whose workers are killed when so many jobs have ended, and the judge of a large
one: ``make soak``."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import anyio
import orjson
import pytest
from support.history import Call, History, Push

from tests.soak.load import POISON, SHARES, Element, Load, make_load
from tests.soak.report import WARM_UP_JOBS, Kill, Watched, judge, p99, rss_slope
from tests.soak.soak import Soak, open_soak
from tests.soak.worker import Begun

SEED = 4
JOBS = 60
KILLS_AT = (JOBS // 3, 2 * JOBS // 3)


async def when_so_many_have_ended(soak: Soak, number: int) -> None:
    """Twice in all."""
    if number == len(KILLS_AT):
        await anyio.sleep_forever()
    while len(soak.backend.ended) < KILLS_AT[number]:
        await soak.backend.changed.ticket.wait()


@pytest.mark.slow
@pytest.mark.timeout(200)
@pytest.mark.anyio
async def test_nothing_is_lost_and_nothing_done_twice(tmp_path: Path) -> None:
    load = make_load(JOBS, SEED)
    async with open_soak(tmp_path, load, SEED, when_so_many_have_ended) as soak:
        watched = await soak.run()
    report, wrong = judge(watched)
    assert wrong == []
    poison = len(load.of(*POISON))
    assert (report.jobs, report.kills, report.dead) == (JOBS, len(KILLS_AT), poison)
    assert (report.completed, report.lost, report.duplicate_effects) == (JOBS - poison, 0, 0)
    assert {path.name for path in (tmp_path / "hung").iterdir()} == load.of("hang")


def test_a_load_follows_from_its_seed() -> None:
    load = make_load(2000, 1)
    assert load == make_load(2000, 1)
    assert load.planted.keys() != make_load(2000, 2).planted.keys()
    assert {kind: len(load.of(kind)) for kind in SHARES} == {
        "crash": 10,
        "malformed": 10,
        "hang": 10,
        "oom": 20,
    }
    assert 100 < sum(element.twice for element in load.elements) < 300


def call(job: str, status: str, at: float, answered: int = 200) -> Call:
    metadata = {"text": "a pear"} if status == "completed" else {}
    body = {"job_id": job, "status": status, "assets": [], "metadata": metadata}
    return Call(f"{job}.{status}", orjson.dumps(body), at, answered)


GOOD = Watched(
    Load([Element(job, "", b"", False) for job in ("good", "bad")], {"bad": "crash"}),
    History(
        [Push("good"), Push("bad")],
        [],
        [call("good", "completed", 4.0), call("bad", "failed", 5.0)],
        rerun=True,
    ),
    frozenset({"bad"}),
    [Kill(1, 2.0)],
    [Begun(1, "good", 1.0, 1), Begun(2, "bad", 2.5, 1), Begun(2, "good", 3.5, 1)],
)


def calls(*given: Call) -> Watched:
    return replace(GOOD, history=replace_calls(GOOD.history, given))


def replace_calls(history: History, given: Any) -> History:
    return History(history.pushed, history.puts, given, history.rerun)


def test_what_is_well_is_told() -> None:
    report, wrong = judge(GOOD)
    assert wrong == []
    assert orjson.loads(report.line()) == {
        "jobs": 2,
        "kills": 1,
        "completed": 1,
        "lost": 0,
        "duplicate_effects": 0,
        "dead": 1,
        "poison": 1,
        "recovery_p99_s": 1.5,
        "rss_slope_bytes_per_job": None,
    }


@pytest.mark.parametrize(
    ("watched", "lost", "duplicate_effects"),
    [
        (calls(call("bad", "failed", 5.0)), 1, 0),
        (calls(call("good", "failed", 4.0), call("bad", "failed", 5.0)), 0, 0),
        (calls(*GOOD.history.calls, call("good", "failed", 6.0)), 0, 1),
        (replace(GOOD, dead=frozenset()), 0, 0),
        (replace(GOOD, dead=frozenset({"bad", "good"})), 0, 0),
        (replace(GOOD, troubles=["1 elements are left"]), 0, 0),
    ],
)
def test_what_is_wrong_is_told(watched: Watched, lost: int, duplicate_effects: int) -> None:
    report, wrong = judge(watched)
    assert wrong
    assert (report.lost, report.duplicate_effects) == (lost, duplicate_effects)


def test_the_slope_is_that_of_lives_which_began_with_different_sizes() -> None:
    lives = [(1, 1_000, 40), (2, 9_000, 20), (3, 500, 1)]
    begun = [
        Begun(pid, "", 0.0, size + 7 * number)
        for pid, size, jobs in lives
        for number in range(WARM_UP_JOBS + jobs)
    ]
    assert rss_slope(begun) == pytest.approx(7.0)
    assert rss_slope(begun[:WARM_UP_JOBS]) is None


def test_the_p99_of_few_is_their_largest() -> None:
    assert p99([]) is None
    assert p99([3.0, 1.0, 2.0]) == 3.0
    assert p99(range(1, 201)) == 198
