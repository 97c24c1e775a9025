"""What a decision costs: median and 99th percentile of ``handle()`` with jobs waiting.

    python bench/planner.py [events]

A steady state: whenever a job settles another arrives, so that always the same number waits. Every
event counts, arrivals and phase ends among them. The components are those of an image, a video
and a language model on a card that does not hold them all.
"""

from __future__ import annotations

import random
import statistics
import sys
import time
from collections import deque

from scheduler import Scheduler, SchedulerSettings
from scheduler import messages as m
from scheduler.types import Budget, Component, Demand, Links, Phase

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
STATE_BYTES = 150_000_000


def phases(rng: random.Random) -> tuple[Phase, ...]:
    kind = rng.choice(["image", "image", "video", "qwen.base", "qwen.instruct"])
    if kind == "image":
        steps = rng.randint(10, 50)
        return (
            Phase("encode", ("sdxl.text_encoders",), 200_000_000, 0.05, 1, STATE_BYTES),
            Phase("denoise", ("sdxl.unet",), 520_000_000, 0.12 * steps, steps, STATE_BYTES),
            Phase("decode", ("sdxl.vae",), 4_600_000_000, 0.15, 1, STATE_BYTES),
        )
    if kind == "video":
        return (
            Phase("encode", ("wan.text_encoder",), 500_000_000, 0.3, 1, STATE_BYTES),
            Phase("denoise", ("wan.transformer",), 3_750_000_000, 180.0, 50, STATE_BYTES),
            Phase("decode", ("wan.vae",), 8_200_000_000, 6.0, 1, STATE_BYTES),
        )
    tokens = rng.randint(60, 300)
    return (Phase("generate", (kind,), 1_500_000_000, 0.025 * tokens, tokens, STATE_BYTES),)


class Bench:
    """A shell in which everything succeeds and only ``handle`` takes real time."""

    def __init__(self, waiting: int) -> None:
        parts = [Component(name, size) for name, size in COMPONENTS.items()]
        settings = SchedulerSettings(30.0, 600.0, 10_000, 3, 5.0, {"fast": 2.0})
        self.scheduler = Scheduler(parts, BUDGET, LINKS, settings)
        self.rng = random.Random(0)
        self.now = 0.0
        self.arrivals = 0
        self.seconds: list[float] = []
        self.events: deque[m.Event] = deque()
        for _ in range(waiting):
            self.arrive()

    def arrive(self) -> None:
        self.arrivals += 1
        job_class = self.rng.choice(["fast", "normal"])
        wanted = Demand(f"j{self.arrivals}", phases(self.rng), job_class, "user", self.now)
        self.events.append(m.JobArrived(wanted))

    def run(self, events: int) -> list[float]:
        """Seconds of each ``handle``, without those that filled the queue."""
        for _ in range(len(self.events)):
            self.handle()
        self.seconds.clear()
        for _ in range(events):
            self.handle()
        return self.seconds

    def handle(self) -> None:
        event = self.events.popleft()
        if isinstance(event, m.PhaseFinished):
            self.now += self.rng.uniform(0.1, 5.0)
        before = time.perf_counter()
        commands = self.scheduler.handle(event, self.now)
        self.seconds.append(time.perf_counter() - before)
        for command in commands:
            self.obey(command)

    def obey(self, command: m.Command) -> None:
        match command:
            case m.Stage(name):
                self.events.append(m.StageSucceeded(name))
            case m.Load(name):
                self.events.append(m.LoadSucceeded(name))
            case m.Evict(name):
                self.events.append(m.Evicted(name))
            case m.Unstage(name):
                self.events.append(m.Unstaged(name))
            case m.Start(lease):
                self.events.append(m.StepReached(lease, 1))
                self.events.append(m.PhaseFinished(lease, STATE_BYTES))
            case m.Settle():
                self.arrive()


def main(events: int) -> None:
    sys.stdout.write(f"{'waiting':>8} {'events':>8} {'median us':>10} {'p99 us':>8}\n")
    for waiting in (10, 100, 1000):
        taken = sorted(1e6 * seconds for seconds in Bench(waiting).run(events))
        median, p99 = statistics.median(taken), taken[int(0.99 * len(taken))]
        sys.stdout.write(f"{waiting:>8} {len(taken):>8} {median:>10.1f} {p99:>8.1f}\n")


if __name__ == "__main__":
    main(int(sys.argv[1]) if len(sys.argv) > 1 else 5_000)
