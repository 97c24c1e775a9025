"""A job's states.

Theory of operation. A job is QUEUED when its payload lies in a queue, CLAIMED once an intake holds
it under a lease, WAITING once the scheduler knows its demand, RUNNING from its first phase's start,
RENDERED when every file or text of its result is in the spool and the journal (at once, where
earlier runs have left all of it), and COMPLETED when the store holds them. CANCELLED can be reached
from every state before RENDERED, FAILED from CLAIMED on, for nobody judges a job in its queue; a
RENDERED job is past cancelling, and fails where the store takes none of its files. CLAIMED, WAITING
and RUNNING go back to QUEUED when a drain hands the job back, a restart finds its lease or the
lease is lost; RENDERED does if a restart finds that its files are gone or the lease is lost. So
does CANCELLED, where another worker turns out to have the job before anybody was told of the
cancel. The terminal callback follows the terminal state and is the outbox's business, not the
job's.

=========  =============================================
state      may become
=========  =============================================
queued     claimed, cancelled
claimed    waiting, rendered, queued, failed, cancelled
waiting    running, queued, failed, cancelled
running    rendered, queued, failed, cancelled
rendered   completed, failed, queued
completed
failed
cancelled  queued
=========  =============================================
"""

from __future__ import annotations

from enum import StrEnum


class JobState(StrEnum):
    QUEUED = "queued"
    CLAIMED = "claimed"
    WAITING = "waiting"
    RUNNING = "running"
    RENDERED = "rendered"
    COMPLETED = "completed"
    FAILED = "failed"
    CANCELLED = "cancelled"

    @property
    def terminal(self) -> bool:
        return self in _TERMINAL

    @property
    def status(self) -> str:
        """The word the wire uses: queued, processing, completed, failed or cancelled."""
        return _STATUS[self]


_S = JobState
_TERMINAL = frozenset({_S.COMPLETED, _S.FAILED, _S.CANCELLED})
_STATUS = {
    _S.QUEUED: "queued",
    _S.CLAIMED: "queued",
    _S.WAITING: "queued",
    _S.RUNNING: "processing",
    _S.RENDERED: "processing",
    _S.COMPLETED: "completed",
    _S.FAILED: "failed",
    _S.CANCELLED: "cancelled",
}
TRANSITIONS: dict[JobState, frozenset[JobState]] = {
    _S.QUEUED: frozenset({_S.CLAIMED, _S.CANCELLED}),
    _S.CLAIMED: frozenset({_S.WAITING, _S.RENDERED, _S.QUEUED, _S.FAILED, _S.CANCELLED}),
    _S.WAITING: frozenset({_S.RUNNING, _S.QUEUED, _S.FAILED, _S.CANCELLED}),
    _S.RUNNING: frozenset({_S.RENDERED, _S.QUEUED, _S.FAILED, _S.CANCELLED}),
    _S.RENDERED: frozenset({_S.COMPLETED, _S.FAILED, _S.QUEUED}),
    _S.COMPLETED: frozenset(),
    _S.FAILED: frozenset(),
    _S.CANCELLED: frozenset({_S.QUEUED}),
}


class IllegalTransition(RuntimeError):
    """A job was moved in a way the table does not know; a defect of ours."""

    def __init__(self, job: object, old: JobState, new: JobState) -> None:
        allowed = ", ".join(sorted(s.value for s in TRANSITIONS[old])) or "nothing"
        super().__init__(f"job {job}: {old.value} -> {new.value}; {old.value} may become {allowed}")


def check_transition(job: object, old: JobState, new: JobState) -> None:
    """Raise ``IllegalTransition`` unless the table allows the move."""
    if new not in TRANSITIONS[old]:
        raise IllegalTransition(job, old, new)
