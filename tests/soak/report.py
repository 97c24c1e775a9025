"""What a soak comes to: a verdict from outside alone, and two figures."""

from __future__ import annotations

import math
from collections import Counter, defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass, field

import orjson
from support.history import Call, History, Kind, violations

from tests.soak.load import POISON, Load
from tests.soak.worker import Begun

# What a process allocates once comes within its first jobs, and is no leak.
WARM_UP_JOBS = 80
LOST = (Kind.LOST, Kind.NOT_STORED)


@dataclass(frozen=True, slots=True)
class Kill:
    pid: int
    at: float


@dataclass(frozen=True, slots=True)
class Report:
    """The last line. ``recovery_p99_s`` and ``rss_slope_bytes_per_job`` are ``None`` where nothing
    was there to measure."""

    jobs: int
    kills: int
    completed: int
    lost: int
    duplicate_effects: int
    dead: int
    poison: int
    recovery_p99_s: float | None
    rss_slope_bytes_per_job: float | None

    def line(self) -> str:
        return orjson.dumps(asdict(self)).decode()


@dataclass(frozen=True, slots=True)
class Watched:
    """What was seen of the soak from outside; ``dead`` are the ids in the dead letters."""

    load: Load
    history: History
    dead: frozenset[str]
    kills: Sequence[Kill] = ()
    begun: Sequence[Begun] = ()
    troubles: Sequence[str] = field(default_factory=list)


def judge(watched: Watched) -> tuple[Report, list[str]]:
    """The report, and in words what is wrong."""
    load, found = watched.load, violations(watched.history)
    kinds = Counter("lost" if each.kind in LOST else "duplicate" for each in found)
    ends: dict[str, set[str]] = defaultdict(set)
    for call in watched.history.calls:
        if call.terminal and call.accepted:
            ends[call.status].add(call.job_id)
    jobs, poison = {element.id for element in load.elements}, load.of(*POISON)
    wrong = [*map(str, found), *watched.troubles]
    wrong += [f"{job} failed, and nothing was planted" for job in ends["failed"] - poison]
    wrong += [f"{job} was not completed" for job in jobs - poison - ends["completed"]]
    wrong += [f"{job} is no dead letter, and is poison" for job in poison - watched.dead]
    wrong += [f"{job} is a dead letter, and no poison" for job in watched.dead - poison]
    report = Report(
        jobs=len(jobs),
        kills=len(watched.kills),
        completed=len(ends["completed"]),
        lost=kinds["lost"],
        duplicate_effects=kinds["duplicate"],
        dead=len(watched.dead),
        poison=len(poison),
        recovery_p99_s=_rounded(p99(recoveries(watched)), 3),
        rss_slope_bytes_per_job=_rounded(rss_slope(watched.begun), 1),
    )
    return report, wrong


def recoveries(watched: Watched) -> list[float]:
    """Of each kill: the seconds until the first step or callback of a job that ran then."""
    ended: dict[str, float] = {}
    for call in watched.history.calls:
        if call.terminal and call.accepted:
            ended.setdefault(call.job_id, call.at)
    found = []
    for kill in watched.kills:
        before = {each.job for each in watched.begun if each.pid == kill.pid}
        cut_off = {job for job in before if ended.get(job, math.inf) > kill.at}
        signs = [*_signs(watched.begun, cut_off), *_calls(watched.history.calls, cut_off)]
        later = [at - kill.at for at in signs if at > kill.at]
        if later:
            found.append(min(later))
    return found


def _signs(begun: Iterable[Begun], jobs: frozenset[str] | set[str]) -> list[float]:
    return [each.at for each in begun if each.job in jobs]


def _calls(calls: Iterable[Call], jobs: frozenset[str] | set[str]) -> list[float]:
    return [call.at for call in calls if call.job_id in jobs]


def p99(values: Sequence[float]) -> float | None:
    """The value that 99 of 100 do not exceed; the largest of fewer."""
    if not values:
        return None
    return sorted(values)[math.ceil(0.99 * len(values)) - 1]


def rss_slope(begun: Iterable[Begun]) -> float | None:
    """Bytes a job by least squares, one slope for all processes and a level for each: what a
    process was born with is no growth."""
    lives: Mapping[int, list[int]] = defaultdict(list)
    for each in begun:
        lives[each.pid].append(each.rss_bytes)
    across, along = 0.0, 0.0
    for sizes in lives.values():
        warm = sizes[WARM_UP_JOBS:]
        middle = (len(warm) - 1) / 2
        mean = sum(warm) / max(1, len(warm))
        across += sum((number - middle) * (size - mean) for number, size in enumerate(warm))
        along += sum((number - middle) ** 2 for number in range(len(warm)))
    return across / along if along else None


def _rounded(value: float | None, digits: int) -> float | None:
    return None if value is None else round(value, digits)
