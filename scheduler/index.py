"""All state of the scheduler but the choice at hand, with the sums that keep decisions cheap.

The core changes it through the methods below, each of which leaves it consistent; policies see it
as ``View``.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence

from scheduler.job import Claim, Job, Run, Standing
from scheduler.ledger import Account, Ledger
from scheduler.policy import Place
from scheduler.residency import Residency
from scheduler.shares import Shares
from scheduler.types import Budget, Component, Links, Tier
from scheduler.view import JobView
from scheduler.waiting import Group, Waiting


class Index:
    def __init__(
        self,
        components: Sequence[Component],
        budget: Budget,
        links: Links,
        place: Callable[[JobView, float], Place],
        share_seconds: float,
        staged: Sequence[str] = (),
    ) -> None:
        self.ledger = Ledger(budget)
        self.residencies: dict[str, Residency] = {}
        for component in components:
            if component.name in self.residencies:
                raise ValueError(f"component {component.name} is named twice")
            self.residencies[component.name] = Residency(component)
        for name in staged:
            residency = self.residencies[name]
            residency.tier, residency.master = Tier.STAGED, True
            self.ledger.host.reserve(("weights", name), residency.size)
        self.sizes: Mapping[str, int] = {c.name: c.weight_bytes for c in components}
        self.jobs: dict[str, Job] = {}
        self.runs: dict[int, Run] = {}
        self.begun: dict[str, Job] = {}
        self.queue = Waiting(self.sizes, place)
        self.now = -math.inf
        self._shares = Shares(share_seconds)
        self._users: dict[tuple[str, str], int] = {}
        self._links = links
        self._setup = {name: self._setup_of(r) for name, r in self.residencies.items()}
        self._setups: dict[tuple[str, ...], float] = {}
        self._claimed = Claim(0, 0)
        self._carried = 0

    def advance(self, now: float) -> None:
        """Time passes; it never goes back."""
        self.now = max(self.now, now)
        self._shares.advance(self.now, [run.job.demand.kind for run in self.runs.values()])
        self.queue.due(self.now)

    def enter(self, job: Job) -> None:
        """A job has arrived."""
        user = (job.demand.user, job.demand.kind)
        job.turn = self._users.get(user, 0)
        self._users[user] = job.turn + 1
        self.park(job)

    def park(self, job: Job) -> None:
        """Enter a job among those that wait: one that arrived, or whose run has ended."""
        self.jobs[job.id] = job
        job.claimed = job.claim()
        self.queue.add(job, self.now)
        self._shares.enter(job.demand.kind)
        if job.begun:
            self._sum_claims()

    def _unpark(self, job: Job) -> None:
        self.queue.remove(job)
        if not self.queue.of_kind(job.demand.kind):
            self._shares.leave(job.demand.kind)

    def begin(self, run: Run, working_bytes: int) -> None:
        """A waiting job runs from now on: its working bytes are taken."""
        job = run.job
        self._unpark(job)
        job.move(Standing.RUNNING)
        self.runs[run.lease.id] = run
        if not job.begun:
            job.begun = True
            self.begun[job.id] = job
            self.ledger.device.reserve(_state(job), 0)
        job.claimed = job.claim(pausing=True)
        self._sum_claims()
        self.ledger.device.reserve(_run(run), working_bytes)
        for name in job.components[job.phase]:
            self.residencies[name].use(self.now)

    def end(self, run: Run) -> None:
        """A run has ended: its working bytes are free. Its job is to be parked or removed next."""
        del self.runs[run.lease.id]
        self.ledger.device.release(_run(run))

    def carry(self, job: Job, size: int) -> None:
        """A begun job's state has this size now. What finds no room is owed, see ``repay``."""
        self.ledger.device.release(_state(job))
        held = min(size, self.ledger.device.free)
        self.ledger.device.reserve(_state(job), held)
        self._carried += size - job.carried
        job.carried, job.owed = size, size - held

    def repay(self) -> None:
        """Enter the state bytes that found no room when they were reported, as far as they fit."""
        for job in self.begun.values():
            if job.owed:
                size = min(job.owed, self.ledger.device.free)
                self.ledger.device.grow(_state(job), size)
                job.owed -= size

    @property
    def owed_bytes(self) -> int:
        return sum(job.owed for job in self.begun.values())

    def remove(self, job: Job) -> None:
        """The job is settled, or will be at once: nothing of it is left."""
        if job.standing is not Standing.RUNNING:
            self._unpark(job)
        job.move(Standing.SETTLED)
        del self.jobs[job.id]
        user = (job.demand.user, job.demand.kind)
        self._users[user] -= 1
        if not self._users[user]:
            del self._users[user]
        if job.begun:
            self.ledger.device.release(_state(job))
            del self.begun[job.id]
            self._carried -= job.carried
            self._sum_claims()

    def run_of(self, job: Job) -> Run | None:
        return next((run for run in self.runs.values() if run.job is job), None)

    def _sum_claims(self) -> None:
        """What all begun jobs may still ask together, those that run if they are paused."""
        held, spread = 0, 0
        for job in self.begun.values():
            held += job.claimed.held
            spread = max(spread, job.claimed.peak - job.claimed.held)
        self._claimed = Claim(held, held + spread)

    def move(
        self, residency: Residency, tier: Tier, owner: str = "", *, ahead: bool = False
    ) -> None:
        """Move a component and its bytes with it; ``ahead`` if it is brought in for later."""
        account: Account = ("weights", residency.name)
        device, host = residency.on_device, residency.master
        residency.move(tier, owner)
        for pool, before, after in (
            (self.ledger.device, device, residency.on_device),
            (self.ledger.host, host, residency.master),
        ):
            if after and not before:
                pool.reserve(account, residency.size)
            elif before and not after:
                pool.release(account)
        self._price(residency, ahead=ahead)

    def wanted_now(self, residency: Residency) -> None:
        """What was brought in for later is the next job's."""
        self._price(residency, ahead=False)

    def _price(self, residency: Residency, *, ahead: bool) -> None:
        residency.ahead = ahead
        self._setup[residency.name] = self._setup_of(residency)
        self._setups.clear()

    def wanted(self, component: str) -> bool:
        """A job that waits or runs needs it in a phase that is left to it."""
        return self.queue.needed(component) > 0 or any(
            component in run.job.needs for run in self.runs.values()
        )

    def load_seconds(self, residency: Residency) -> float:
        return self._links.load_seconds(residency.size)

    def reload_seconds(self, residency: Residency) -> float:
        """From disk to the device."""
        return self._links.stage_seconds(residency.size) + self.load_seconds(residency)

    def _setup_of(self, residency: Residency) -> float:
        """What is on its way for later counts until it is there, for it may be called off; and so
        a decision does not change before something happens."""
        tier, ahead = residency.tier, residency.ahead
        if tier is Tier.RESIDENT or (tier is Tier.LOADING and not ahead):
            return 0.0
        if tier is Tier.STAGING and ahead:
            return self.reload_seconds(residency)
        if residency.master and tier is not Tier.UNSTAGING:
            return self.load_seconds(residency)
        return self.reload_seconds(residency)

    @property
    def running(self) -> Sequence[Job]:
        return tuple(run.job for run in self.runs.values())

    @property
    def waiting_count(self) -> int:
        return len(self.queue)

    def waiting(self) -> Iterator[Job]:
        return self.queue.by_arrival()

    def groups(self) -> Iterator[Group]:
        return self.queue.groups()

    def sharers(self, job: JobView) -> Iterator[Job]:
        return self.queue.sharers(self.jobs[job.id])

    def coming_sharers(self, job: JobView) -> Iterator[Job]:
        return self.queue.coming_sharers(self.jobs[job.id])

    def unserved_since(self, kind: str) -> float | None:
        return self._shares.since(kind)

    def next_served(self) -> float:
        return self._shares.next_served(run.job.demand.kind for run in self.runs.values())

    @property
    def kinds(self) -> Collection[str]:
        return self._shares.kinds

    def resident(self, component: str) -> bool:
        return self.residencies[component].tier in (Tier.LOADING, Tier.RESIDENT)

    def setup_seconds(self, needs: tuple[str, ...]) -> float:
        found = self._setups.get(needs)
        if found is None:
            found = self._setups[needs] = sum(self._setup[name] for name in needs)
        return found

    def pausing(self, run: JobView) -> bool:
        found = self.run_of(self.jobs[run.id])
        assert found is not None, f"{run.id} does not run"
        return found.pausing

    def way_back_seconds(self, run: JobView, job: JobView) -> float:
        mine, other = self.jobs[run.id], self.jobs[job.id]
        used = mine.components[mine.phase]
        stays = sum(self.sizes[n] for n in used if n not in other.components[other.phase])
        if self._carried + stays + other.run_bytes[other.phase] <= self.ledger.device.budget:
            return 0.0
        return sum(self.load_seconds(self.residencies[name]) for name in used)

    def blocked(self, needs: Sequence[str]) -> bool:
        return any(self.residencies[name].failure is not None for name in needs)

    def admits(self, job: JobView) -> bool:
        mine = self.jobs[job.id]
        budget = self.ledger.device.budget
        claim, claimed = mine.claimed, self._claimed
        if mine.begun:
            if not self.runs:
                return self.fits(mine)
            return len(self.begun) == 1 or claimed.peak <= budget
        if not self.begun:
            return True
        spread = max(claimed.peak - claimed.held, claim.peak - claim.held)
        return claimed.held + claim.held + spread <= budget

    def fits(self, job: Job) -> bool:
        """Whether a begun job could run its next phase alone beside the state of all others. Where
        no job carries more than it claimed, it always can."""
        return self._carried + job.run_bytes[job.phase] <= self.ledger.device.budget


def _state(job: Job) -> Account:
    return ("state", job.id)


def _run(run: Run) -> Account:
    return ("run", str(run.lease.id))
