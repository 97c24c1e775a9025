"""Estimates that learn and ETAs that are held against the ends, in a whole service.

Steps and moves take a time of their own on the clock that the service reads, so that every second
below is exact; the service itself waits for nothing.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

import anyio
import pytest
from support.house import House, OpenHouse, job_id, payload
from support.queues import MovedClock
from support.stage import SteppedDevice
from support.turns import turns

from ourvidz.adapters.measurements import SqliteMeasurements
from ourvidz.jobs import TextWork
from ourvidz.logs import configure
from ourvidz.ports import Part, Plan
from scheduler import messages as m
from scheduler.types import Demand, Fault, Lease, Phase

pytestmark = [pytest.mark.anyio, pytest.mark.slow]

STEP = {"encode": 2.0, "denoise": 5.0, "decode": 3.0, "generate": 0.5}
# Nothing is loaded while a job runs.
ALONE = {"scheduler.prefetch": False}
MOVE = {m.Stage: 7.0, m.Load: 1.0}
# What the configuration expects of a step of the pretended device.
EXPECTED = 0.25
# One step to encode, four to denoise, one to decode.
IMAGE = 2.0 + 4 * 5.0 + 3.0


class Timed(SteppedDevice):
    """Moves ``clock`` on by what a step or a move takes; ``peaks`` are the bytes that it counts in
    a phase's runs."""

    def __init__(self, clock: MovedClock, **options: Any) -> None:
        super().__init__(step_seconds=EXPECTED, **options)
        self.clock = clock
        self.peaks: dict[str, int] = {}
        self.planned: dict[str, tuple[Phase, ...]] = {}

    async def plan(self, part: Part) -> Plan:
        plan = await super().plan(part)
        self.planned[part.id] = plan.phases
        return plan

    async def execute(self, command: m.Command) -> m.Event:
        self.clock.now += MOVE.get(type(command), 0.0)
        return await super().execute(command)

    async def pace(
        self, part: Part, phase: Phase, step: int, cancelled: anyio.Event
    ) -> Fault | None:
        fault = await super().pace(part, phase, step, cancelled)
        self.clock.now += STEP[phase.name]
        return fault

    def peak_bytes(self, lease: Lease) -> int | None:
        return self.peaks.get(self.planned[lease.job][lease.phase].name)


def demands(house: House) -> list[Demand]:
    """Every demand that the scheduler is told of, from here on."""
    found: list[Demand] = []
    put = house.service.engine.put

    async def noting(event: m.Event) -> None:
        if isinstance(event, m.JobArrived):
            found.append(event.demand)
        await put(event)

    house.service.engine.put = noting  # type: ignore[method-assign]
    return found


def seconds(demand: Demand) -> dict[str, tuple[float, float | None]]:
    return {phase.name: (phase.seconds, phase.seconds_p90) for phase in demand.phases}


async def metrics(house: House, name: str) -> Mapping[str, Any]:
    job = await house.job(name)
    assert job is not None
    found: Mapping[str, Any] = job["metrics"]
    return found


def sample(house: House, name: str, **labels: str) -> float | None:
    house.service.refresh_gauges()
    return house.service.metrics.registry.get_sample_value(f"ourvidz_{name}", labels)


async def test_what_a_job_took_is_expected_of_the_next_also_after_a_restart(
    open_house: OpenHouse,
) -> None:
    clock = MovedClock()
    async with open_house(Timed(clock), clock=clock, **ALONE) as house:
        seen = demands(house)
        await house.run("first")
        await house.run("second")
        await house.run("sized", width=128, batch_size=2)
        await house.quiet()
    first, second, sized = seen
    assert seconds(first) == {
        "encode": (EXPECTED, None),
        "denoise": (4 * EXPECTED, None),
        "decode": (EXPECTED, None),
    }
    learned = {"encode": (2.0, 2.0), "denoise": (20.0, 20.0), "decode": (3.0, 3.0)}
    assert seconds(second) == learned
    assert seconds(sized) == {**learned, "denoise": (80.0, 80.0), "decode": (12.0, 12.0)}
    async with open_house(Timed(clock), clock=clock, **ALONE) as house:
        seen = demands(house)
        await house.run("after")
        unet = {"component": "sdxl.unet", "quantile": "0.9"}
        assert sample(house, "component_seconds", move="load", **unet) == MOVE[m.Load]
    assert seconds(seen[0]) == learned


async def test_what_was_learned_outlives_a_crash(open_house: OpenHouse) -> None:
    clock = MovedClock()
    async with open_house(Timed(clock), clock=clock, **ALONE) as house:
        await house.run("a")
        await house.barrier()
        house.kill()
    async with open_house(Timed(clock), clock=clock, **ALONE) as house:
        seen = demands(house)
        await house.run("b")
    assert seconds(seen[0])["decode"] == (3.0, 3.0)


async def test_what_could_not_be_written_is_written_by_the_drain(
    open_house: OpenHouse, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def broken(*_: object) -> None:
        raise OSError("the disk is full")

    clock = MovedClock()
    async with open_house(Timed(clock), clock=clock, **ALONE) as house:
        with monkeypatch.context() as patched:
            patched.setattr(SqliteMeasurements, "save", broken)
            await house.run("a")
            await house.quiet()
            await house.barrier()
    async with open_house(Timed(clock), clock=clock, **ALONE) as house:
        seen = demands(house)
        await house.run("b")
    assert seconds(seen[0])["decode"] == (3.0, 3.0)


async def test_another_device_starts_anew(open_house: OpenHouse) -> None:
    class Other(Timed):
        def snapshot(self) -> Mapping[str, Any]:
            return {"kind": "fake", "name": "another card"}

    clock = MovedClock()
    async with open_house(Timed(clock), clock=clock, **ALONE) as house:
        await house.run("first")
    async with open_house(Other(clock), clock=clock, **ALONE) as house:
        seen = demands(house)
        await house.run("after")
    assert seconds(seen[0])["denoise"] == (4 * EXPECTED, None)


async def test_expected_and_taken_are_told_of_a_job_and_counted(
    open_house: OpenHouse, capsys: pytest.CaptureFixture[str]
) -> None:
    clock = MovedClock()
    configure("json", "info", log_prompts=False)
    async with open_house(Timed(clock), clock=clock, **ALONE) as house:
        await house.run("first")
        await house.run("second")
        await house.quiet()
        expected = 6 * EXPECTED
        first, second = await metrics(house, "first"), await metrics(house, "second")
        assert (first["run_seconds"], first["estimated_run_seconds"]) == (IMAGE, expected)
        assert first["estimate_ratio"] == round(IMAGE / expected, 3)
        assert (second["run_seconds"], second["estimated_run_seconds"]) == (IMAGE, IMAGE)
        assert second["estimate_ratio"] == 1.0
        assert sample(house, "estimate_ratio_count", phase="denoise") == 2
        assert sample(house, "estimate_ratio_sum", phase="denoise") == 20.0 + 1.0
    log = capsys.readouterr()
    assert f'"run_seconds":{IMAGE},"estimated_run_seconds":{expected}' in log.out + log.err


async def test_both_parts_of_a_chain_count(open_house: OpenHouse) -> None:
    clock = MovedClock()
    async with open_house(Timed(clock), clock=clock, **ALONE) as house:
        await house.run("c", enhance="base")
        found = await metrics(house, "c")
        assert found["run_seconds"] == 16 * STEP["generate"] + IMAGE
        assert found["estimated_run_seconds"] == (16 + 6) * EXPECTED


async def test_a_job_that_did_not_run_to_its_end_has_no_ratio(open_house: OpenHouse) -> None:
    clock = MovedClock()
    device = Timed(clock)
    device.fail("a", "denoise", 2, Fault.RUN)
    async with open_house(device, clock=clock, **ALONE) as house:
        await house.run("a")
        await house.quiet()
        found = await metrics(house, "a")
        assert found["estimate_ratio"] is None
        assert found["run_seconds"] == 2.0 + 3 * 5.0
        assert sample(house, "estimate_ratio_count", phase="denoise") is None
        seen = demands(house)
        await house.run("b")
        assert seconds(seen[0])["denoise"] == (4 * EXPECTED, None)


async def test_a_job_that_never_ran_has_no_ratio(open_house: OpenHouse) -> None:
    clock = MovedClock()
    device = Timed(clock)
    hold = device.hold("a", "denoise", 1)
    async with open_house(device, clock=clock, **ALONE) as house:
        await house.push("sdxl_queue", payload("a"))
        await hold.reached()
        await house.push("wan_queue", payload("w", "wan_generate"))
        await house.reached("w", "queued")
        await house.service.cancel(job_id("w"))
        await house.ended("w")
        found = await metrics(house, "w")
        assert (found["run_seconds"], found["estimate_ratio"]) == (0.0, None)
        assert found["estimated_run_seconds"] > 0
        hold.release()
        await house.ended("a")


class Brief(Timed):
    """Its texts might be longer than they turn out to be."""

    async def plan(self, part: Part) -> Plan:
        plan = await super().plan(part)
        if not isinstance(part.work, TextWork):
            return plan
        steps = part.work.max_tokens
        return replace(plan, phases=tuple(replace(p, steps=steps) for p in plan.phases))


async def test_a_texts_length_is_learned(open_house: OpenHouse) -> None:
    clock = MovedClock()
    async with open_house(Brief(clock), clock=clock, **ALONE) as house:
        seen = demands(house)
        for name, bound in (("a", 1000), ("b", 1000), ("c", 10)):
            await house.run(name, "enhance_base", target_model="sdxl", max_tokens=bound)
    length, each = 16, STEP["generate"]
    assert seconds(seen[1])["generate"] == (length * each, length * each)
    assert seconds(seen[2])["generate"] == (10 * each, 10 * each)


async def test_a_defect_in_a_run_does_not_end_the_learning(open_house: OpenHouse) -> None:
    clock = MovedClock()
    device = Timed(clock)
    device.fail("a", "denoise", 2, RuntimeError("a defect"))
    async with open_house(device, clock=clock, **ALONE) as house:
        seen = demands(house)
        for name in ("a", "b", "c"):
            await house.run(name)
    assert seconds(seen[2])["denoise"] == (20.0, 20.0)


async def test_a_run_beside_a_move_teaches_nothing(open_house: OpenHouse) -> None:
    """The VAE is loaded while the first job is denoised; then everything is there."""
    clock = MovedClock()
    async with open_house(Timed(clock), clock=clock) as house:
        seen = demands(house)
        for name in ("a", "b", "c"):
            assert (await house.run(name))["status"] == "completed"
        await house.quiet()
        assert (await metrics(house, "a"))["estimate_ratio"] is None
        assert (await metrics(house, "b"))["estimate_ratio"] is not None
        assert sample(house, "estimate_ratio_count", phase="decode") == 3
        assert sample(house, "estimate_ratio_count", phase="denoise") == 2
    assert seconds(seen[1])["denoise"] == (4 * EXPECTED, None)
    assert seconds(seen[1])["decode"] == (3.0, 3.0)
    assert seconds(seen[2])["denoise"] == (20.0, 20.0)


async def test_texts_decoded_together_teach_their_length_alone(open_house: OpenHouse) -> None:
    clock = MovedClock()
    device = Timed(clock, units_max=2)
    hold = device.hold("a", "denoise", 1)
    async with open_house(device, clock=clock, **ALONE) as house:
        seen = demands(house)
        await house.push("sdxl_queue", payload("a"))
        await hold.reached()
        for name in ("b", "c"):
            await house.push("chat_queue", payload(name, "enhance_base", target_model="sdxl"))
            await house.reached(name, "queued")
        await turns()
        hold.release()
        for name in ("b", "c"):
            assert (await house.ended(name))["status"] == "completed"
            assert (await metrics(house, name))["estimate_ratio"] is None
        await house.run("d", "enhance_base", target_model="sdxl", seed=1)
        await house.run("e", "enhance_base", target_model="sdxl", seed=1)
    texts = [seconds(demand)["generate"] for demand in seen[1:]]
    assert texts == [(16 * EXPECTED, None)] * 3 + [(8.0, 8.0)]


async def test_how_much_slower_texts_are_together_is_learned(open_house: OpenHouse) -> None:
    """The device takes a step's time for each of two: as if they ran one by one."""
    clock = MovedClock()
    device = Timed(clock, units_max=2, exponent=0.15)
    async with open_house(device, clock=clock, **ALONE) as house:
        seen = demands(house)
        await house.run("alone", "enhance_base", target_model="sdxl", seed=1)
        for number in range(3):  # two of them are seen in each, and three are wanted
            hold = device.hold(f"image{number}", "denoise", 1)
            await house.push("sdxl_queue", payload(f"image{number}"))
            await hold.reached()
            for name in (f"b{number}", f"c{number}"):
                await house.push("chat_queue", payload(name, "enhance_base", target_model="sdxl"))
                await house.reached(name, "queued")
            await turns()
            hold.release()
            for name in (f"b{number}", f"c{number}"):
                assert (await house.ended(name))["status"] == "completed"
        await house.run("after", "enhance_base", target_model="sdxl")
    texts = [demand.phases[0].sharing for demand in seen if demand.kind == "text"]
    exponents = [None if sharing is None else sharing.exponent for sharing in texts]
    assert exponents == [None] + 4 * [0.15] + 3 * [pytest.approx(1.0)]


async def test_a_peak_beyond_the_plan_is_reserved_from_then_on(open_house: OpenHouse) -> None:
    clock = MovedClock()
    device = Timed(clock)
    device.peaks = {"denoise": 612, "decode": 10}
    async with open_house(device, clock=clock, **ALONE) as house:
        seen = demands(house)
        await house.run("a")
        await house.run("b")
        device.peaks = {"denoise": 613}
        await house.run("c")
        await house.run("d")
    found = [{phase.name: phase.working_bytes for phase in demand.phases} for demand in seen]
    assert [working["denoise"] for working in found] == [500, 612, 612, 613]
    assert {working["decode"] for working in found} == {3_000}


async def test_moves_are_learned_and_shown(open_house: OpenHouse) -> None:
    clock = MovedClock()
    async with open_house(Timed(clock), clock=clock, **ALONE) as house:
        unet = {"component": "sdxl.unet", "quantile": "0.5"}
        assert sample(house, "component_seconds", move="load", **unet) is None
        await house.run("a")
        assert sample(house, "component_seconds", move="load", **unet) == MOVE[m.Load]
        assert sample(house, "component_seconds", move="stage", **unet) == MOVE[m.Stage]
        assert sample(house, "component_seconds", component="wan.vae", move="load") is None


async def test_moves_beside_each_other_teach_nothing(open_house: OpenHouse) -> None:
    async with open_house(clock=MovedClock()) as house:
        runs = house.service.engine._watcher
        for move in (m.Stage, m.Load):
            for name in ("sdxl.unet", "sdxl.vae"):
                runs.before_move(move(name))
            for name in ("sdxl.unet", "sdxl.vae"):
                done = m.StageSucceeded if move is m.Stage else m.LoadSucceeded
                runs.after_move(done(name), 5.0)
        for name in ("sdxl.unet", "sdxl.vae"):
            assert house.service.estimates.load_seconds(name) is None
            assert house.service.estimates.stage_seconds(name) is None


async def test_ends_are_held_against_the_first_eta(open_house: OpenHouse) -> None:
    clock = MovedClock()
    async with open_house(Timed(clock), clock=clock, **ALONE) as house:
        assert house.service.health()["eta_calibration"]["parts"] == 0
        await house.run("a")
        await house.run("c", enhance="base")
        await house.quiet()
        calibration = house.service.health()["eta_calibration"]
        assert calibration["parts"] == 3
        assert calibration["ratio_p50"] > 1.0
        assert sample(house, "etas_total") == 3


async def test_an_eta_never_rises_while_nothing_happens(open_house: OpenHouse) -> None:
    clock = MovedClock()
    device = Timed(clock)
    hold = device.hold("a", "denoise", 1)
    async with open_house(device, clock=clock, **ALONE) as house:
        await house.push("sdxl_queue", payload("a"))
        await hold.reached()
        await house.push("wan_queue", payload("w", "wan_generate"))
        await house.reached("w", "queued")
        await turns()
        before = await _etas(house)
        clock.now += 0.1
        soon = await _etas(house)
        clock.now += 1000.0
        late = await _etas(house)
        assert before.keys() == soon.keys() == late.keys() == {"a", "w"}
        for name in before:
            assert before[name] > soon[name] > late[name] == 0.0
        hold.release()
        for name in ("a", "w"):
            await house.ended(name)


async def _etas(house: House) -> dict[str, float]:
    """As the job resource and ``ps`` tell them, which must agree."""
    listed = {job["id"]: job["eta_seconds"] for job in house.service.processes()["jobs"]}
    found = {}
    for name in ("a", "w"):
        job = await house.job(name)
        assert job is not None
        assert job["eta_p90_seconds"] >= job["eta_seconds"] == listed[job_id(name)]
        found[name] = job["eta_seconds"]
    return found
