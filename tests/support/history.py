"""Whether the guarantees were kept, judged from outside alone.

A history is what producers pushed, what the storage saw and what the receiver of the callbacks saw.
``violations`` looks at nothing else: no journal and no queue of ours has a say in it. Times are
those of one clock, or any other numbers that put everything in one order.
"""

from __future__ import annotations

import hashlib
from collections import defaultdict
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from enum import StrEnum
from typing import Any

import orjson

from ourvidz.adapters.receiver import ReceivedCallback

TERMINAL = ("completed", "failed")
# What another run of the same job may say differently; another attempt of one delivery may not.
VOLATILE = ("generation_time", "timestamp")


class Kind(StrEnum):
    LOST = "lost"
    DUPLICATE_EFFECT = "duplicate effect"
    DIFFERENT_BYTES = "different bytes"
    NOT_STORED = "announced, not stored"
    AFTER_THE_END = "after the end"
    UNKNOWN_JOB = "unknown job"


@dataclass(frozen=True, slots=True)
class Push:
    """One element that a producer pushed. ``malformed`` where no job can be made of it: it is to be
    answered ``failed`` if it has an id, and not at all without one."""

    job_id: str | None
    malformed: bool = False


@dataclass(frozen=True, slots=True)
class Put:
    """One file that the storage took; ``at`` when it had every byte."""

    key: str
    sha256: str
    size_bytes: int
    at: float


@dataclass(frozen=True, slots=True)
class Call:
    """One callback as it came, and how it was answered. ``skipped``: the receiver said that the job
    is not wanted any more."""

    event_id: str
    raw: bytes
    at: float
    answered: int
    skipped: bool = False
    body: Mapping[str, Any] = field(init=False)

    def __post_init__(self) -> None:
        object.__setattr__(self, "body", orjson.loads(self.raw))

    @classmethod
    def of(cls, callback: ReceivedCallback) -> Call:
        return cls(
            callback.headers.get("webhook-id", ""),
            callback.raw,
            callback.at,
            callback.answered,
            callback.skipped,
        )

    @property
    def job_id(self) -> str:
        return str(self.body["job_id"])

    @property
    def status(self) -> str:
        return str(self.body["status"])

    @property
    def terminal(self) -> bool:
        return self.status in TERMINAL

    @property
    def accepted(self) -> bool:
        return 200 <= self.answered < 300

    @property
    def run(self) -> str:
        """Which run of the job reports its progress: its event ids are ``job.processing.run.n``."""
        return self.event_id.rpartition(".")[0]

    def effect(self) -> bytes:
        """What the callback does to whoever believes it."""
        metadata = {k: v for k, v in self.body["metadata"].items() if k not in VOLATILE}
        return orjson.dumps({**self.body, "metadata": metadata}, option=orjson.OPT_SORT_KEYS)


@dataclass(slots=True)
class History:
    """``rerun``: whether another worker may have run a job once more that was answered already; if
    not, a callback that is repeated is repeated byte by byte."""

    pushed: Sequence[Push]
    puts: Sequence[Put]
    calls: Sequence[Call]
    rerun: bool = False


@dataclass(frozen=True, slots=True)
class Violation:
    kind: Kind
    about: str
    what: str

    def __str__(self) -> str:
        return f"{self.kind.value}: {self.about}: {self.what}"


def violations(history: History) -> list[Violation]:
    """Everything that must not have happened, and what has not happened and must have."""
    calls: dict[str, list[Call]] = defaultdict(list)
    for call in sorted(history.calls, key=lambda call: call.at):
        calls[call.job_id].append(call)
    found = list(_different_bytes(history.puts))
    malformed = {push.job_id: push.malformed for push in history.pushed if push.job_id}
    found += [
        Violation(Kind.UNKNOWN_JOB, job, "nobody pushed it") for job in calls.keys() - malformed
    ]
    for job, refused in malformed.items():
        found += _answered(job, calls[job], refused=refused)
        found += _one_effect(job, calls[job], exact=not history.rerun)
        found += _nothing_after_the_end(job, calls[job])
        for call in calls[job]:
            found += _announced(call, history.puts)
    return found


def results(history: History) -> dict[str, Mapping[str, Any]]:
    """What came out, to be compared with another history of the same jobs: the digest of every key
    that was stored, and the effect of every job's terminal callback."""
    stored: dict[str, Any] = {put.key: put.sha256 for put in history.puts}
    effects = {call.job_id: _digest(call.effect()) for call in history.calls if call.terminal}
    return {"stored": stored, "effects": effects}


def _digest(data: bytes) -> str:
    return hashlib.sha256(data).hexdigest()


def _different_bytes(puts: Iterable[Put]) -> Iterator[Violation]:
    first: dict[str, Put] = {}
    for put in puts:
        if first.setdefault(put.key, put).sha256 != put.sha256:
            what = f"held {first[put.key].sha256[:12]}, then {put.sha256[:12]}"
            yield Violation(Kind.DIFFERENT_BYTES, put.key, what)


def _answered(job: str, calls: Sequence[Call], *, refused: bool) -> Iterator[Violation]:
    """A terminal callback that the receiver took, unless it has said that it wants none."""
    ends = {call.status for call in calls if call.terminal and call.accepted}
    unwanted = any(call.skipped for call in calls)
    if not ends and not unwanted:
        yield Violation(Kind.LOST, job, "no terminal callback was acknowledged")
    if refused and "completed" in ends:
        yield Violation(Kind.DUPLICATE_EFFECT, job, "is malformed, and was completed")


def _one_effect(job: str, calls: Sequence[Call], *, exact: bool) -> Iterator[Violation]:
    ends = [call for call in calls if call.terminal]
    statuses = sorted({call.status for call in ends})
    if len(statuses) > 1:
        yield Violation(Kind.DUPLICATE_EFFECT, job, f"ended {' and '.join(statuses)}")
    elif len({call.event_id for call in ends}) > 1:
        ids = ", ".join(sorted({call.event_id for call in ends}))
        yield Violation(Kind.DUPLICATE_EFFECT, job, f"was answered under several ids: {ids}")
    elif len({call.effect() for call in ends}) > 1:
        yield Violation(Kind.DUPLICATE_EFFECT, job, "the answer's repeat says something else")
    elif exact and len({call.raw for call in ends}) > 1:
        yield Violation(Kind.DIFFERENT_BYTES, job, "the answer's repeat has other bytes")


def _nothing_after_the_end(job: str, calls: Sequence[Call]) -> Iterator[Violation]:
    """But for the first report of a run that could not know: it is told so, and reports no more. A
    report that was refused had no effect, and its run was not told."""
    ended = False
    told: set[str] = set()
    for call in calls:
        if ended and not call.terminal:
            if call.run in told or (call.accepted and not call.skipped):
                yield Violation(Kind.AFTER_THE_END, job, f"{call.event_id} came after the end")
            if call.accepted:
                told.add(call.run)
        ended = ended or (call.terminal and call.accepted)


def _announced(call: Call, puts: Sequence[Put]) -> Iterator[Violation]:
    """What a completed callback names was in the storage before, as large as it says."""
    if call.status != "completed":
        return
    before = {put.key: put for put in puts if put.at <= call.at}
    for asset in call.body["assets"]:
        key, size = asset["url"], asset["metadata"]["file_size_bytes"]
        for name in filter(None, (key, asset.get("thumbnail_url"))):
            if name not in before:
                yield Violation(Kind.NOT_STORED, name, f"before {call.event_id} came")
        if key in before and before[key].size_bytes != size:
            what = f"has {before[key].size_bytes} bytes, {size} were announced"
            yield Violation(Kind.NOT_STORED, key, what)
    if not call.body["assets"] and not call.body["metadata"].get("text"):
        yield Violation(Kind.LOST, call.job_id, "completed with nothing")
