"""Nobody is overtaken without end: the default policy's bound on waiting, checked at every choice.

Who has waited for ``wait_seconds_max`` is *overdue*. Let one such wait, needing nothing that has
failed. Then, until it is started,

1. a job is chosen only if it is overdue too and came before it, or no later than what takes to set
   up for it; or if it was begun before and there is no room for the oldest of these; or, if there is
   room, if it catches up with one of these, or with the other itself, to share a run;
2. nobody joins the run that goes on, but such an overdue one, or if the other can join as well;
3. and of those that can join an overdue one is first.

So from then on it waits for the run that goes on, which takes nobody in any more and ends or is
paused; for those begun by then; and for what came before it: finitely many jobs, each of which is
started at most once for each of its phases and pauses, for none but an older one is paused.
"""

from __future__ import annotations

from collections.abc import Sequence

from scheduler import messages as m
from scheduler.types import Demand, Sharing
from tests.scheduler.shell import Shell


class Fairness:
    def __init__(self, shell: Shell) -> None:
        self._shell = shell
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
            story = f"{job} joins a run while {other} is overdue"
            assert joins, story
            assert its is not None
            demands = [self._demand(name).phases[self._phase(name)] for name in (job, other)]
            smaller = demands[1].working_bytes <= demands[0].working_bytes
            assert its.units > mine.units or not smaller or not self._fits(other), story

    def _overdue(self, job: str) -> list[str]:
        """Those who wait for longer than anybody may, and need nothing that has failed."""
        shell, books = self._shell, self._shell.books
        longest = shell.settings.policy.wait_seconds_max
        found = [
            other
            for other in books.unsettled()
            if other != job
            and other not in books.running()
            and shell.now >= books.demands[other].arrival + longest
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
        overdue = shell.now >= mine + shell.settings.policy.wait_seconds_max
        return overdue and mine <= its + set_up

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
