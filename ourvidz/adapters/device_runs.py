"""The device's runs: a loop of steps in one worker thread, which several leases may share.

Commands that name the same run share it. Those with several starters wait for one another; one with
a single starter joins the run if it still goes on. Who takes part is decided at step boundaries:
members come, and leave when their phase is done or they are asked to, while the others go on.
"""

from __future__ import annotations

import threading
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor

import structlog

from ourvidz.adapters.device_errors import describe_and_release, device_failure
from ourvidz.adapters.device_member import Member
from ourvidz.adapters.starters import Starters
from pipelines.base import Output, RunCancelled
from pipelines.faults import is_out_of_memory
from scheduler import messages as m
from scheduler.types import Fault

log = structlog.get_logger()


class Runs:
    """The runs by number. Used on the event loop only."""

    def __init__(self) -> None:
        self._thread = ThreadPoolExecutor(1, thread_name_prefix="run")
        self._starters: Starters[Member] = Starters()
        self._runs: dict[int, _Run] = {}

    async def take_part(self, member: Member, command: m.Start | m.Resume) -> m.Event:
        """The member's terminal event."""
        starters = self._starters.add(command, member)
        if starters:
            self._begin(starters, command.run)
        try:
            return await member.end()
        finally:
            self._runs = {number: run for number, run in self._runs.items() if not run.over}

    def _begin(self, members: list[Member], number: int) -> None:
        for member in members:
            member.running = True
        run = self._runs.get(number)
        if run is None or not run.enter(members):
            run = self._runs[number] = _Run(members)
            self._thread.submit(run.work)


class _Run:
    """One run. ``over`` once nobody is in it and nobody can enter any more."""

    def __init__(self, members: list[Member]) -> None:
        self.over = False
        self._pipeline = members[0].runnable.pipeline
        self._entering = members
        self._lock = threading.Lock()

    def enter(self, members: Sequence[Member]) -> bool:
        """Join at the next step boundary; false if the run is over."""
        with self._lock:
            if not self.over:
                self._entering += members
            return not self.over

    def work(self) -> None:
        """The worker thread's part."""
        members = self._boundary([])
        while members:
            self._step(members)
            members = self._boundary(members)

    def _boundary(self, members: Sequence[Member]) -> list[Member]:
        """Who takes the next step; those who have ended are told."""
        staying = [member for member in members if _stays(member)]
        ended = [member for member in members if member not in staying]
        while True:
            with self._lock:
                entering, self._entering = self._entering, []
                self.over = not (staying or entering)
            # After ``over`` is set: who hears that the run has ended may start it anew.
            for member in ended:
                member.tell()
            if not entering:
                return staying
            staying += [member for member in entering if _stays(member, new=True)]
            ended = [member for member in entering if member not in staying]

    def _step(self, members: Sequence[Member]) -> None:
        try:
            steps = [member.state.step + 1 for member in members]
            for member, step, outputs in zip(members, steps, self._taken(members), strict=True):
                member.took_step(step, outputs)
        except Exception as error:  # noqa: BLE001 - a library's own, logged there
            _fail(members, error)

    def _taken(self, members: Sequence[Member]) -> Sequence[tuple[Output, ...] | None]:
        """A step's outputs for each, ``None`` for those whose token was cancelled."""
        states = [member.state for member in members]
        tokens = [member.control.token for member in members]
        if len(members) > 1:
            return self._pipeline.step_together(states, tokens)
        try:
            return [self._pipeline.step(states[0], tokens[0])]
        except RunCancelled:
            return [None]


def _stays(member: Member, *, new: bool = False) -> bool:
    try:
        if new:
            member.start()
        return member.goes_on()
    except Exception as error:  # noqa: BLE001 - as in a step
        _fail([member], error)
        return False


def _fail(members: Sequence[Member], error: Exception) -> None:
    """An error fails all who took the step: nobody knows which of them is to blame. One that cost
    the device is nobody's: it ends the service."""
    fault = Fault.SHARED if len(members) > 1 else Fault.RUN
    if is_out_of_memory(error):
        fault = Fault.OUT_OF_MEMORY
    else:
        jobs, phase = [member.lease.job for member in members], members[0].lease.phase
        log.error("run_failed", jobs=jobs, phase=phase, exc_info=error)
    lost = device_failure(error)
    detail = describe_and_release(error)
    for member in members:
        if lost is not None:
            member.lose(lost)
        else:
            member.fail(fault, detail)
