"""What every executor promises of runs that are shared and of transfers that are called off.

Run against the fake device and against the real one over tiny checkpoints.
"""

from __future__ import annotations

from collections.abc import AsyncIterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import anyio
import pytest
from support.bench import IMAGES, Bench, models, open_executor
from support.members import RUN, WORKS, Member, carry_out, kinds, members, under_way
from support.rigs import DeviceRig, FakeRig, Rig
from support.states import wait
from support.turns import turns

from ourvidz import logs
from ourvidz.adapters.device import DeviceExecutor
from ourvidz.adapters.device_fake_states import FakeStates
from ourvidz.adapters.saved_states import SavedStates, Saving
from ourvidz.ports import STATE_FOLDER
from pipelines.state import State
from pipelines.tiny import make_tiny
from scheduler import messages as m
from scheduler.types import Fault

pytestmark = pytest.mark.anyio


@pytest.fixture(scope="module")
async def device(tiny_root: Path) -> DeviceExecutor:
    make_tiny(tiny_root)
    given = models(tiny_root)
    return await open_executor({name: given[name] for name in ("sdxl", "qwen_instruct")})


@pytest.fixture(params=["fake", "real"])
async def rig(
    request: pytest.FixtureRequest, device: DeviceExecutor, monkeypatch: pytest.MonkeyPatch
) -> AsyncIterator[Rig]:
    logs.configure("json", "critical", log_prompts=False)  # planted faults draw long tracebacks
    rig: Rig = FakeRig() if request.param == "fake" else DeviceRig(device, monkeypatch)
    yield rig
    rig.assert_nothing_is_left()


@pytest.fixture(params=WORKS)
def kind(request: pytest.FixtureRequest) -> str:
    return str(request.param)


async def test_starters_wait_for_one_another_and_step_together(rig: Rig, kind: str) -> None:
    all_three = await members(rig, kind, 3)
    async with under_way(rig) as going:
        for member in all_three[:2]:
            await going.begin(member.start(starters=3))
        await turns()
        assert rig.orders.taken == []
        await going.begin(all_three[2].start(starters=3))
    for member in all_three:
        assert isinstance(going.events[member.id], m.PhaseFinished)
        assert going.events[member.id].state_bytes >= 0
    # As many steps as the longest has; everyone is in the first of them, each as far as it goes.
    together = rig.orders.taken
    assert len(together) == max(len(member.steps) for member in all_three)
    for member in all_three:
        assert [member.id in step for step in together] == [
            index < len(member.steps) for index in range(len(together))
        ]
        await member.assert_whole()


@pytest.mark.parametrize("seeded", [True, False])
async def test_only_the_pictures_that_are_wanted_are_made(rig: Rig, seeded: bool) -> None:
    work = replace(IMAGES, images=3, seeded=seeded)
    whole = await Bench(rig.executor, work).run()
    part = await Bench(rig.executor, work, wanted=(0, 2)).run()
    assert [index for index, _ in part[0]] == [0, 2]
    if seeded:
        assert part[0] == [picture for picture in whole[0] if picture[0] != 1]


class EveryState(SavedStates):
    """None is left out because the one before is still being written."""

    def offer(self, state: State, saving: Saving, *, at_once: bool = False) -> None:
        wait(self)
        super().offer(state, saving, at_once=at_once)


async def test_another_executor_goes_on_where_one_has_left_it(
    rig: Rig, device: DeviceExecutor, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """After a denoising step of what is run alone, and only of that."""
    if isinstance(rig, FakeRig):
        rig._states = FakeStates(1)
    else:
        monkeypatch.setattr(device, "_states", EveryState(1e-9))
    for work, goes_on in ((IMAGES, True), (replace(IMAGES, seeded=False), False)):
        spool = tmp_path / str(goes_on)
        (spool / STATE_FOLDER).mkdir(parents=True)
        expected = await Bench(rig.executor, work).run()
        bench = Bench(rig.executor, work, spool=spool)
        await bench.begin()
        whole = [phase.name for phase in bench.planned.phases]
        await bench.runs(0)
        await bench.bring_in(1)
        await bench.runs(1)
        bench.end()
        if isinstance(rig, DeviceRig):
            wait(device._states)
        again = Bench(rig.executor, work, spool=spool)
        planned = [phase.name for phase in (await again.plan()).phases]
        rig.executor.forget(again.part.id)
        assert planned == (whole[2:] if goes_on else whole)
        assert await again.run() == expected


async def test_all_of_a_phase_is_told_before_its_end(rig: Rig, kind: str) -> None:
    one, two = await members(rig, kind, 2)
    seen: dict[str, int] = {}

    async def run(member: Member) -> None:
        await rig.executor.execute(member.start(starters=2))
        seen[member.id] = len(member.bench.notices)

    async with anyio.create_task_group() as tasks:
        for member in (one, two):
            tasks.start_soon(run, member)
    await turns()
    assert seen == {member.id: len(member.bench.notices) for member in (one, two)}
    for member in (one, two):
        await member.assert_whole()


async def test_one_joins_a_run_at_its_next_step_boundary(rig: Rig) -> None:
    one, two = await members(rig, "text", 2)
    hold = rig.orders.hold(one.bench, 0, 2)
    async with under_way(rig) as going:
        await going.begin(one.start())
        await hold.reached()
        await going.begin(two.start())
        await turns()
        assert two.steps == []
        hold.release()
    assert kinds([*going.events.values()]) == [m.PhaseFinished] * 2
    alone, both = frozenset({one.id}), frozenset({one.id, two.id})
    assert rig.orders.taken[:4] == [alone] * 3 + [both]
    for member in (one, two):
        await member.assert_whole()


async def test_one_who_comes_too_late_is_a_run_by_itself(rig: Rig, kind: str) -> None:
    one, two = await members(rig, kind, 2)
    for member in (one, two):
        assert kinds(await carry_out(rig, member.start())) == [m.PhaseFinished]
    assert set(rig.orders.taken) == {frozenset({one.id}), frozenset({two.id})}
    for member in (one, two):
        await member.assert_whole()


async def test_starters_are_counted_though_their_run_goes_on_already(rig: Rig) -> None:
    """One who was to join them has come first."""
    early, one, two = await members(rig, "text", 3)
    hold = rig.orders.hold(early.bench, 0, 1)
    async with under_way(rig) as going:
        await going.begin(early.start())
        await hold.reached()
        await going.begin(one.start(starters=2))
        hold.release()
        while early.id not in going.events:
            await anyio.lowlevel.checkpoint()
        assert one.steps == []
        await going.begin(two.start(starters=2))
    assert kinds([*going.events.values()]) == [m.PhaseFinished] * 3
    assert frozenset({one.id, two.id}) in rig.orders.taken
    for member in (early, one, two):
        await member.assert_whole()


async def test_one_pauses_and_the_others_go_on(rig: Rig, kind: str) -> None:
    one, two, three = await members(rig, kind, 3)
    hold = rig.orders.hold(two.bench, two.phase, 1)
    async with under_way(rig) as going:
        first = one.start(starters=3)
        await going.begin(first)
        for member in (two, three):
            await going.begin(member.start(starters=3))
        await hold.reached()
        rig.executor.request(m.Pause(first.lease))
        await turns()
        hold.release()
    paused = going.events[one.id]
    assert isinstance(paused, m.Paused)
    assert (paused.lease, paused.step) == (first.lease, 2)
    assert paused.state_bytes >= 0
    assert one.steps == [1, 2]
    assert kinds([going.events[two.id], going.events[three.id]]) == [m.PhaseFinished] * 2
    assert frozenset({two.id, three.id}) in rig.orders.taken
    assert kinds(await carry_out(rig, one.resume(RUN + 1))) == [m.PhaseFinished]
    for member in (one, two, three):
        await member.assert_whole()


async def test_paused_texts_resume_together_at_different_steps(rig: Rig) -> None:
    both = await members(rig, "text", 2)
    for member, step in zip(both, (1, 3), strict=True):
        hold = rig.orders.hold(member.bench, 0, step)
        async with under_way(rig) as going:
            command = member.start()
            await going.begin(command)
            await hold.reached()
            rig.executor.request(m.Pause(command.lease))
            hold.release()
        assert kinds([*going.events.values()]) == [m.Paused]
    rig.orders.taken.clear()
    events = await carry_out(rig, *(member.resume(starters=2) for member in both))
    assert kinds(events) == [m.PhaseFinished] * 2
    assert rig.orders.taken[0] == frozenset(member.id for member in both)
    for member in both:
        await member.assert_whole()


async def test_one_is_cancelled_within_a_step_and_the_others_take_it(rig: Rig, kind: str) -> None:
    one, two, three = await members(rig, kind, 3)
    hold = rig.orders.hold(two.bench, two.phase, 1)
    async with under_way(rig) as going:
        first = one.start(starters=3)
        await going.begin(first)
        for member in (two, three):
            await going.begin(member.start(starters=3))
        await hold.reached()
        rig.executor.request(m.Cancel(first.lease))
        hold.release()
    assert going.events[one.id] == m.RunCancelled(first.lease)
    assert one.steps == [1]
    assert kinds([going.events[two.id], going.events[three.id]]) == [m.PhaseFinished] * 2
    one.bench.end()
    for member in (two, three):
        await member.assert_whole()


async def test_all_are_cancelled_within_a_step(rig: Rig, kind: str) -> None:
    both = await members(rig, kind, 2)
    hold = rig.orders.hold(both[0].bench, both[0].phase, 1)
    commands = [member.start(starters=2) for member in both]
    async with under_way(rig) as going:
        for command in commands:
            await going.begin(command)
        await hold.reached()
        for command in commands:
            rig.executor.request(m.Cancel(command.lease))
        hold.release()
    assert [going.events[c.lease.job] for c in commands] == [
        m.RunCancelled(c.lease) for c in commands
    ]
    assert len(rig.orders.taken) == 2
    for member in both:
        member.bench.end()


async def test_what_is_asked_before_the_run_has_begun_counts(rig: Rig, kind: str) -> None:
    """A starter that is stopped still counts, and the others begin without it."""
    paused, cancelled, other = await members(rig, kind, 3)
    commands = [member.start(starters=3) for member in (paused, cancelled, other)]
    rig.executor.request(m.Pause(commands[0].lease))
    rig.executor.request(m.Cancel(commands[1].lease))
    events = await carry_out(rig, *commands)
    assert isinstance(events[0], m.Paused)
    assert events[0].step == 0
    assert events[1] == m.RunCancelled(commands[1].lease)
    assert isinstance(events[2], m.PhaseFinished)
    assert set(rig.orders.taken) == {frozenset({other.id})}
    assert kinds(await carry_out(rig, paused.resume())) == [m.PhaseFinished]
    cancelled.bench.end()
    for member in (paused, other):
        await member.assert_whole()


@pytest.mark.parametrize("planted", [Fault.OUT_OF_MEMORY, Fault.RUN])
async def test_a_step_that_fails_fails_all_who_take_it(rig: Rig, kind: str, planted: Fault) -> None:
    """Each of them goes on alone afterwards, from where that step began; nothing is told twice."""
    both = await members(rig, kind, 2)
    rig.orders.fail(both[1].bench, both[1].phase, 1, planted)
    commands = [member.start(starters=2) for member in both]
    events = await carry_out(rig, *commands)
    expected = Fault.OUT_OF_MEMORY if planted is Fault.OUT_OF_MEMORY else Fault.SHARED
    for event, command in zip(events, commands, strict=True):
        assert isinstance(event, m.RunFailed)
        assert (event.lease, event.fault) == (command.lease, expected)
        assert "planted" in event.detail
    assert [member.steps for member in both] == [[1], [1]]
    for member in both:
        assert kinds(await carry_out(rig, member.start())) == [m.PhaseFinished]
        await member.assert_whole()


async def test_who_is_cancelled_in_a_step_that_fails_does_not_fail(rig: Rig, kind: str) -> None:
    one, two, three = await members(rig, kind, 3)
    hold = rig.orders.hold(two.bench, two.phase, 1)
    rig.orders.fail(two.bench, two.phase, 1, Fault.RUN)
    async with under_way(rig) as going:
        first = one.start(starters=3)
        await going.begin(first)
        for member in (two, three):
            await going.begin(member.start(starters=3))
        await hold.reached()
        rig.executor.request(m.Cancel(first.lease))
        hold.release()
    assert going.events[one.id] == m.RunCancelled(first.lease)
    assert kinds([going.events[two.id], going.events[three.id]]) == [m.RunFailed] * 2
    for member in (one, two, three):
        member.bench.end()


async def test_the_one_to_blame_fails_again_alone(rig: Rig, kind: str) -> None:
    guilty, other = await members(rig, kind, 2)
    rig.orders.fail(guilty.bench, guilty.phase, 1, Fault.RUN)
    await carry_out(rig, guilty.start(starters=2), other.start(starters=2))
    rig.orders.fail(guilty.bench, guilty.phase, 1, Fault.RUN)
    (event,) = await carry_out(rig, guilty.start())
    assert isinstance(event, m.RunFailed)
    assert event.fault is Fault.RUN
    guilty.bench.end()
    assert kinds(await carry_out(rig, other.start())) == [m.PhaseFinished]
    await other.assert_whole()


async def test_a_fault_where_one_is_left_is_its_own(rig: Rig) -> None:
    one, two = await members(rig, "text", 2)
    hold = rig.orders.hold(one.bench, 0, 1)
    rig.orders.fail(two.bench, 0, 2, Fault.RUN)
    async with under_way(rig) as going:
        first = one.start(starters=2)
        await going.begin(first)
        await going.begin(two.start(starters=2))
        await hold.reached()
        rig.executor.request(m.Pause(first.lease))
        hold.release()
    failed = going.events[two.id]
    assert isinstance(failed, m.RunFailed)
    assert failed.fault is Fault.RUN
    two.bench.end()
    assert kinds(await carry_out(rig, one.resume())) == [m.PhaseFinished]
    await one.assert_whole()


async def test_a_cancelled_scope_is_left_by_one_alone(rig: Rig, kind: str) -> None:
    one, two = await members(rig, kind, 2)
    hold = rig.orders.hold(two.bench, two.phase, 1)
    async with under_way(rig) as going:
        scope = await going.begin(one.start(starters=2))
        await going.begin(two.start(starters=2))
        await hold.reached()
        scope.cancel()
        await turns()
        hold.release()
    assert going.cancelled == {one.id}
    assert kinds([*going.events.values()]) == [m.PhaseFinished]
    one.bench.end()
    await two.assert_whole()


async def test_a_cancelled_scope_round_all_waits_for_the_step(rig: Rig, kind: str) -> None:
    both = await members(rig, kind, 2)
    hold = rig.orders.hold(both[0].bench, both[0].phase, 1)
    async with under_way(rig) as going:
        for member in both:
            await going.begin(member.start(starters=2))
        await hold.reached()
        going.tasks.cancel_scope.cancel()
        with anyio.CancelScope(shield=True):
            await turns()
            hold.release()
    assert not rig.orders.stepping
    assert going.events == {}
    assert len(rig.orders.taken) == 2
    for member in both:
        member.bench.end()


async def test_a_starter_whose_scope_is_cancelled_leaves_the_others_to_begin(rig: Rig) -> None:
    one, two = await members(rig, "text", 2)
    async with under_way(rig) as going:
        scope = await going.begin(one.start(starters=2))
        scope.cancel()
        await turns()
        assert going.cancelled == {one.id}
        one.bench.end()
        await going.begin(two.start(starters=2))
    assert kinds([*going.events.values()]) == [m.PhaseFinished]
    await two.assert_whole()


def transfers(rig: Rig) -> tuple[str, m.Stage, m.Load]:
    name = next(c.name for c in rig.executor.components if c.name.startswith("qwen_instruct"))
    return name, m.Stage(name), m.Load(name)


async def emptied(rig: Rig) -> tuple[str, m.Stage, m.Load]:
    """A component that is nowhere."""
    name, stage, load = transfers(rig)
    weights: Any = rig.executor._weights[name] if isinstance(rig, DeviceRig) else None
    if weights is not None and weights.tier == "resident":
        await rig.executor.execute(m.Evict(name))
    if weights is not None and weights.tier == "staged":
        await rig.executor.execute(m.Unstage(name))
    return name, stage, load


async def called_off(rig: Rig, command: m.Stage | m.Load, *requests: m.Abort) -> m.Event:
    """The command's event, where ``requests`` come while it is under way."""
    hold = rig.orders.hold_move(command.component)
    found: list[m.Event] = []

    async def execute() -> None:
        found.append(await rig.executor.execute(command))

    async with anyio.create_task_group() as tasks:
        tasks.start_soon(execute)
        await hold.reached()
        for request in requests:
            rig.executor.request(request)
        hold.release()
    return found[0]


async def test_a_transfer_is_called_off_and_can_be_repeated(rig: Rig) -> None:
    name, stage, load = await emptied(rig)
    assert await called_off(rig, stage, m.Abort(name)) == m.Aborted(name)
    assert await rig.executor.execute(stage) == m.StageSucceeded(name)
    assert await called_off(rig, load, m.Abort(name), m.Abort(name)) == m.Aborted(name)
    assert await rig.executor.execute(load) == m.LoadSucceeded(name)
    (member,) = await members(rig, "text", 1)
    assert kinds(await carry_out(rig, member.start())) == [m.PhaseFinished]
    await member.assert_whole()


async def test_calling_off_what_is_not_under_way_changes_nothing(rig: Rig) -> None:
    """Too early, too late, another's, nobody's."""
    name, stage, load = await emptied(rig)
    rig.executor.request(m.Abort("nobody"))
    rig.executor.request(m.Abort(name))
    assert await called_off(rig, stage, m.Abort("sdxl.vae")) == m.StageSucceeded(name)
    rig.executor.request(m.Abort(name))
    assert await rig.executor.execute(load) == m.LoadSucceeded(name)
    rig.executor.request(m.Abort(name))
    assert await rig.executor.execute(m.Evict(name)) == m.Evicted(name)
    assert await rig.executor.execute(load) == m.LoadSucceeded(name)
