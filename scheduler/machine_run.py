"""A run in virtual time: the jobs that share it go from boundary to boundary together.

All steps between two changes of who takes part take equal time. Boundaries are counted from the
last change; at ``anchor`` the run had done ``done`` seconds of work since then, and it does
``rate`` seconds of work a second.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

from scheduler.types import Lease, Phase


@dataclass(slots=True)
class Member:
    """One job of a run. ``step``: what it had done at the last change; ``stop``: where it is to
    pause."""

    lease: Lease
    phase: Phase
    step: int
    stop: int | None = None

    @property
    def last(self) -> int:
        """The step with which it leaves."""
        steps = max(1, self.phase.steps)
        return steps if self.stop is None else min(steps, self.stop)


class SharedRun:
    """``seen`` is the last boundary since the change that was reported, ``told`` whether one of the
    whole run was."""

    def __init__(self, number: int, now: float, rate: float) -> None:
        self.number = number
        self.members: list[Member] = []
        self.seen = 0
        self.told = False
        self._joining: list[Member] = []
        self._join_at: int | None = None
        self._anchor = now
        self._rate = rate
        self._done = 0.0
        self._step_seconds = 0.0

    def begin(self, member: Member) -> None:
        """Take part from the beginning."""
        self.members.append(member)
        self._step_seconds = self._seconds_of_step()

    def join(self, member: Member, now: float) -> None:
        """Take part from the next boundary on."""
        self._joining.append(member)
        self._join_at = self.reached(now) + 1

    def pause(self, lease: Lease, now: float) -> None:
        """At the next boundary after now; one that has not come in yet pauses before it begins."""
        for member in self.members:
            if member.lease == lease:
                member.stop = member.step + self.reached(now) + 1
        for member in self._joining:
            if member.lease == lease:
                member.stop = member.step

    def go_on_at(self, rate: float, now: float) -> None:
        self._done += (now - self._anchor) * self._rate
        self._anchor, self._rate = now, rate

    @property
    def change(self) -> int:
        """The boundary at which somebody leaves or comes in."""
        leaves = min(member.last - member.step for member in self.members)
        return leaves if self._join_at is None else min(leaves, self._join_at)

    def time_of(self, boundary: int) -> float:
        """When this boundary is reached, at the present rate."""
        return self._anchor + (boundary * self._step_seconds - self._done) / self._rate

    def reached(self, now: float) -> int:
        """The last boundary that has been reached, before the one of the change."""
        last = max(0, self.change - 1)
        boundary = last
        if self._step_seconds > 0:
            work = self._done + (now - self._anchor) * self._rate
            boundary = min(last, math.floor(work / self._step_seconds))
        while boundary < last and self.time_of(boundary + 1) <= now:
            boundary += 1
        while boundary > 0 and self.time_of(boundary) > now:
            boundary -= 1
        return boundary

    def turn_over(self, now: float) -> list[Member]:
        """The boundary of the change has come: returns who leaves; the others go on."""
        passed = self.change
        for member in self.members:
            member.step += passed
        everyone = self.members + self._joining
        self._joining, self._join_at = [], None
        self.members = [member for member in everyone if member.step < member.last]
        self.seen, self._done, self._anchor = 0, 0.0, now
        if self.members:
            self._step_seconds = self._seconds_of_step()
        return [member for member in everyone if member.step >= member.last]

    def _seconds_of_step(self) -> float:
        steps = [m.phase.step_seconds for m in self.members]
        if len(steps) == 1:
            return steps[0]
        shared = [m.phase.sharing for m in self.members]
        units = sum(s.units for s in shared if s is not None)
        return max(
            seconds * s.factor(units)
            for seconds, s in zip(steps, shared, strict=True)
            if s is not None
        )
