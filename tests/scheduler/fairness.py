"""Nobody is overtaken without end: the default policy's bound on waiting, checked at every choice.

Who has waited for ``wait_seconds_max`` is *overdue*. Let one such wait, needing nothing that has
failed. Then, until it is started,

1. a job is chosen only if it is overdue too and came before it, or no later than what takes to set
   up for it; or if it was begun before and there is no room for the oldest of these; or, if there
   is room, if it catches up with one of these, or with the other itself, to share a run; or if the
   other could join the run that is paused for it, as soon as there is room;
2. nobody joins the run that goes on but overdue ones, and these only if the other could as well, or
   if they or others of its group came before it.

So from then on it waits for the run that goes on, which takes nobody in any more that is not
overdue, and ends or is paused; for those begun by then; and for what came before it.
"""

from __future__ import annotations

from collections.abc import Sequence

from scheduler import messages as m
from scheduler.types import Demand, Sharing
from tests.scheduler.shell import Shell


class Fairness:
    def __init__(self, shell: Shell) -> None:
        self._shell = shell
        self._longest = shell.settings.policy.wait_seconds_max
        self._target: str | None = None
        self._begun: list[str] = []
        self._fresh: list[str] = []

    def after(self, commands: Sequence[m.Command]) -> None:
        """An event was handled, and this came of it."""
        before, self._target = self._target, self._shell.scheduler.target
        started = [c.lease.job for c in commands if isinstance(c, m.Start | m.Resume)]
        self._fresh = [job for job in started if job not in self._begun]
        if self._target not in (None, before):
            self._check_choice(self._target)
        for command in commands:
            if isinstance(command, m.Start | m.Resume):
                self._started(command, before)
        self._begun += self._fresh

    def _started(self, command: m.Start | m.Resume, target: str | None) -> None:
        job = command.lease.job
        leads = command.run == command.lease.id
        if leads and job != target:
            self._check_choice(job)
        elif not leads and command.starters == 1:
            self._check_join(job)

    def _check_choice(self, job: str) -> None:
        overdue = self._overdue(job)
        for other in overdue:
            if self._came_before(job, other):
                continue
            first = [o for o in overdue if o == other or self._came_before(o, other)]
            room = self._fits(min(first, key=lambda o: (self._demand(o).arrival, o)))
            if room and any(self._catches_up(job, o) for o in first):
                continue
            if self._could_join(other):
                continue
            story = f"{job} is chosen while {other} is overdue"
            if job in self._begun:
                assert not room or not self._shell.honest, story
            else:
                assert self._nobody_can_go_on(), story

    def _check_join(self, job: str) -> None:
        mine = self._sharing(job)
        assert mine is not None
        for other in self._overdue(job):
            if self._came_before(job, other):
                continue
            its = self._sharing(other)
            joins = its is not None and its.key == mine.key
            behind = any(self._leads(o, other) for o in self._overdue(other))
            late = self._shell.now >= self._demand(job).arrival + self._longest
            story = f"{job} joins a run while {other} is overdue"
            assert late, story
            assert joins or behind, story

    def _overdue(self, job: str) -> list[str]:
        """Those who wait for longer than anybody may, and need nothing that has failed."""
        shell, books = self._shell, self._shell.books
        found = [
            other
            for other in books.unsettled()
            if other != job
            and other not in books.running()
            and shell.now >= books.demands[other].arrival + self._longest
        ]
        return [other for other in found if not self._blocked(other)]

    def _blocked(self, job: str) -> bool:
        residencies = self._shell.scheduler._index.residencies
        needs = self._shell.books.needs(job)
        return any(residencies[name].failure is not None for name in needs)

    def _came_before(self, job: str, other: str) -> bool:
        shell, books = self._shell, self._shell.books
        mine, its = self._demand(job).arrival, self._demand(other).arrival
        links = shell.links
        sizes = [books.sizes[name] for name in dict.fromkeys(books.needs(other))]
        set_up = sum(links.stage_seconds(size) + links.load_seconds(size) for size in sizes)
        overdue = shell.now >= mine + self._longest
        return overdue and mine <= its + set_up

    def _could_join(self, job: str) -> bool:
        """Those that run share its key."""
        its, members = self._sharing(job), self._shell.books.members.values()
        keys = [self._sharing(member.lease.job) for member in members]
        return its is not None and its.mid_phase and any(s and s.key == its.key for s in keys)

    def _leads(self, first: str, second: str) -> bool:
        """They stand in the same group, the first before the second."""
        index = self._shell.scheduler._index
        mine, its = index.jobs[first], index.jobs[second]
        same = (mine.needs, mine.weight, mine.demand.kind) == (
            its.needs,
            its.weight,
            its.demand.kind,
        )
        return same and (mine.demand.arrival, first) < (its.demand.arrival, second)

    def _catches_up(self, job: str, other: str) -> bool:
        phases, number = self._demand(job).phases, self._phase(job) + 1
        its = self._sharing(other)
        if its is None or number >= len(phases):
            return False
        following = phases[number].sharing
        return following is not None and following.key == its.key

    def _nobody_can_go_on(self) -> bool:
        books = self._shell.books
        rest = [job for job in self._begun if job not in books.settled]
        return all(self._blocked(job) for job in rest) or not self._shell.honest

    def _fits(self, job: str) -> bool:
        """Whether it would have been admitted before the last commands."""
        index = self._shell.scheduler._index
        mine, rest = index.jobs[job], [index.begun[j] for j in index.begun if j not in self._fresh]
        if mine.begun or not rest:
            return mine.begun is False or index.fits(mine)
        claims = [each.claimed for each in (mine, *rest)]
        spread = max(claim.peak - claim.held for claim in claims)
        return sum(claim.held for claim in claims) + spread <= index.ledger.device.budget

    def _demand(self, job: str) -> Demand:
        return self._shell.books.demands[job]

    def _phase(self, job: str) -> int:
        return self._shell.books.next_phase[job]

    def _sharing(self, job: str) -> Sharing | None:
        if job in self._shell.books.solo:
            return None
        return self._demand(job).phases[self._phase(job)].sharing
