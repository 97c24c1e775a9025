"""A recording as a workload: which jobs, when, at what cost."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest
from support.recordings import SETTINGS, busy, demand, header, played

from scheduler import messages as m
from scheduler.contest import contest
from scheduler.errors import InputError
from scheduler.recorded import Recorded, RecordedCosts
from scheduler.recording import Turn
from scheduler.types import Budget, Demand, Fault, Lease, Links, Outcome, Sharing

SLO = dict.fromkeys(("chat", "enhance_base", "enhance_instruct"), 15) | {
    "sdxl_generate": 30,
    "wan_generate": 600,
}
PROFILE: dict[str, Any] = {"slo_seconds": SLO}


def collected(*turns: Turn) -> Recorded:
    recorded = Recorded()
    for turn in turns:
        recorded.feed(turn)
    return recorded


def turn(at: float, *messages: m.Event | m.Command) -> Turn:
    """Commands and events in any order."""
    commands = tuple(c for c in messages if isinstance(c, m.Command))
    return Turn(at, tuple(e for e in messages if isinstance(e, m.Event)), commands)


def arrived(*demands: Demand) -> Turn:
    return turn(demands[0].arrival, *map(m.JobArrived, demands))


def costs(*turns: Turn, **tables: Any) -> RecordedCosts:
    return collected(*turns).costs(PROFILE | tables, header())


def seconds(*turns: Turn) -> list[float]:
    """The phases' seconds of the one job in these turns."""
    (found,) = costs(arrived(demand("j", "sdxl.unet", "wan.transformer")), *turns).demands.values()
    return [phase.seconds for phase in found.phases]


def test_jobs_are_asked_for_in_the_order_of_their_arrival() -> None:
    recorded = collected(
        arrived(demand("b", "wan.transformer", arrival=2.0, user="x")),
        arrived(demand("a", "sdxl.unet", arrival=3.5), demand("c", "qwen_base.model", arrival=3.5)),
    )
    workload = recorded.workload()
    assert [(r.id, r.arrival, r.user, r.after) for r in workload.requests] == [
        ("b", 2.0, "x", None),
        ("a", 3.5, "u", None),
        ("c", 3.5, "u", None),
    ]
    assert [r.job_class for r in workload.requests] == ["video", "image", "chat"]
    assert recorded.left_out == {}


def test_jobs_that_were_cancelled_or_refused_are_left_out() -> None:
    names = ["cancelled", "refused", "failed", "finished", "going on"]
    recorded = collected(
        arrived(*(demand(name, "sdxl.unet") for name in names)),
        turn(
            200.0,
            m.Settle("cancelled", Outcome.CANCELLED),
            m.Settle("refused", Outcome.REFUSED, Fault.TOO_LARGE, "much"),
            m.Settle("failed", Outcome.FAILED, Fault.RUN),
            m.Settle("finished", Outcome.FINISHED),
        ),
    )
    kept = ["failed", "finished", "going on"]
    assert [r.id for r in recorded.workload().requests] == kept
    assert list(recorded.costs(PROFILE, header()).demands) == kept
    assert recorded.left_out == {"cancelled": 1, "refused": 1}


def test_a_job_that_follows_another_comes_when_that_one_has_ended() -> None:
    first = replace(demand("j/0", "qwen_base.model", arrival=10.0), followed=True)
    second = replace(demand("j/1", "sdxl.unet", arrival=10.0), follows="j/0", deadline=40.0)
    recorded = collected(turn(10.0, m.JobArrived(first)), turn(50.0, m.JobArrived(second)))
    requests = recorded.workload().requests
    assert [(r.id, r.type, r.after) for r in requests] == [
        ("j/0", "chat", None),
        ("j/1", "sdxl_generate", "j/0"),
    ]
    priced = [recorded.costs(PROFILE, header()).demand(request) for request in requests]
    assert [(d.arrival, d.deadline) for d in priced] == [(10.0, None), (10.0, 40.0)]
    assert [(d.follows, d.followed) for d in priced] == [(None, False)] * 2


def test_a_job_that_follows_one_that_was_not_recorded_comes_by_itself() -> None:
    lone = replace(demand("j/1", "sdxl.unet", arrival=50.0), follows="j/0")
    (request,) = collected(arrived(lone)).workload().requests
    assert (request.arrival, request.after) == (50.0, None)


def test_a_turn_that_came_to_nothing_is_read_over() -> None:
    recorded = collected(arrived(demand("j", "sdxl.unet")), Turn(150.0, (), None))
    assert [r.id for r in recorded.workload().requests] == ["j"]


def test_recordings_that_are_no_workload() -> None:
    with pytest.raises(InputError, match="has no requests"):
        Recorded().workload()
    with pytest.raises(InputError, match="job j: kind is '', allowed: image, video, text"):
        collected(arrived(replace(demand("j", "sdxl.unet"), kind=""))).workload()
    with pytest.raises(InputError, match="job j arrived twice"):
        collected(arrived(demand("j", "sdxl.unet"), demand("j", "sdxl.unet")))


FIRST, SECOND, OTHER = Lease(1, "j", 0), Lease(2, "j", 1), Lease(3, "x", 0)


def test_a_phase_that_ran_alone_takes_what_it_took() -> None:
    assert seconds(
        turn(101.0, m.Stage("sdxl.unet")),
        turn(102.0, m.StageSucceeded("sdxl.unet"), m.Load("sdxl.unet")),
        turn(103.0, m.LoadSucceeded("sdxl.unet"), m.Start(FIRST, 1)),
        turn(103.5, m.StepReached(FIRST, 1)),
        turn(104.25, m.PhaseFinished(FIRST, 1), m.Start(SECOND, 2)),
        turn(108.0, m.PhaseFinished(SECOND, 1)),
    ) == [1.25, 3.75]


LOAD, LOADED = m.Load("qwen_base.model"), m.LoadSucceeded("qwen_base.model")


@pytest.mark.parametrize(
    "turns",
    [
        (turn(101.0, LOAD), turn(102.0, m.Start(FIRST, 1)), turn(103.0, LOADED)),
        (turn(102.0, m.Start(FIRST, 1)), turn(103.0, LOAD), turn(104.0, LOADED)),
        (turn(102.0, m.Start(FIRST, 1), LOAD), turn(103.0, LOADED)),
        (turn(101.0, m.Start(OTHER, 1)), turn(102.0, m.Start(FIRST, 1))),
        (turn(102.0, m.Start(FIRST, 1)), turn(103.0, m.Resume(OTHER, 1))),
        (turn(102.0, m.Start(FIRST, 1, 2), m.Start(OTHER, 1, 2)),),
        (turn(101.0, m.Start(OTHER, 1)), turn(102.0, m.Resume(FIRST, 1))),
        (turn(102.0, m.Resume(FIRST, 1)),),
    ],
    ids=[
        *("load before", "load during", "load with it"),
        *("run before", "run during", "shared", "joined", "resumed"),
    ],
)
def test_a_phase_that_was_disturbed_takes_what_was_expected(turns: tuple[Turn, ...]) -> None:
    assert seconds(*turns, turn(110.0, m.PhaseFinished(FIRST, 1))) == [3.0, 3.0]


@pytest.mark.parametrize("ended", [LOADED, m.LoadFailed("qwen_base.model", "", Fault.LOAD)])
@pytest.mark.parametrize("aborted", [False, True])
def test_what_is_over_disturbs_nobody(ended: m.Event, aborted: bool) -> None:
    assert seconds(
        turn(101.0, LOAD, m.Start(OTHER, 1)),
        turn(102.0, m.Aborted("qwen_base.model") if aborted else ended),
        turn(103.0, m.RunCancelled(OTHER)),
        turn(104.0, m.Start(FIRST, 2)),
        turn(106.5, m.PhaseFinished(FIRST, 1)),
    ) == [2.5, 3.0]


@pytest.mark.parametrize("end", [m.Paused(FIRST, 2, 7), m.RunFailed(FIRST, Fault.RUN, "")])
def test_a_phase_that_did_not_end_was_not_measured(end: m.Event) -> None:
    assert seconds(turn(102.0, m.Start(FIRST, 1)), turn(103.0, end)) == [3.0, 3.0]


def test_measured_seconds_have_no_spread() -> None:
    uncertain = demand("j", "sdxl.unet")
    uncertain = replace(uncertain, phases=(replace(uncertain.phases[0], seconds_p90=9.0),))
    before = costs(arrived(uncertain)).demands["j"].phases[0]
    assert (before.seconds, before.seconds_p90) == (3.0, 9.0)
    run = (turn(102.0, m.Start(FIRST, 1)), turn(103.0, m.PhaseFinished(FIRST, 1)))
    after = costs(arrived(uncertain), *run).demands["j"].phases[0]
    assert (after.seconds, after.seconds_p90) == (1.0, None)


def test_a_text_takes_the_steps_that_it_had_or_was_expected_to_have() -> None:
    text = demand("j", "qwen_base.model")
    longest = replace(text.phases[0], seconds=4.0, steps=100, steps_expected=10)
    asked = arrived(replace(text, phases=(longest,)))
    before = costs(asked).demands["j"].phases[0]
    assert (before.steps, before.seconds, before.steps_expected) == (10, 4.0, None)
    shared = (
        turn(102.0, m.Start(FIRST, 1, 2), m.Start(OTHER, 1, 2)),
        turn(103.0, m.StepReached(FIRST, 25)),
        turn(104.0, m.PhaseFinished(FIRST, 1)),
    )
    after = costs(asked, *shared).demands["j"].phases[0]
    assert (after.steps, after.seconds) == (25, 10.0)


def test_a_text_of_which_nothing_was_learned_takes_the_steps_that_it_had_too() -> None:
    text = demand("j", "qwen_base.model")
    asked = arrived(replace(text, phases=(replace(text.phases[0], seconds=40.0, steps=100),)))
    assert costs(asked).demands["j"].phases[0].steps == 100
    shared = (
        turn(102.0, m.Start(FIRST, 1, 2), m.Start(OTHER, 1, 2)),
        turn(103.0, m.StepReached(FIRST, 25)),
        turn(104.0, m.PhaseFinished(FIRST, 1)),
    )
    found = costs(asked, *shared).demands["j"].phases[0]
    assert (found.steps, found.seconds) == (25, 10.0)
    # An image has all of its steps, though only some of them were told.
    image = demand("j", "sdxl.unet")
    asked = arrived(replace(image, phases=(replace(image.phases[0], seconds=40.0, steps=100),)))
    found = costs(asked, *shared).demands["j"].phases[0]
    assert (found.steps, found.seconds) == (100, 40.0)


def test_a_text_of_one_token_takes_one_step() -> None:
    asked = arrived(demand("j", "qwen_base.model"))
    run = (turn(102.0, m.Start(FIRST, 1, 2)), turn(103.0, m.StepReached(FIRST, 1)))
    assert costs(asked, *run).demands["j"].phases[0].steps == 1


def test_it_says_how_many_phases_are_at_their_estimates() -> None:
    run = (turn(102.0, m.Start(FIRST, 1)), turn(103.0, m.PhaseFinished(FIRST, 1)))
    assert collected(arrived(demand("j", "sdxl.unet"), demand("k", "sdxl.unet"))).estimated == (
        2,
        2,
    )
    assert collected(arrived(demand("j", "sdxl.unet")), *run).estimated == (0, 1)


def test_what_the_profile_does_not_say_is_as_it_was_recorded() -> None:
    made = header()
    states = (turn(102.0, m.Paused(FIRST, 1, 7)), turn(103.0, m.PhaseFinished(OTHER, 4)))
    found = costs(arrived(demand("j", "sdxl.unet")), *states)
    assert (found.budget, found.links, found.components) == (
        made.budget,
        made.links,
        made.components,
    )
    assert found.links_naive == made.links
    assert found.copy_slowdown == 1.0
    assert found.paused_bytes == 7, "the most that a job carried"
    assert costs(arrived(demand("j", "sdxl.unet"))).paused_bytes == 0
    assert found.demands["j"].phases[0].state_bytes_max == 7
    assert found.slo_seconds == SLO


def test_what_the_profile_says_holds_key_by_key() -> None:
    found = costs(
        arrived(demand("j", "sdxl.unet")),
        device={"vram_bytes": 80, "reserve_bytes": 10, "paused_bytes": 3},
        links={"host_to_device": 1000, "compute_slowdown_while_copying": 1.5},
        links_naive={"disk_to_device": 2, "fixed_seconds": 1.0},
        components={"sdxl.unet": 50, "of.another": 9},
        phase=[{"types": ["chat"], "name": "x", "components": ["unknown"]}],
    )
    assert found.budget == Budget(70, 1000)
    assert found.links == Links(16.0, 1000.0, 0.25)
    assert found.links_naive == Links(2.0, 2.0, 1.0)
    assert found.copy_slowdown == 1.5
    assert found.paused_bytes == 3
    assert [c.weight_bytes for c in found.components] == [50, 60, 30, 30]


@pytest.mark.parametrize(
    ("tables", "said"),
    [
        ({"slo_seconds": {}}, r"\[slo_seconds\]: chat is missing"),
        ({"device": 1}, r"\[device\] is 1, allowed: a table"),
        ({"device": {"reserve_bytes": 200}}, "allowed: up to vram_bytes, 110"),
        ({"links": {"host_to_device": 0}}, r"\[links\]: host_to_device is 0"),
        ({"batching": {"text_max": 0}}, r"\[batching\]: text_max is 0"),
    ],
)
def test_a_profile_that_cannot_be_used(tables: dict[str, Any], said: str) -> None:
    shared = replace(demand("j", "qwen_base.model").phases[0], sharing=TOGETHER)
    with pytest.raises(InputError, match=said):
        costs(arrived(Demand("j", (shared,), "c", "u", 1.0)), **tables)


TOGETHER = Sharing("k", 1, 16, 0.15, mid_phase=True)
IMAGES = Sharing("k", 4, 6, 0.92, mid_phase=False)


@pytest.mark.parametrize(
    ("recorded", "expected"),
    [
        (TOGETHER, Sharing("k", 1, 8, 0.15, mid_phase=True)),
        (IMAGES, Sharing("k", 4, 4, 0.5, mid_phase=False)),
        (None, None),
    ],
)
def test_running_together_is_as_the_profile_says(
    recorded: Sharing | None, expected: Sharing | None
) -> None:
    phase = replace(demand("j", "sdxl.unet").phases[0], sharing=recorded)
    wanted = arrived(Demand("j", (phase,), "c", "u", 1.0))
    assert costs(wanted).demands["j"].phases[0].sharing == recorded
    batching = {"text_max": 8, "image_exponent": 0.5, "image_max": 2}
    assert costs(wanted, batching=batching).demands["j"].phases[0].sharing == expected


def test_on_a_larger_card_nothing_is_loaded_twice() -> None:
    recorded = collected(*busy(header()))
    workload = recorded.workload()
    rows = {
        size: contest(
            "fifo-lru",
            workload,
            recorded.costs(PROFILE | {"device": {"vram_bytes": size}}, header()),
            SETTINGS,
        )
        for size in (110, 1000)
    }
    assert rows[1000]["jobs"] == rows[110]["jobs"] == 12
    assert rows[1000]["loads"] == 3
    assert rows[110]["loads"] > 3
    assert rows[1000]["mean_flow_s"] < rows[110]["mean_flow_s"]


def test_a_job_alone_is_served_as_it_was() -> None:
    """One job, its component loaded before: what if nothing changes?"""
    turns = played(header(), [demand("j", "sdxl.unet", "sdxl.unet")])
    recorded = collected(*turns)
    row = contest("default", recorded.workload(), recorded.costs(PROFILE, header()), SETTINGS)
    loading = header().links.load_seconds(60)
    assert row["mean_flow_s"] == pytest.approx(1.0 + 1.0 + loading)
