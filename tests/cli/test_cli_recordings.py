"""``ourvidz replay`` and ``ourvidz simulate --from-events``: a recording once more, as it was and
otherwise."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from anyio.from_thread import start_blocking_portal
from support.command import CONFIG, Cli, Done, open_served
from support.recordings import busy, demand, header, numbered, whole, written

from ourvidz.adapters.device_fake import FakeDevice
from ourvidz.adapters.recording_lines import Beginning
from scheduler import messages as m
from scheduler.contest import CONTESTANTS
from scheduler.recording import Turn
from scheduler.types import Outcome, SchedulerSettings

TURNS = busy(header())
SLO = """
[slo_seconds]
chat = 15
enhance_base = 15
enhance_instruct = 15
sdxl_generate = 30
wan_generate = 600
"""


@pytest.fixture
def recording(tmp_path: Path) -> Path:
    return written(tmp_path / "r.jsonl", whole(header(), TURNS))


@pytest.fixture
def profile(tmp_path: Path) -> Path:
    path = tmp_path / "p.toml"
    path.write_text(SLO)
    return path


def test_a_service_that_goes_on_is_replayed_and_asked_what_if(
    cli: Cli, tmp_path: Path, profile: Path
) -> None:
    folder = tmp_path / "recordings"
    flags = {"recorder.path": str(folder)}
    with (
        start_blocking_portal() as portal,
        portal.wrap_async_context_manager(open_served(tmp_path, FakeDevice(), **flags)) as served,
    ):
        for name in ("one", "two"):
            served.call(served.house.run, name, "sdxl_generate")
            served.call(served.house.run, f"{name} video", "wan_generate")
        done = cli("replay", str(folder))
        assert done.code == 0, done.out
        assert "no difference; it has no last line: the service was killed, or goes on" in done.out
    done = cli("replay", str(folder))
    assert "no difference; the service ended" in done.out
    done = cli("simulate", "--from-events", str(folder), str(profile), "--policy", "all")
    assert {row["jobs"] for row in rows(done)} == {4}


def test_a_recording_decides_as_it_did(cli: Cli, recording: Path) -> None:
    done = cli("replay", str(recording))
    events = sum(len(turn.events) for turn in TURNS)
    commands = sum(len(turn.commands or ()) for turn in TURNS)
    assert (done.code, done.err) == (0, "")
    assert done.out.splitlines() == [
        f"{recording}: {len(TURNS)} turns, {events} events, {commands} commands compared",
        "no difference; the service ended",
    ]
    done = cli("replay", str(recording), "--json")
    assert (done.code, json.loads(done.out)) == (
        0,
        {
            "file": str(recording),
            "turns": len(TURNS),
            "events": events,
            "commands": commands,
            "ending": "the service ended",
            "broke": None,
            "difference": None,
        },
    )


def test_the_first_difference_is_shown(cli: Cli, recording: Path) -> None:
    place = next(n for n, turn in enumerate(TURNS) if m.Load("wan.transformer") in turn.commands)
    planted = replace(TURNS[place], commands=(m.Load("sdxl.unet"),))
    written(recording, whole(header(), [*TURNS[:place], planted, *TURNS[place + 1 :]]))
    done = cli("replay", str(recording))
    assert done.code == 1
    (event,) = planted.events
    assert done.out.splitlines()[1:] == [
        f"turn {place + 1} at {planted.at} s ends otherwise",
        f"  event     {event}",
        f"  expected  command 1: {m.Load('sdxl.unet')}",
        f"  got       command 1: {TURNS[place].commands[0]}",  # type: ignore[index]
    ]
    done = cli("replay", str(recording), "--json")
    assert done.code == 1
    found = json.loads(done.out)
    assert found["ending"] is None
    assert found["difference"] == {
        "turn": place + 1,
        "at": planted.at,
        "events": [str(event)],
        "command": 1,
        "expected": str(m.Load("sdxl.unet")),
        "got": str(TURNS[place].commands[0]),  # type: ignore[index]
    }


def test_a_last_line_that_was_cut_off_is_told(cli: Cli, recording: Path) -> None:
    recording.write_bytes(recording.read_bytes()[:-30])
    done = cli("replay", str(recording))
    assert done.code == 0
    assert "no difference; its last line is cut off: the service was killed, or" in done.out


def test_a_scheduler_that_broke_breaks_again(cli: Cli, recording: Path) -> None:
    broke = Turn(TURNS[-1].at, (m.JobArrived(demand("x", "sdxl.unet")),) * 2, None)
    written(recording, whole(header(), [*TURNS, broke])[:-1])
    done = cli("replay", str(recording))
    assert done.code == 0
    assert "the scheduler broke in the last turn, then as now: ProtocolError: job x" in done.out


@pytest.mark.parametrize(
    ("lines", "said"),
    [
        ([], "line 1 is empty"),
        ([Beginning(header("lifo"), 1)], "policy is 'lifo', allowed: default, "),
        (
            [Beginning(header(), 2), *numbered(TURNS)],
            "is file 2 of its recording and the earlier ones are",
        ),
    ],
)
def test_recordings_that_cannot_be_replayed(
    cli: Cli, recording: Path, lines: list[Any], said: str
) -> None:
    done = cli("replay", str(written(recording, lines)))
    assert (done.code, done.out) == (1, "")
    assert said in done.err
    assert "Traceback" not in done.err


def rows(done: Done) -> list[dict[str, Any]]:
    assert done.code == 0, done.err
    return [json.loads(line) for line in done.out.splitlines()]


def test_the_jobs_of_a_recording_by_every_policy(cli: Cli, recording: Path, profile: Path) -> None:
    done = cli("simulate", "--from-events", str(recording), str(profile), "--policy", "all")
    found = rows(done)
    assert [row["policy"] for row in found] == list(CONTESTANTS)
    assert {row["jobs"] for row in found} == {12}
    assert done.err.startswith("at their estimates: ")
    workload = {"mean_flow_s", "bound_mean_flow_s", "ratio", "slo", "slo_by_class", "p95", "loads"}
    assert workload <= set(found[0])


def test_another_card_and_another_swap_speed(cli: Cli, recording: Path, profile: Path) -> None:
    def row(tables: str) -> dict[str, Any]:
        profile.write_text(SLO + tables)
        return rows(cli("simulate", str(profile), "--from-events", str(recording), "--json"))[0]

    as_it_was = row("")
    larger = row("[device]\nvram_bytes = 1000")
    slower = row("[links]\nhost_to_device = 1")
    assert larger["loads"] < as_it_was["loads"]
    assert larger["mean_flow_s"] < as_it_was["mean_flow_s"] < slower["mean_flow_s"]


def test_jobs_that_were_cancelled_are_told(cli: Cli, recording: Path, profile: Path) -> None:
    cancelled = Turn(TURNS[-1].at, (), (m.Settle("job-3", Outcome.CANCELLED),))
    written(recording, whole(header(), [*TURNS, cancelled]))
    done = cli("simulate", "--from-events", str(recording), str(profile))
    assert rows(done)[0]["jobs"] == 11
    assert done.err == "left out: 1 cancelled\nat their estimates: 3 of 16 phases\n"


def test_a_recording_without_its_beginning_still_has_jobs(
    cli: Cli, recording: Path, profile: Path
) -> None:
    written(recording, [Beginning(header(), 4), *numbered(TURNS[6:], 1000)])
    left = sum(isinstance(e, m.JobArrived) for turn in TURNS[6:] for e in turn.events)
    assert 0 < left < 12
    done = cli("simulate", "--from-events", str(recording), str(profile))
    assert rows(done)[0]["jobs"] == left


def test_the_recorded_settings_hold_unless_others_are_given(
    cli: Cli, recording: Path, profile: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    used: list[SchedulerSettings] = []

    def contest(name: str, workload: Any, costs: Any, settings: SchedulerSettings) -> Any:
        used.append(settings)
        return {"policy": name}

    monkeypatch.setattr("scheduler.contest.contest", contest)
    arguments = ("simulate", "--from-events", str(recording), str(profile))
    cli(*arguments)
    cli(*arguments, "--config", str(CONFIG), "--set", "scheduler.waiting_jobs_max=7")
    assert used[0] == header().settings
    assert used[1].waiting_jobs_max == 7
    assert used[1].class_weights, "the others are the configuration's too"
    monkeypatch.setenv("OURVIDZ_CONFIG", str(CONFIG))
    changes = ("scheduler.waiting_jobs_max=7", "scheduler.preempt=false", "http.port=7999")
    cli(*arguments, *(word for change in changes for word in ("--set", change)))
    recorded = header().settings
    policy = replace(recorded.policy, preempt=False)
    assert used[2] == replace(recorded, waiting_jobs_max=7, policy=policy), "and nothing else"


@pytest.mark.parametrize(
    ("arguments", "code", "said"),
    [
        (("p.toml",), 2, "1 files, allowed: WORKLOAD.jsonl PROFILE.toml"),
        (("w.jsonl", "p.toml", "--from-events", "r.jsonl"), 2, "2 files, allowed: PROFILE.toml"),
        (("p.toml", "--from-events", "nowhere"), 1, "nowhere cannot be read: No such file"),
        (("nowhere", "--from-events", "r.jsonl"), 1, "nowhere cannot be read: No such file"),
        (("empty.toml", "--from-events", "r.jsonl"), 1, "r.jsonl, empty.toml: [slo_seconds] is"),
        (("p.toml", "--from-events", "none.jsonl"), 1, "none.jsonl: the workload has no requests"),
        (("small.toml", "--from-events", "r.jsonl"), 1, "r.jsonl, small.toml: request job-"),
    ],
)
@pytest.mark.usefixtures("recording", "profile")
def test_files_that_cannot_be_used(
    cli: Cli, tmp_path: Path, arguments: tuple[str, ...], code: int, said: str
) -> None:
    (tmp_path / "empty.toml").write_text("")
    (tmp_path / "small.toml").write_text(SLO + "[device]\nvram_bytes = 40")
    written(tmp_path / "none.jsonl", whole(header(), []))
    done = cli("simulate", *arguments)
    assert (done.code, done.out) == (code, "")
    assert said in " ".join(done.err.split())
