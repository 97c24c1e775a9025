"""The scheduler: events in, commands out.

``handle`` is the only mutator. It takes the events of one moment, notes what they say, then decides
anew:

1. What time brings is noted: places that have run out, failures whose time is over. While a job
   is about to follow one that has finished, an idle device waits for it.
2. If no job is on its way to be started the policy is asked for one (the *target*); if that means
   to preempt, whoever runs is asked to pause. A target keeps its turn until it is started,
   cancelled or failed, or what runs leaves it no room; only jobs that arrive meanwhile may take
   it, so that two jobs cannot evict each other's components for ever.
3. The target's components are brought in; it is started when all is there, and with it those that
   share its run.
4. Without a target, jobs join the run that lasts if they may share it.
5. While a run lasts, components for later are brought in as far as there is slack.

Late, repeated or unknown terminal events change nothing but a count: a production server must
outlive them. What can only be a defect of the shell's own raises ``ProtocolError``.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import Any, get_args

from scheduler import messages as m
from scheduler import report
from scheduler.errors import ProtocolError
from scheduler.followers import Followers
from scheduler.index import Index
from scheduler.job import Job, Run, Standing, refusal
from scheduler.loading import Loading
from scheduler.plan import Estimate, estimates
from scheduler.policy import Policy
from scheduler.policy_priced import PricedWork
from scheduler.residency import Residency
from scheduler.running import Running
from scheduler.setup import SetUp
from scheduler.strategy import Eviction
from scheduler.turn import Turn
from scheduler.types import (
    Budget,
    Component,
    Fault,
    Lease,
    Links,
    Outcome,
    SchedulerSettings,
)


class Scheduler:
    """Decides what is resident and what runs. ``now`` is the caller's monotonic time in seconds;
    a time earlier than the last one counts as the last one."""

    def __init__(
        self,
        components: Sequence[Component],
        budget: Budget,
        links: Links,
        settings: SchedulerSettings,
        policy: Policy | None = None,
        *,
        staged: Sequence[str] = (),
        eviction: Eviction = Eviction.PRICED,
    ) -> None:
        """``staged``: the components whose host masters are there from the beginning."""
        self._settings = settings
        self._policy = policy or PricedWork(settings.policy)
        self._budget = budget
        self._commands: list[m.Command] = []
        self._index = Index(
            components, budget, links, self._policy.place, settings.policy.share_seconds, staged
        )
        self._loading = Loading(self._index, settings)
        set_up = SetUp(self._index, self._loading, eviction, self._say)
        self._running = Running(self._index, self._policy, self._say)
        self._turn = Turn(self._index, self._policy, set_up, self._running)
        self._followers = Followers(settings.follow_seconds)
        self._ignored = 0
        self._handlers: dict[type[m.Event], Callable[[Any], None]] = {
            m.JobArrived: self._job_arrived,
            m.CancelRequested: self._cancel_requested,
            m.TimeReached: self._time_reached,
            **dict.fromkeys(get_args(m.Moved), self._moved),
            m.StepReached: self._step_reached,
            m.PhaseFinished: self._phase_finished,
            m.Paused: self._paused,
            m.RunCancelled: self._run_cancelled,
            m.RunFailed: self._run_failed,
        }

    def handle(self, events: m.Event | Sequence[m.Event], now: float) -> list[m.Command]:
        """Take one event in, or those of one moment: all are noted before anything is decided.
        Returns the commands to carry out, in order.

        Raises ``ProtocolError`` for a job that is present already and ``BadDecision`` if the policy
        chose what cannot be done.
        """
        self._commands.clear()
        self._index.advance(now)  # 1
        for event in events if isinstance(events, Sequence) else (events,):
            self._handlers[type(event)](event)
        self._advance()
        return self._commands.copy()

    def deadline(self) -> float | None:
        """When a ``TimeReached`` is due: a failed component may be tried again, or the policy may
        decide otherwise."""
        times = [self._loading.retry_at, self._followers.until]
        if self._index.runs:
            due = self._index.queue.next_due
            times += [due if due < math.inf else None]
            times += [self._policy.wake(self._index, self._index.now)]
        return min((at for at in times if at is not None), default=None)

    def credit(self) -> int:
        """How many more jobs may arrive. Arrivals beyond it are not refused."""
        return max(0, self._settings.waiting_jobs_max - len(self._index.jobs))

    @property
    def target(self) -> str | None:
        """The job that is on its way to be started."""
        return None if self._turn.job is None else self._turn.job.id

    def plan(self, now: float) -> list[Estimate]:
        """When each job is expected to start and to finish, by the present order."""
        return estimates(self._index, self._order(), max(self._index.now, now))

    def snapshot(self) -> dict[str, Any]:
        """Everything, as JSON values, as of the last event."""
        return {
            **report.snapshot(self._index, self.plan(self._index.now)),
            "target": self.target,
            "ignored_events": self._ignored,
        }

    def check(self) -> None:
        """Raises ``InvariantBroken`` with the story if the books and the world are at odds."""
        report.check(self._index, self._turn.job, repr(self))

    def __repr__(self) -> str:
        return report.describe(self._index, self._turn.job)

    def _order(self) -> list[Job]:
        """The waiting jobs in policy order, the target first."""
        order = [self._index.jobs[j.id] for j in self._policy.order(self._index, self._index.now)]
        target = self._turn.job
        return order if target is None else [target, *(j for j in order if j is not target)]

    def _say(self, command: m.Command) -> None:
        self._commands.append(command)

    def _advance(self) -> None:
        index = self._index
        index.repay()
        self._loading.forget_failures(index.now)  # 1
        self._followers.advance(index.now)  # 1
        self._turn.forget_if_crowded_out()
        if self._turn.job is None and not index.runs:
            if self._followers.until is not None:
                return
            self._break_lock()
        self._turn.go_on()  # 2 to 5

    def _break_lock(self) -> None:
        """Where jobs carry more than they claimed, it may be that no begun job fits any more: then
        the one that needs most must go, or all would wait for ever."""
        index = self._index
        begun = index.begun
        while begun and not any(index.fits(job) for job in begun.values()):
            job = max(begun.values(), key=lambda j: (j.carried + j.run_bytes[j.phase], j.id))
            others = sum(j.carried for j in begun.values()) - job.carried
            detail = (
                f"phase {job.current.name} needs {job.run_bytes[job.phase]} bytes on the device "
                f"beside {job.carried} of its own state and {others} of other jobs', "
                f"the budget is {self._budget.device_bytes}"
            )
            self._settle(job, Outcome.FAILED, Fault.OUT_OF_MEMORY, detail)

    def _job_arrived(self, event: m.JobArrived) -> None:
        demand, index = event.demand, self._index
        if demand.job in index.jobs:
            raise ProtocolError(f"job {demand.job} arrived, but it is here already\n{self!r}")
        self._followers.arrived(demand)
        refused = refusal(demand, index.sizes, self._budget)
        if refused is not None:
            self._say(m.Settle(demand.job, Outcome.REFUSED, *refused))
            return
        job = Job(demand, index.sizes, self._settings.class_weights.get(demand.job_class, 1.0))
        index.enter(job)
        self._turn.arrived(job)
        self._settle_if_doomed(job)

    def _cancel_requested(self, event: m.CancelRequested) -> None:
        job = self._index.jobs.get(event.job)
        if job is None:
            self._ignored += 1
            return
        run = self._index.run_of(job)
        if run is None:
            self._settle(job, Outcome.CANCELLED)
        elif not run.cancelling:
            run.cancelling = True
            self._say(m.Cancel(run.lease))

    def _time_reached(self, event: m.TimeReached) -> None:
        """The time itself is what matters."""

    def _settle(
        self, job: Job, outcome: Outcome, fault: Fault | None = None, detail: str = ""
    ) -> None:
        if self._turn.job is job:
            self._turn.forget()
        self._index.remove(job)
        self._say(m.Settle(job.id, outcome, fault, detail))

    def _settle_if_doomed(self, job: Job) -> None:
        """Fail a job that needs what cannot be had."""
        for name in job.needs:
            failure = self._index.residencies[name].failure
            if failure is not None and failure.permanent:
                self._settle(job, Outcome.FAILED, Fault.LOAD, f"{name}: {failure.detail}")
                return

    def _moved(self, event: m.Moved) -> None:
        ended = self._loading.end(event, self._index.now)
        if ended is None:
            self._ignored += 1
        elif ended.fault is not None and ended.given_up:
            self._fail_those_waiting(ended.residency, ended.fault)
        elif ended.fault is Fault.OUT_OF_MEMORY:
            self._turn.clear()

    def _fail_those_waiting(self, residency: Residency, fault: Fault) -> None:
        """The target fails if it waited for this; if trying again is no use, so does every job that
        will need it."""
        name, failure = residency.name, residency.failure
        assert failure is not None
        target = self._turn.job
        if target is not None and name in target.components[target.phase]:
            detail = f"{name}: {failure.detail}"
            if fault is Fault.OUT_OF_MEMORY:
                detail = (
                    f"the device has no room for the {residency.size} bytes of {name} beside what "
                    f"cannot go, the budget is {self._budget.device_bytes} ({failure.detail})"
                )
            self._settle(target, Outcome.FAILED, fault, detail)
        for job in list(self._index.waiting()):
            self._settle_if_doomed(job)

    def _current(self, lease: Lease) -> Run | None:
        run = self._running.current(lease)
        self._ignored += run is None
        return run

    def _end(self, lease: Lease) -> Run | None:
        run = self._current(lease)
        if run is not None:
            self._index.end(run)
        return run

    def _step_reached(self, event: m.StepReached) -> None:
        run = self._current(event.lease)
        if run is not None and event.step > run.job.step:
            run.job.reach(event.step)
            run.since = self._index.now

    def _phase_finished(self, event: m.PhaseFinished) -> None:
        run = self._end(event.lease)
        if run is None:
            return
        job = run.job
        if job.last_phase:
            self._settle(job, Outcome.FINISHED)
            self._followers.expect(job.demand, self._index.now)
        elif run.cancelling:
            self._settle(job, Outcome.CANCELLED)
        else:
            job.next_phase()
            job.entry = event.state_bytes
            self._park(job, Standing.WAITING, event.state_bytes)

    def _paused(self, event: m.Paused) -> None:
        run = self._end(event.lease)
        if run is None:
            return
        if run.cancelling:
            self._settle(run.job, Outcome.CANCELLED)
        else:
            run.job.reach(event.step)
            self._park(run.job, Standing.PAUSED, event.state_bytes)

    def _run_cancelled(self, event: m.RunCancelled) -> None:
        run = self._end(event.lease)
        if run is not None:
            self._settle(run.job, Outcome.CANCELLED)

    def _run_failed(self, event: m.RunFailed) -> None:
        run = self._end(event.lease)
        if run is None:
            return
        job = run.job
        if run.cancelling:
            self._settle(job, Outcome.CANCELLED)
        elif self._may_try_again(job, event.fault):
            job.solo = True
            job.alone = event.fault is Fault.OUT_OF_MEMORY
            job.step = run.first_step
            self._park(job, Standing.PAUSED if run.resumed else Standing.WAITING, job.carried)
        else:
            self._settle(job, Outcome.FAILED, event.fault, self._told(job, event))

    def _told(self, job: Job, event: m.RunFailed) -> str:
        """Why the job fails; with the bytes where they did not suffice."""
        if event.fault is not Fault.OUT_OF_MEMORY:
            return event.detail
        phase = job.current
        weights = job.run_bytes[job.phase] - phase.working_bytes
        return (
            f"phase {phase.name} ran out of memory with the device to itself: {weights} bytes of "
            f"weights, {phase.working_bytes} to work in, the budget is "
            f"{self._budget.device_bytes} ({event.detail})"
        )

    def _may_try_again(self, job: Job, fault: Fault) -> bool:
        if fault is Fault.SHARED:
            return not job.solo
        return fault is Fault.OUT_OF_MEMORY and not job.alone

    def _park(self, job: Job, standing: Standing, state_bytes: int) -> None:
        """A run has ended, its job goes on later: its state stays on the device meanwhile."""
        self._index.carry(job, state_bytes)
        job.move(standing)
        self._index.park(job)
        self._settle_if_doomed(job)
