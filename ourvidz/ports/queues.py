"""Where jobs come from: durable queues with leases."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from enum import Enum
from typing import Any, Final, Literal, Protocol

from ourvidz.errors import OurVidzError

# The end of a queue at which its elements are taken.
PopSide = Literal["left", "right"]


@dataclass(frozen=True, slots=True)
class Claimed:
    """One element of a queue, held under a lease. ``raw`` is the element's bytes, untouched."""

    queue: str
    claim_id: str
    raw: bytes
    attempts: int


# Of a dead letter's element.
LETTER_BYTES_SHOWN: Final = 4096


@dataclass(frozen=True, slots=True)
class DeadLetter:
    """An element that no worker is to take any more: its ``beginning``, its size, why, and since
    when in Unix seconds."""

    queue: str
    beginning: bytes
    size_bytes: int
    reason: str
    at: float


class Standing(Enum):
    """What other workers have to do with a job. ``FREE``: nothing that is known. ``HELD``: one
    holds another element of it under a lease. ``ENDED``: one is through with it. ``OTHER_BODY``:
    one holds or has ended a job with the same id and another body."""

    FREE = "free"
    HELD = "held"
    ENDED = "ended"
    OTHER_BODY = "other body"


class QueueFull(Exception):
    """The queue takes no more for now."""


class QueueError(OurVidzError):
    """The queues' server did not do what it was asked."""


class QueueUnavailable(QueueError):
    """The queues' server does not answer for now, or asks to be left alone for a while."""

    retryable = True


class QueueRefused(QueueError):
    """The queues' server refuses what it is asked, and will until somebody puts that right."""


class JobSource(Protocol):
    """Durable queues with leases. A claim made twice with one ``claim_id`` returns one element.

    Raises ``KeyError`` for a queue that is not configured, ``QueueError`` where a server is to
    blame. After an error the call may be repeated; only a push may then have happened twice.
    """

    async def recover(self) -> int:
        """At start: let go what an earlier process of this worker held; returns how many."""

    async def push(self, queue: str, raw: bytes) -> None:
        """Append at the right, as the producers do. Raises ``QueueFull``."""

    async def claim(self, queue: str, claim_id: str, lease_seconds: float) -> Claimed | None:
        """Move one element under a lease, or ``None`` if the queue is empty."""

    async def mark(self, claim_id: str | None, job: str, digest: str) -> Standing:
        """Say which job a claim holds, and with which body. If it is ``FREE`` it is this claim's
        from here on, and ended once the claim is acknowledged or dead-lettered, or at once where no
        claim is named; the claims of one worker are never in each other's way. Else nothing has
        changed, and the element may be let go of: the job's own is safe. Forgotten after a day;
        then an element may be run again, to the same effect."""

    async def wait(self, queue: str, seconds: float) -> bool:
        """Return when the queue may hold something, at the latest after ``seconds``; false if it
        was looked at meanwhile and held nothing."""

    async def renew(self, claim_ids: Sequence[str], lease_seconds: float) -> frozenset[str]:
        """Renew leases; returns the claims that are no longer ours."""

    async def acknowledge(self, claim_id: str) -> None:
        """Done with it: the element is gone for good. Unknown claims are ignored."""

    async def hand_back(self, claim_id: str) -> None:
        """Return the element to the head of its queue, the side that is taken from; an attempt that
        was counted under this claim is taken back. Unknown claims are ignored."""

    async def count_attempt(self, claim_id: str) -> int:
        """A run is starting: count it and return the attempts so far; 0 for an unknown claim."""

    async def dead_letter(self, claim_id: str, reason: str) -> None:
        """Move the element to the dead-letter list with its reason. Unknown claims are ignored."""

    async def dead_letters(self, limit: int) -> Sequence[DeadLetter]:
        """Of every queue, the newest first."""

    async def reap(self) -> int:
        """Put elements whose lease has expired back at the head, with the attempts counted so far;
        returns how many."""

    def snapshot(self) -> Mapping[str, Any]:
        """Which kind of queues, how they announce elements (``wake``), and the commands sent to
        their server in the last minute (``commands_per_minute``); reads memory only."""
