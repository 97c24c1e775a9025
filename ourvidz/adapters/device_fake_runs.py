"""The runs of the device that only pretends: the real one's contract, in the event loop.

A run has no task of its own. The first of its members takes the steps for all of them; when it
leaves, the next one does.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass, field

import anyio

from ourvidz.adapters.starters import Starters
from ourvidz.ports import Part, RunNotice, RunSink
from scheduler import messages as m
from scheduler.types import Fault, Lease, Phase

STATE_BYTES = 1
PLANTED = "planted"
Pace = Callable[[Part, Phase, int, anyio.Event], Awaitable[Fault | None]]


@dataclass(slots=True)
class FakePart:
    """One part that may be run: the steps done in each phase, those that another process has
    ``done`` of its first one, and how many units of work are in the step that it takes at
    present."""

    part: Part
    phases: tuple[Phase, ...]
    sink: RunSink
    done: int = 0
    steps: dict[int, int] = field(default_factory=dict)
    units: int = 0


@dataclass(slots=True)
class FakeControl:
    """What one lease was asked; it may be asked before its run has begun."""

    cancel: anyio.Event = field(default_factory=anyio.Event)
    pause: bool = False


@dataclass(eq=False, slots=True)
class FakeMember:
    """One lease in a run. ``woken`` when it has ended, or has to take the steps; one with a
    ``fault`` fails before its first step."""

    of: FakePart
    lease: Lease
    control: FakeControl
    fault: Fault | None = None
    event: m.Event | None = None
    woken: anyio.Event = field(default_factory=anyio.Event)

    @property
    def phase(self) -> Phase:
        return self.of.phases[self.lease.phase]

    @property
    def step(self) -> int:
        """The steps done."""
        return self.of.steps.get(self.lease.phase, 0)

    def goes_on(self) -> bool:
        """Whether it takes the next step; else it has ended."""
        if self.fault is not None:
            self.end(m.RunFailed(self.lease, self.fault, PLANTED))
        elif self.control.cancel.is_set():
            self.end(m.RunCancelled(self.lease))
        elif self.step == self.phase.steps:
            self.end(m.PhaseFinished(self.lease, STATE_BYTES))
        elif self.control.pause:
            self.end(m.Paused(self.lease, self.step, STATE_BYTES))
        return self.event is None

    def end(self, event: m.Event) -> None:
        self.event = event
        self.woken.set()


class FakeRuns:
    """``pace`` says when a step may end; ``yields`` what comes out of it."""

    def __init__(
        self, pace: Pace, yields: Callable[[Part, Phase, int], Sequence[RunNotice]]
    ) -> None:
        self._pace = pace
        self._yields = yields
        self._starters: Starters[FakeMember] = Starters()
        self._runs: dict[int, list[FakeMember]] = {}

    async def take_part(self, member: FakeMember, command: m.Start | m.Resume) -> m.Event:
        """The member's terminal event. Raises what ``pace`` raises where it runs alone."""
        self._begin(self._starters.add(command, member), command.run)
        try:
            await member.woken.wait()
            while member.event is None:
                await self._step(list(self._runs[command.run]))
        finally:
            self._leave(member, command.run)
        return member.event

    def _begin(self, starters: Sequence[FakeMember], run: int) -> None:
        # One whose scope was cancelled while it waited for the others has ended.
        begin = [member for member in starters if member.event is None]
        if begin:
            members = self._runs.setdefault(run, [])
            members += begin
            members[0].woken.set()

    def _leave(self, member: FakeMember, run: int) -> None:
        if member.event is None:
            member.end(m.RunCancelled(member.lease))
        members = self._runs.get(run, [])
        if member not in members:
            return
        members.remove(member)
        if members:
            members[0].woken.set()
        else:
            del self._runs[run]

    async def _step(self, members: Sequence[FakeMember]) -> None:
        staying = [member for member in members if member.goes_on()]
        if not staying:
            return
        shares = [member.phase.sharing for member in staying]
        for member in staying:
            member.of.units = sum(1 if share is None else share.units for share in shares)
        faults = await self._faults(staying)
        for member in staying:
            if member.control.cancel.is_set():
                member.end(m.RunCancelled(member.lease))
            elif faults:
                member.end(m.RunFailed(member.lease, faults[0], PLANTED))
            else:
                self._take(member)

    async def _faults(self, members: Sequence[FakeMember]) -> list[Fault]:
        """Why the step fails all who take it, if it does, once everyone's pace allows its end."""
        if len(members) == 1:
            fault = await self._paced(members[0])
            return [] if fault is None else [fault]
        found: list[Fault] = []

        async def pace(member: FakeMember) -> None:
            try:
                fault = await self._paced(member)
            except Exception:  # noqa: BLE001 - planted by a test, as a library's own
                fault = Fault.RUN
            if fault is not None and not member.control.cancel.is_set():
                found.append(fault if fault is Fault.OUT_OF_MEMORY else Fault.SHARED)

        async with anyio.create_task_group() as tasks:
            for member in members:
                tasks.start_soon(pace, member)
        return sorted(found, key=lambda fault: fault is not Fault.OUT_OF_MEMORY)

    async def _paced(self, member: FakeMember) -> Fault | None:
        return await self._pace(member.of.part, member.phase, member.step, member.control.cancel)

    def _take(self, member: FakeMember) -> None:
        sink, step = member.of.sink, member.step
        for notice in self._yields(member.of.part, member.phase, step):
            sink(notice)
        member.of.steps[member.lease.phase] = step + 1
        sink(m.StepReached(member.lease, step + 1))
