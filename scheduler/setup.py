"""Components on their way: for the job whose turn it is, and ahead of time for later ones.

While a run lasts nothing goes that anyone who runs or waits still needs. What is brought in ahead
is called off when the job whose turn it is needs the link for something else.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator

from scheduler import messages as m
from scheduler.index import Index
from scheduler.job import Job, Standing
from scheduler.loading import Loading
from scheduler.residency import Residency
from scheduler.strategy import Eviction, Shelf, Want, bring_in, ready
from scheduler.types import Tier


class SetUp:
    def __init__(
        self,
        index: Index,
        loading: Loading,
        eviction: Eviction,
        say: Callable[[m.Command], None],
    ) -> None:
        self._index = index
        self._loading = loading
        self._eviction = eviction
        self._say = say

    def bring_in(self, job: Job, *, clear: bool) -> bool:
        """Go on with bringing a job's next phase in; true if it may be started."""
        index = self._index
        want = Want(
            job.components[job.phase],
            0 if index.runs else job.current.working_bytes + index.owed_bytes,
            clear and not index.runs,
        )
        shelf = self._shelf()
        if not index.runs and ready(want, shelf):
            return True
        moves = bring_in(want, shelf)
        self._issue(moves, job)
        if moves or any(index.residencies[name].in_flight for name in want.components):
            self._call_off(want)
        return False

    def ahead(self, jobs: Iterable[str]) -> None:
        """Bring in one component for a phase to come of one of these jobs, but those that have left
        since they were named."""
        if self._loading.transfers:
            return
        present = self._index.jobs
        for job in (present[name] for name in jobs if name in present):
            runs = job.standing is Standing.RUNNING
            if self._fetch(job, job.phase + 1 if runs else job.phase):
                return

    def _fetch(self, job: Job, phase: int) -> bool:
        """Issue the moves for one missing component of a phase, if there is slack for it."""
        if phase >= len(job.components):
            return False
        residencies = self._index.residencies
        for name in job.components[phase]:
            residency = residencies[name]
            if residency.tier not in (Tier.ABSENT, Tier.STAGED):
                continue
            if residency.size <= self._slack():
                self._issue(bring_in(Want((name,), 0), self._shelf()), job, ahead=True)
                return True
        return False

    def _slack(self) -> int:
        """Bytes of the device that nobody present needs, once what runs has gone on to its next
        phase."""
        index = self._index
        spare = sum(r.size for r in self._spare())
        growth = 0
        for run in index.runs.values():
            job = run.job
            if not job.last_phase:
                following = job.demand.phases[job.phase + 1]
                growth = max(growth, following.working_bytes - job.current.working_bytes)
        return index.ledger.device.free + spare - growth

    def _spare(self) -> Iterator[Residency]:
        index = self._index
        return (
            r
            for r in index.residencies.values()
            if r.tier is Tier.RESIDENT and not index.wanted(r.name)
        )

    def _shelf(self) -> Shelf:
        index = self._index
        kept = [name for name in index.sizes if index.wanted(name)] if index.runs else []
        return Shelf(
            residencies=index.residencies,
            device_free=index.ledger.device.free,
            host_free=index.ledger.host.free,
            kept=kept,
            waiters=index.queue.needed,
            load_seconds=index.load_seconds,
            reload_seconds=index.reload_seconds,
            now=index.now,
            eviction=self._eviction,
        )

    def _issue(self, moves: list[m.Move], job: Job, *, ahead: bool = False) -> None:
        for move in moves:
            self._loading.issue(move, owner=job.id, ahead=ahead)
            self._say(move)

    def _call_off(self, want: Want) -> None:
        for residency in self._loading.transfers:
            if residency.name in want.components:
                self._index.wanted_now(residency)
            elif residency.ahead and not residency.aborting:
                residency.aborting = True
                self._say(m.Abort(residency.name))
