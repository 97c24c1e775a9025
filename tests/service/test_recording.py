"""A live service, recorded: what it decided is decided once more, and nothing it was told in words
is written down."""

from __future__ import annotations

from collections import Counter
from pathlib import Path

import anyio
import pytest
from support.house import USER, House, OpenHouse, job_id

from ourvidz.adapters.device_fake import FakeDevice, Faults
from ourvidz.adapters.recording_reader import RecordingReader
from scheduler import messages as m
from scheduler.contest import contest
from scheduler.recorded import Recorded
from scheduler.recording import Turn
from scheduler.replay import Replay, scheduler_of
from scheduler.types import Fault

pytestmark = pytest.mark.anyio

LIMIT = 20
SLO = {
    "slo_seconds": {"chat": 15, "enhance_base": 15, "enhance_instruct": 15}
    | {"sdxl_generate": 30, "wan_generate": 600}
}


def replayed(folder: Path) -> tuple[RecordingReader, list[Turn]]:
    """All turns of a recording; the scheduler must decide as it did."""
    reader = RecordingReader(folder)
    again, turns = Replay(scheduler_of(reader.header)), []
    for turn in reader.turns():
        difference = again.feed(turn)
        assert difference is None, difference
        turns.append(turn)
    return reader, turns


def recordings_below(folder: Path) -> list[Path]:
    return list(folder.rglob("*.jsonl"))


async def serve_some(house: House) -> None:
    """Images, videos, texts and a chain at once, so that components come and go."""
    async with anyio.create_task_group() as tasks:
        for number in range(4):
            tasks.start_soon(house.run, f"image {number}")
            tasks.start_soon(house.run, f"video {number}", "wan_generate")
            tasks.start_soon(house.run, f"chat {number}", "enhance_instruct")
        tasks.start_soon(lambda: house.run("chain", enhance="base"))


async def test_a_live_service_decides_once_more_as_it_did(
    open_house: OpenHouse, tmp_path: Path
) -> None:
    folder = tmp_path / "recordings"
    faults = Faults(stages={"wan.vae": ["unreadable: a pear"]})
    faults.runs[job_id("image 2")] = [Fault.OUT_OF_MEMORY, Fault.RUN]
    flags = {"recorder.path": str(folder), "device.budget_bytes": 20_000}
    async with open_house(FakeDevice(faults=faults), **flags) as house:
        await serve_some(house)
        await house.quiet()
        assert house.service.health()["alarms"] == ["component_failed:wan.vae"]
        meanwhile, turns = replayed(folder)
        assert meanwhile.ending.startswith("it has no last line")
    reader, whole = replayed(folder)
    assert whole[: len(turns)] == turns
    assert reader.ending == "the service ended"
    arrived = [e.demand for t in whole for e in t.events if isinstance(e, m.JobArrived)]
    assert {d.job for d in arrived} >= {f"{job_id('chain')}/0", f"{job_id('chain')}/1"}
    kinds = {type(c) for t in whole for c in t.commands or ()}
    assert kinds >= {m.Stage, m.Load, m.Evict, m.Start, m.Settle}
    assert {type(e) for t in whole for e in t.events} >= {m.StepReached, m.StageFailed}
    (file,) = recordings_below(folder)
    text = file.read_text()
    assert "pear" not in text
    assert USER not in text
    assert len({d.user for d in arrived}) == 1


async def test_its_jobs_can_be_served_by_another_policy(
    open_house: OpenHouse, tmp_path: Path
) -> None:
    flags = {"recorder.path": str(tmp_path / "r"), "recorder.hash_users": False}
    async with open_house(FakeDevice(step_seconds=0.001), **flags) as house:
        await serve_some(house)
        await house.quiet()
    reader, recorded = RecordingReader(tmp_path / "r"), Recorded()
    for turn in reader.turns():
        recorded.feed(turn)
    workload = recorded.workload()
    kinds = Counter(r.type for r in workload.requests)
    assert kinds == {"chat": 5, "sdxl_generate": 5, "wan_generate": 4}
    (chained,) = [r for r in workload.requests if r.after is not None]
    assert chained.after == f"{job_id('chain')}/0"
    assert {r.user for r in workload.requests} == {USER}
    costs = recorded.costs(SLO, reader.header)
    for policy in ("default", "fifo-lru"):
        row = contest(policy, workload, costs, reader.header.settings)
        assert row["jobs"] == 14
        assert row["mean_flow_s"] >= row["bound_mean_flow_s"] > 0


async def test_a_disk_that_takes_nothing_is_an_alarm_and_no_more(
    open_house: OpenHouse, tmp_path: Path
) -> None:
    (tmp_path / "file").write_text("")
    async with open_house(**{"recorder.path": str(tmp_path / "file" / "r")}) as house:
        await house.run("image")
        with anyio.fail_after(LIMIT):
            while "recording_stopped" not in house.service.health()["alarms"]:
                await anyio.lowlevel.checkpoint()
        await house.run("another")


async def test_nothing_is_recorded_unless_it_is_asked_for(
    open_house: OpenHouse, tmp_path: Path
) -> None:
    async with open_house() as house:
        await house.run("image")
    assert recordings_below(tmp_path) == []
