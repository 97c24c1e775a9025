"""Small recordings: a scheduler whose every command succeeds after a second of virtual time."""

from __future__ import annotations

from collections import deque
from collections.abc import Sequence
from pathlib import Path

from support.outcomes import success

from ourvidz.adapters.recording_lines import Beginning, End, Line, Numbered, decode, encode
from scheduler import SchedulerSettings
from scheduler import messages as m
from scheduler.recording import VERSION, Header, Turn
from scheduler.replay import scheduler_of
from scheduler.types import Budget, Component, Demand, Links, Phase

SETTINGS = SchedulerSettings(
    waiting_jobs_max=64,
    load_attempts_max=3,
    load_retry_seconds=5.0,
)
# Two of them do not fit beside each other: serving both means to evict.
SIZES = {"sdxl.unet": 60, "wan.transformer": 60, "qwen_base.model": 30, "qwen_instruct.model": 30}


def header(
    policy: str = "default", device_bytes: int = 110, wall: float = 1_800_000_000.0
) -> Header:
    return Header(
        version=VERSION,
        components=tuple(Component(name, size) for name, size in SIZES.items()),
        staged=(),
        budget=Budget(device_bytes, 1000),
        links=Links(16.0, 64.0, 0.25),
        settings=SETTINGS,
        policy=policy,
        wall=wall,
        monotonic=100.0,
    )


def demand(
    job: str, *components: str, arrival: float = 100.0, seconds: float = 3.0, user: str = "u"
) -> Demand:
    """A phase of four steps for each component; the last one says what is made."""
    phases = tuple(Phase(f"use {name}", (name,), 5, seconds, 4) for name in components)
    kind = {"sdxl": "image", "wan": "video"}.get(components[-1].partition(".")[0], "text")
    return Demand(job, phases, "normal", user, arrival, kind=kind)


def played(made: Header, arrivals: Sequence[Demand]) -> list[Turn]:
    """The turns of serving these demands, each from its arrival."""
    scheduler = scheduler_of(made)
    coming = deque(sorted(arrivals, key=lambda d: d.arrival))
    flying: deque[m.Command] = deque()
    turns: list[Turn] = []
    now = made.monotonic
    while coming or flying or scheduler.deadline() is not None:
        events: list[m.Event] = []
        if flying:
            events.append(success(flying.popleft(), state=1))
        while coming and (coming[0].arrival <= now or not (flying or events)):
            now = max(now, coming[0].arrival)
            events.append(m.JobArrived(coming.popleft()))
        if not events:
            now, events = max(now, scheduler.deadline() or now), [m.TimeReached()]
        commands = scheduler.handle(events, now)
        flying += [c for c in commands if not isinstance(c, _WITHOUT_END)]
        turns.append(Turn(now, tuple(events), tuple(commands)))
        now += 1.0
    return turns


_WITHOUT_END = (m.Pause, m.Cancel, m.Abort, m.Settle)


def busy(made: Header, jobs: int = 12) -> list[Turn]:
    """Jobs of three families that come while others run, some of them chained."""
    wanted = []
    for number in range(jobs):
        at = made.monotonic + 2.5 * number
        part = "qwen_base.model" if number % 3 else "wan.transformer"
        chain = ["sdxl.unet"] if number % 2 else []
        wanted.append(demand(f"job-{number}", part, *chain, arrival=at, user=f"user-{number % 2}"))
    return played(made, wanted)


def written(path: Path, lines: Sequence[Line]) -> Path:
    """A recording in one file."""
    path.write_bytes(b"".join(map(encode, lines)))
    return path


def whole(made: Header, turns: Sequence[Turn], end: str = "closed") -> list[Line]:
    return [Beginning(made, 1), *numbered(turns), End(end, len(turns))]


def numbered(turns: Sequence[Turn], first: int = 1) -> list[Numbered]:
    return [Numbered(number, turn) for number, turn in enumerate(turns, first)]


def read_again(turns: Sequence[Turn]) -> list[Turn]:
    """The turns as they are once they were written and read."""
    lines = [decode(encode(line), "it") for line in numbered(turns)]
    return [line.turn for line in lines if isinstance(line, Numbered)]
