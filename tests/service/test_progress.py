"""When progress is told, in virtual time: at most once a period, and as the receiver asks."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field
from itertools import pairwise
from pathlib import Path
from typing import Any

import anyio
import orjson
import pytest
from support.house import payload, settings_for
from support.virtual import LoopClock, run_virtually

from ourvidz.config import Settings
from ourvidz.jobs import JobSpec, JobState
from ourvidz.ports import Claimed, Delivered, NotifyRejected, NotifyUnavailable
from ourvidz.service.active import ActiveJob
from ourvidz.service.events import EventLog
from ourvidz.service.progress import ProgressReporter
from ourvidz.wire import Rules, parse
from scheduler.types import Phase

RUN_SECONDS = 9.5
STEPS = 100
Reply = Delivered | Exception


@dataclass(slots=True)
class Backend:
    """A notifier that notes when it was told what, and answers in turn, then 200."""

    replies: Iterator[Reply] = field(default_factory=lambda: iter(()))
    seconds: float = 0.0
    told: list[tuple[float, str, dict[str, Any]]] = field(default_factory=list)

    async def notify(self, event_id: str, body: bytes) -> Delivered:
        self.told.append((LoopClock().monotonic(), event_id, orjson.loads(body)))
        await anyio.sleep(self.seconds)
        reply = next(self.replies, Delivered(skipped=False))
        if isinstance(reply, Exception):
            raise reply
        return reply

    @property
    def times(self) -> list[float]:
        return [round(at, 2) for at, _, _ in self.told]

    @property
    def gaps(self) -> list[float]:
        return [round(b - a, 6) for (a, _, _), (b, _, _) in pairwise(self.told)]


def running(settings: Settings, claim_id: str) -> ActiveJob:
    """The job, running, as one claim holds it."""
    spec = parse(orjson.dumps(payload("a", steps=STEPS)), Rules.from_settings(settings))
    assert isinstance(spec, JobSpec)
    claimed = Claimed(claim_id=claim_id, queue="sdxl_queue", raw=b"", attempts=0)
    phases = [(Phase("denoise", ("unet",), 1, RUN_SECONDS, STEPS),)]
    return ActiveJob(spec, claimed, EventLog(), JobState.RUNNING, planned=phases, phases=phases)


def lives(backend: Backend, *claims: str, **flags: Any) -> list[str]:
    """The job runs once under each claim, a hundred steps in 9.5 seconds. Returns the claims under
    which the backend did not want it."""
    unwanted: list[str] = []

    async def skipped(job: ActiveJob) -> None:
        unwanted.append(job.claimed.claim_id)

    settings = settings_for(Path("unused"), "http://127.0.0.1/", **flags)

    async def main() -> None:
        reporter = ProgressReporter(backend, settings.callback, skipped)
        for claim_id in claims:
            job = running(settings, claim_id)
            async with reporter.report(job):
                for step in range(STEPS):
                    await anyio.sleep(RUN_SECONDS / STEPS)
                    job.reach(0, step + 1)

    run_virtually(main)
    return unwanted


def test_it_is_told_at_once_and_then_once_a_second() -> None:
    backend = Backend()
    lives(backend, "one")
    assert min(backend.gaps) >= 1
    assert len(backend.told) == 10
    assert backend.times[0] == 0
    shares = [body["metadata"]["progress"] for _, _, body in backend.told]
    assert shares == sorted(set(shares)), "each says something new"
    assert [body["status"] for _, _, body in backend.told] == ["processing"] * len(shares)


def test_a_slow_receiver_is_told_less_and_the_newest() -> None:
    backend = Backend(seconds=2.5)
    lives(backend, "one")
    assert min(backend.gaps) >= 3.5
    _, _, second = backend.told[1]
    assert second["metadata"]["progress"] >= 34, "not what it was when the first was sent"


def test_the_period_is_the_configurations() -> None:
    backend = Backend()
    lives(backend, "one", **{"callback.progress_seconds": 4})
    assert backend.times == [0, 4, 8]


def test_a_receiver_that_asks_for_patience_gets_it() -> None:
    busy = [NotifyUnavailable("429", 3.0), NotifyUnavailable("503", 0.2), NotifyUnavailable("502")]
    backend = Backend(iter(busy))
    lives(backend, "one")
    assert backend.gaps[:3] == pytest.approx([3, 1, 1], abs=0.11)


def test_a_receiver_that_refuses_for_good_is_not_asked_again() -> None:
    backend = Backend(iter([NotifyRejected("the receiver answered 401")]))
    assert lives(backend, "one") == []
    assert len(backend.told) == 1


def test_a_job_that_nobody_wants_is_stopped_and_not_told_of_again() -> None:
    backend = Backend(iter([Delivered(skipped=False), Delivered(skipped=True)]))
    assert lives(backend, "one") == ["one"]
    assert len(backend.told) == 2


def test_no_two_reports_have_the_same_id() -> None:
    """Nor those of a job that runs again: a receiver may drop what it has had."""
    backend = Backend()
    lives(backend, "one", "two")
    ids = [event_id for _, event_id, _ in backend.told]
    assert len(set(ids)) == len(ids) > RUN_SECONDS
    assert all(i.startswith(f"{payload('a')['id']}.processing.") for i in ids)
