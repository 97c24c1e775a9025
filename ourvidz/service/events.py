"""What happened to a job, as its followers see it: numbered events, replayable for a while."""

from __future__ import annotations

from collections import OrderedDict, deque
from collections.abc import AsyncGenerator, Mapping
from dataclasses import dataclass
from itertools import islice
from typing import Any
from uuid import UUID

from ourvidz.service.signal import Signal

# A follower that was away longer than this many events gets the job's present state instead.
_EVENTS_MAX = 4096
# Ended jobs whose events may still be asked for, and how many events they may hold together: some
# 400 bytes each.
_ENDED_JOBS_MAX = 256
_ENDED_EVENTS_MAX = 65_536


@dataclass(frozen=True, slots=True)
class JobEvent:
    """``name`` is one of status, progress, delta, asset, end; ``id`` grows by one a job."""

    id: int
    name: str
    data: Mapping[str, Any]


class EventLog:
    """One job's events."""

    def __init__(self) -> None:
        self._events: deque[JobEvent] = deque(maxlen=_EVENTS_MAX)
        self._next = 1
        self._arrived = Signal()
        self.ended = False

    def publish(self, name: str, data: Mapping[str, Any]) -> None:
        self._events.append(JobEvent(self._next, name, data))
        self._next += 1
        self.ended = self.ended or name == "end"
        self._arrived.notify()

    @property
    def last_id(self) -> int:
        """The newest event's id; 0 before the first."""
        return self._next - 1

    def covers(self, last_id: int) -> bool:
        """Whether everything after ``last_id`` is still here."""
        oldest = self._events[0].id if self._events else self._next
        return oldest - 1 <= last_id < self._next

    def __len__(self) -> int:
        return len(self._events)

    async def follow(self, last_id: int) -> AsyncGenerator[JobEvent, None]:
        """Events after ``last_id``, as they come, up to and including ``end``.

        Whoever reads too slowly misses the oldest: their ids leave a gap.
        """
        while True:
            arrival = self._arrived.ticket
            missed = self._after(last_id)
            for event in missed:
                last_id = event.id
                yield event
            # While the follower took these, more may have come, and the end with them.
            if not missed:
                if self.ended:
                    return
                await arrival.wait()

    def _after(self, last_id: int) -> list[JobEvent]:
        missing = max(0, self._next - 1 - last_id)
        return list(islice(reversed(self._events), missing))[::-1]


class Events:
    """The logs of present jobs and of the last ended ones."""

    def __init__(self) -> None:
        self._logs: OrderedDict[UUID, EventLog] = OrderedDict()

    def open(self, job_id: UUID) -> EventLog:
        """The job's log, a new one if need be."""
        log = self._logs.setdefault(job_id, EventLog())
        self._logs.move_to_end(job_id)
        self._forget_old()
        return log

    def get(self, job_id: UUID) -> EventLog | None:
        return self._logs.get(job_id)

    def _forget_old(self) -> None:
        ended = [(job, len(log)) for job, log in self._logs.items() if log.ended]
        jobs, events = len(ended), sum(size for _, size in ended)
        for job, size in ended:
            if jobs <= _ENDED_JOBS_MAX and events <= _ENDED_EVENTS_MAX:
                break
            del self._logs[job]
            jobs, events = jobs - 1, events - size
