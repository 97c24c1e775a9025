"""What a decision costs: median and 99th percentile of ``handle()`` with jobs waiting.

    python -m bench.planner [events]

The default policy under its default settings, on a card that does not hold all components. A
steady state: whenever a job settles another arrives, so that always the same number waits. Every
event counts: arrivals, steps, ends of phases, pauses, transfers.
"""

from __future__ import annotations

import math
import random
import statistics
import sys
import time
from collections.abc import Callable
from heapq import heapify, heappop, heappush
from itertools import count

from scheduler import Scheduler, SchedulerSettings
from scheduler import messages as m
from scheduler.types import Budget, Component, Demand, Lease, Links, Phase, Sharing

COMPONENTS = {
    "sdxl.text_encoders": 1_640_000_000,
    "sdxl.unet": 5_140_000_000,
    "sdxl.vae": 335_000_000,
    "wan.text_encoder": 11_400_000_000,
    "wan.transformer": 2_840_000_000,
    "wan.vae": 510_000_000,
    "qwen.base": 15_200_000_000,
    "qwen.instruct": 15_200_000_000,
}
BUDGET = Budget(device_bytes=48_500_000_000, host_bytes=64_000_000_000)
LINKS = Links(disk_to_host=3e9, host_to_device=22e9, fixed_seconds=0.02)
SETTINGS = SchedulerSettings(10_000, 3, 5.0, class_weights={"fast": 2.0})
STATE_BYTES = 150_000_000
DEADLINES = {"text": 15.0, "image": 30.0, "video": 600.0}
USERS = 50
# Steps of a phase that are reported; in between nothing is decided.
REPORTS = 4


def phases(rng: random.Random, kind: str) -> tuple[Phase, ...]:
    if kind == "image":
        steps, images = rng.choice([20, 30, 30, 30]), rng.choice([1, 1, 3, 6])
        sharing = Sharing(f"sdxl {steps}", images, 6, 0.92, mid_phase=False)
        work, seconds = 520_000_000 * images, 0.12 * steps * images**0.92
        return (
            Phase("encode", ("sdxl.text_encoders",), 200_000_000, 0.05, 1, STATE_BYTES),
            Phase("denoise", ("sdxl.unet",), work, seconds, steps, STATE_BYTES, sharing),
            Phase("decode", ("sdxl.vae",), 4_600_000_000, 0.15 * images, images, STATE_BYTES),
        )
    if kind == "video":
        return (
            Phase("encode", ("wan.text_encoder",), 500_000_000, 0.3, 1, STATE_BYTES),
            Phase("denoise", ("wan.transformer",), 3_750_000_000, 180.0, 50, STATE_BYTES),
            Phase("decode", ("wan.vae",), 8_200_000_000, 6.0, 1, STATE_BYTES),
        )
    model, tokens = rng.choice(["qwen.base", "qwen.instruct"]), rng.randint(60, 300)
    sharing = Sharing(model, 1, 16, 0.15, mid_phase=True)
    return (
        Phase("generate", (model,), 1_500_000_000, 0.025 * tokens, tokens, STATE_BYTES, sharing),
    )


class Bench:
    """A shell in which everything succeeds and only ``handle`` takes real time."""

    def __init__(self, waiting: int) -> None:
        parts = [Component(name, size) for name, size in COMPONENTS.items()]
        self.scheduler = Scheduler(parts, BUDGET, LINKS, SETTINGS)
        self.rng = random.Random(0)
        self.now = 0.0
        self.arrivals = 0
        self.seconds: list[float] = []
        self.order = count()
        self.events: list[tuple[float, int, m.Event]] = []
        self.demands: dict[str, Demand] = {}
        self.steps: dict[str, int] = {}
        for _ in range(waiting):
            self.arrive()

    def at(self, seconds: float, event: m.Event) -> None:
        heappush(self.events, (self.now + seconds, next(self.order), event))

    def arrive(self) -> None:
        self.arrivals += 1
        kind = self.rng.choice(["text", "text", "image", "image", "video"])
        job = f"j{self.arrivals}"
        self.demands[job] = Demand(
            job=job,
            phases=phases(self.rng, kind),
            job_class=self.rng.choice(["fast", "normal"]),
            user=f"u{self.rng.randrange(USERS)}",
            arrival=self.now,
            deadline=self.now + DEADLINES[kind],
            kind=kind,
        )
        self.at(0.0, m.JobArrived(self.demands[job]))

    def run(self, events: int) -> list[float]:
        """Seconds of each ``handle``, without those that filled the queue."""
        for _ in range(len(self.events)):
            self.handle()
        self.seconds.clear()
        for _ in range(events):
            self.handle()
        return self.seconds

    def handle(self) -> None:
        due = self.scheduler.deadline() or math.inf
        event: m.Event = m.TimeReached()
        if self.events[0][0] <= due:
            self.now, _, event = heappop(self.events)
        else:
            self.now = due
        if isinstance(event, m.PhaseFinished):
            self.steps.pop(event.lease.job, None)
        before = time.thread_time()
        commands = self.scheduler.handle(event, self.now)
        self.seconds.append(time.thread_time() - before)
        for command in commands:
            self.obey(command)

    def obey(self, command: m.Command) -> None:
        match command:
            case m.Stage(name):
                self.at(LINKS.stage_seconds(COMPONENTS[name]), m.StageSucceeded(name))
            case m.Load(name):
                self.at(LINKS.load_seconds(COMPONENTS[name]), m.LoadSucceeded(name))
            case m.Evict(name):
                self.at(0.0, m.Evicted(name))
            case m.Unstage(name):
                self.at(0.0, m.Unstaged(name))
            case m.Abort(name):
                self.forget(lambda e: getattr(e, "component", "") == name)
                self.at(0.0, m.Aborted(name))
            case m.Start(lease) | m.Resume(lease):
                self.run_phase(lease)
            case m.Pause(lease):
                self.forget(lambda e: getattr(e, "lease", None) == lease)
                step = self.steps.get(lease.job, 0) + 1
                self.steps[lease.job] = step
                self.at(0.1, m.Paused(lease, step, STATE_BYTES))
            case m.Settle(job):
                del self.demands[job]
                self.arrive()

    def run_phase(self, lease: Lease) -> None:
        phase = self.demands[lease.job].phases[lease.phase]
        done = self.steps.get(lease.job, 0)
        each = phase.seconds / phase.steps
        stride = max(1, (phase.steps - done) // REPORTS)
        for step in range(done + stride, phase.steps, stride):
            self.at((step - done) * each, m.StepReached(lease, step))
        self.at((phase.steps - done) * each, m.PhaseFinished(lease, STATE_BYTES))

    def forget(self, wanted: Callable[[m.Event], bool]) -> None:
        self.events = [entry for entry in self.events if not wanted(entry[2])]
        heapify(self.events)


def main(events: int) -> None:
    sys.stdout.write(f"{'waiting':>8} {'events':>8} {'median us':>10} {'p99 us':>8}\n")
    for waiting in (10, 100, 1000):
        taken = sorted(1e6 * seconds for seconds in Bench(waiting).run(events))
        median, p99 = statistics.median(taken), taken[int(0.99 * len(taken))]
        sys.stdout.write(f"{waiting:>8} {len(taken):>8} {median:>10.1f} {p99:>8.1f}\n")


if __name__ == "__main__":
    main(int(sys.argv[1]) if len(sys.argv) > 1 else 5_000)
