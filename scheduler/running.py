"""Who runs: jobs that start together, join, are asked to pause, and end one by one."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from itertools import islice

from scheduler import messages as m
from scheduler.index import Index
from scheduler.job import Job, Run, Standing
from scheduler.policy import Policy
from scheduler.types import Lease


class Running:
    """One run lives at a time; several jobs may share it, each with a lease of its own."""

    def __init__(self, index: Index, policy: Policy, say: Callable[[m.Command], None]) -> None:
        self._index = index
        self._policy = policy
        self._say = say
        self._leases = 0

    def start(self, job: Job) -> None:
        """Begin a job's next phase, and with it those who come along. Everything is in."""
        index = self._index
        number = self._leases + 1
        # Alone, the estimate has proved wrong: the run gets all there is.
        working = index.ledger.device.free if job.alone else job.current.working_bytes
        company = self._company(job)
        runs = [self._begin(job, number, working), *self._take(company, number)]
        for run in runs:
            self._say(_command(run, len(runs)))

    def join(self) -> None:
        """Let those in who may share the run that goes on."""
        runs = list(self._index.runs.values())
        leader = runs[0].job
        sharing = leader.sharing
        if sharing is None or not sharing.mid_phase:
            return
        if any(run.pausing for run in runs):
            return
        for run in self._take(self._company(leader), runs[0].number):
            self._say(_command(run, 1))

    def pause(self) -> None:
        """Ask whoever runs to stop at the next step."""
        for run in self._index.runs.values():
            if not run.pausing and not run.cancelling:
                run.pausing = True
                self._say(m.Pause(run.lease))

    def current(self, lease: Lease) -> Run | None:
        """The run of a lease that lives."""
        run = self._index.runs.get(lease.id)
        return run if run is not None and run.lease == lease else None

    def _company(self, job: Job) -> list[Job]:
        """Whom the policy names, as far as a run could take them."""
        index, sharing = self._index, job.sharing
        if sharing is None:
            return []
        named = self._policy.company(job, index, index.now)
        return [index.jobs[view.id] for view in islice(named, sharing.units_max)]

    def _take(self, company: Iterable[Job], number: int) -> list[Run]:
        """Begin those of the company for whom there is room beside who runs, in order."""
        index = self._index
        units = sum(run.job.sharing.units for run in index.runs.values() if run.job.sharing)
        taken = []
        for job in company:
            sharing, working = job.sharing, job.current.working_bytes
            if sharing is None or units + sharing.units > sharing.units_max:
                continue
            if working <= index.ledger.device.free and index.admits(job):
                units += sharing.units
                taken.append(self._begin(job, number, working))
        return taken

    def _begin(self, job: Job, number: int, working_bytes: int) -> Run:
        self._leases += 1
        lease = Lease(self._leases, job.id, job.phase)
        resumed = job.standing is Standing.PAUSED
        run = Run(lease, job, number, self._index.now, resumed, job.step)
        self._index.begin(run, working_bytes)
        return run


def _command(run: Run, starters: int) -> m.Start | m.Resume:
    return (m.Resume if run.resumed else m.Start)(run.lease, run.number, starters)
