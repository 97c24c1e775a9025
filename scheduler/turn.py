"""Whose turn it is: the job on its way to be started (the *target*), from its choice to its start.

A target keeps its turn until it is started, cancelled or failed, or what runs leaves it no room;
only jobs that arrive meanwhile may take it, so that two jobs cannot evict each other's components
for ever.
"""

from __future__ import annotations

from scheduler.errors import BadDecision
from scheduler.index import Index
from scheduler.job import Job, Standing
from scheduler.policy import Decision, Policy
from scheduler.running import Running
from scheduler.setup import SetUp


class Turn:
    def __init__(self, index: Index, policy: Policy, set_up: SetUp, running: Running) -> None:
        self._index = index
        self._policy = policy
        self._set_up = set_up
        self._running = running
        self._clear = False
        self._ahead: tuple[str, ...] = ()
        self._newcomers: list[Job] = []
        self.job: Job | None = None

    def arrived(self, job: Job) -> None:
        self._newcomers.append(job)

    def forget(self) -> None:
        """Nobody's turn: the target has left."""
        self.job = None

    def forget_if_crowded_out(self) -> None:
        """The run that the target was chosen to preempt may have left more state than was
        claimed."""
        if self.job is not None and not self._index.admits(self.job):
            self.job = None

    def clear(self) -> None:
        """A load ran out of memory: all else must go before the target's components come."""
        self._clear = True

    def go_on(self) -> None:
        """Decide anew and take the next step towards it; see ``scheduler.core``, 2 to 5."""
        newcomers, self._newcomers = self._newcomers, []
        index = self._index
        if self.job is None:
            self._take(self._policy.choose(index, index.now))
        elif newcomers and not self._policy.steadfast:
            self._reconsider(newcomers)
        if self.job is not None:
            self._bring_in(self.job)
        elif index.runs:
            self._running.join()
        if self.job is None and index.runs:
            self._set_up.ahead(self._ahead)

    def _take(self, decision: Decision) -> None:
        self._ahead = decision.ahead
        if decision.job is None or (self._index.runs and not decision.preempt):
            return
        job = self._index.jobs.get(decision.job)
        if job is None or job.standing is Standing.RUNNING or not self._index.admits(job):
            raise BadDecision(f"{decision}: it must wait and be admitted")
        self.job, self._clear = job, False
        self._running.pause()

    def _reconsider(self, newcomers: list[Job]) -> None:
        """A job that has just arrived may take the target's turn."""
        decision = self._policy.choose(self._index, self._index.now)
        job = self._index.jobs.get(decision.job) if decision.job is not None else None
        if job in newcomers:
            self._take(decision)

    def _bring_in(self, job: Job) -> None:
        if self._set_up.bring_in(job, clear=self._clear or job.alone):
            self.job = None
            self._running.start(job)
