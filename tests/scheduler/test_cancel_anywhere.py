"""A job that is cancelled at any point of its life leaves once, and the others go on."""

from __future__ import annotations

from dataclasses import replace

import pytest

from scheduler import messages as m
from scheduler.types import Fault, Outcome, Sharing
from tests.scheduler.shell import DEFAULTS, Shell, phase
from tests.scheduler.world import QUICK
from tests.support.outcomes import success

SIZES = {"text": 20, "unet": 50, "vae": 10, "llm": 60}
TEXT = Sharing("llm", 1, 4, 0.1, mid_phase=True)
IMAGES = Sharing("unet", 1, 4, 0.2, mid_phase=False)
SETTINGS = replace(DEFAULTS, policy=QUICK)
LONGEST = 200
JOBS = ("image1", "image2", "chat1", "chat2", "video")


def image(seconds: float) -> list[object]:
    return [
        phase("text", work=2, seconds=2.0, steps=2, state_max=1),
        phase("unet", work=5, seconds=seconds, steps=4, state_max=1, sharing=IMAGES),
        phase("vae", work=20, seconds=1.0, state_max=1),
    ]


class Life:
    """Five jobs, from event to event: what flies first has its steps and then its end. Images have
    the video paused; chats have the images paused, while something is on its way for these."""

    def __init__(self) -> None:
        self.shell = Shell(SIZES, device=100, host=120, settings=SETTINGS)
        video = phase("unet", work=10, seconds=90.0, steps=6, state_max=2)
        self.shell.arrive("video", video)
        self._coming = [
            ("image1", image(40.0)),
            ("image2", image(41.0)),
            ("chat1", [phase("llm", seconds=3.0, steps=4, state_max=1, sharing=TEXT)]),
            ("chat2", [phase("llm", seconds=4.0, steps=4, state_max=1, sharing=TEXT)]),
        ]

    def go_on(self) -> bool:
        """One event more, if there is one."""
        s = self.shell
        s.now += 0.5
        if self._coming and self._comes(self._coming[0][0]):
            name, phases = self._coming.pop(0)
            s.arrive(name, *phases)
            return True
        if not s.flying:
            return False
        command = s.flying.pop(0)
        s.flying.append(command)
        if isinstance(command, m.Start | m.Resume):
            self._run_on(command)
        else:
            s.end(command, success(command))
        return True

    def _comes(self, job: str) -> bool:
        running, later = self.shell.running(), bool(self.shell.ahead)
        return {
            "image1": running == "video",
            "image2": True,
            "chat1": running.startswith("image") and later,
            "chat2": True,
        }[job]

    def _run_on(self, command: m.Start | m.Resume) -> None:
        s, lease = self.shell, command.lease
        step, steps = s.books.members[lease.id].step, s.books.phase(lease).steps
        if step + 1 >= steps:
            s.end(command, m.PhaseFinished(lease, 1))
        elif s.books.pausing(lease):
            s.end(command, m.Paused(lease, step + 1, 1))
        else:
            s.feed(m.StepReached(lease, step + 1))


def life(events: int) -> Shell:
    found = Life()
    for _ in range(events):
        found.go_on()
    return found.shell


def length() -> int:
    found, count = Life(), 0
    while count < LONGEST and found.go_on():
        count += 1
    return count


LENGTH = length()


def test_the_life_has_all_that_a_cancel_may_meet() -> None:
    assert LENGTH < LONGEST
    s = life(LENGTH)
    assert set(s.outcomes().values()) == {Outcome.FINISHED}
    commands = [c for _, _, said in s.log for c in said]
    assert any(isinstance(c, m.Start) and c.starters > 1 for c in commands)
    assert any(isinstance(c, m.Resume) for c in commands)
    for kind in (m.Pause, m.Evict, m.Unstage, m.Abort):
        assert any(isinstance(c, kind) for c in commands), kind


@pytest.mark.parametrize("job", JOBS)
def test_a_job_may_be_cancelled_after_every_event(job: str) -> None:
    for events in range(LENGTH):
        s = life(events)
        if job not in s.books.unsettled():
            continue
        running = [c for c in s.flying if isinstance(c, m.Start | m.Resume)]
        said = s.cancel(job)
        if any(c.lease.job == job for c in running):
            assert said == [f"Cancel {job}:{s._run(job).lease.phase}"]
            s.end(s._run(job), m.RunCancelled(s._run(job).lease))
        assert s.outcomes()[job] is Outcome.CANCELLED, events
        assert s.cancel(job) == []
        s.play_out()
        s.assert_settled()
        rest = {other: s.outcomes()[other] for other in s.outcomes() if other != job}
        assert set(rest.values()) <= {Outcome.FINISHED}


@pytest.mark.parametrize(
    "end",
    [
        lambda lease: m.PhaseFinished(lease, 1),
        lambda lease: m.Paused(lease, 1, 1),
        lambda lease: m.RunFailed(lease, Fault.RUN, "why"),
        lambda lease: m.RunFailed(lease, Fault.SHARED, "why"),
        lambda lease: m.RunFailed(lease, Fault.OUT_OF_MEMORY, "why"),
    ],
)
def test_a_run_may_end_in_any_way_before_it_hears_of_its_cancel(end) -> None:
    for events in range(LENGTH):
        s = life(events)
        for run in [c for c in s.flying if isinstance(c, m.Start | m.Resume)][:1]:
            job = run.lease.job
            last = run.lease.phase == len(s.books.demands[job].phases) - 1
            s.cancel(job)
            event = end(run.lease)
            s.end(run, event)
            finished = last and isinstance(event, m.PhaseFinished)
            assert s.outcomes()[job] is (Outcome.FINISHED if finished else Outcome.CANCELLED)
            s.play_out()
            s.assert_settled()
