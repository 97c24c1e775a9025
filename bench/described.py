"""What a workload is like, in the figures that a scheduler feels: ``bench.traffic --describe``.

``TRACE`` and ``TRACE_WHOLE`` hold the same figures of the trace that the generator is fitted to.
They are statistics; no row of it stands here.
"""

from __future__ import annotations

import statistics
import sys
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from itertools import pairwise
from pathlib import Path
from typing import Any

import orjson

from bench.sched_runs import PROFILE, default_settings
from bench.sched_tables import number
from ourvidz.cli.simulate import read_profile
from scheduler.bound import releases, service_seconds
from scheduler.contest import contest
from scheduler.profile import Profile
from scheduler.workload import CLASSES, Workload, parse_all

Line = Mapping[str, Any]
Facts = dict[str, float]

GENERATIONS = ("sdxl_generate", "wan_generate")
HOUR, MINUTE, HOURS_A_DAY = 3600.0, 60.0, 24
PEAK_HOURS = 6
FIRST_USERS = 100
LONG_BUSY_SECONDS = 600.0

# Of all its requests, and medians over five drawings of what one card gets of them.
TRACE_WHOLE: Mapping[str, float] = {
    "requests": 9930,
    "mean gap, s": 98.3,
    "median gap, s": 16.5,
    "coefficient of variation of the gaps": 11.7,
    "requests in the busiest minute": 13,
    "requests in the busiest hour": 357,
    "share of hours without a request": 0.393,
    "share of the busiest 6 hours of the day": 0.781,
    "users": 1677,
    "share of the first user": 0.103,
    "share of the first 100 users": 0.469,
    "share followed by the same user": 0.185,
    "share followed by the same type": 0.870,
    "share followed by the same model": 0.233,
    "share of videos": 0.0896,
}
TRACE: Mapping[str, float] = {
    "requests": 4734,
    "mean gap, s": 205,
    "median gap, s": 33.3,
    "coefficient of variation of the gaps": 8.68,
    "requests in the busiest minute": 9,
    "requests in the busiest hour": 179,
    "share of hours without a request": 0.428,
    "share of the busiest 6 hours of the day": 0.780,
    "users": 1296,
    "share of the first user": 0.112,
    "share of the first 100 users": 0.473,
    "share followed by the same user": 0.193,
    "share followed by the same type": 0.923,
    "share of videos": 0.0452,
    "share of one image": 0.596,
    "share of six images": 0.133,
    "share of 30 steps": 0.930,
    "share of images after an enhancement": 0.298,
    "tokens a text": 161,
    "utilisation": 0.0904,
    "share of the work that is chat": 0.139,
    "share of the work that is image": 0.409,
    "share of the work that is video": 0.454,
    "busy periods": 3674,
    "longest busy period, s": 4522,
    "share of work in busy periods over 600 s": 0.279,
    "mean flow of the bound, s": 19.7,
    "mean flow of fifo-lru, s": 84.4,
    "ratio of fifo-lru": 4.45,
    "SLO of fifo-lru": 0.710,
}


def traffic_facts(lines: Sequence[Line]) -> Facts:
    """Who asks when for what. Chats do not count and enhancements only as links of a chain; without
    a ``model`` in the lines there is no figure for it."""
    asked = sorted((x for x in lines if x["type"] in GENERATIONS), key=lambda x: x["arrival_s"])
    times = [line["arrival_s"] for line in asked]
    gaps = [b - a for a, b in pairwise(times)]
    users = sorted(Counter(line["user"] for line in asked).values(), reverse=True)
    hours = Counter(int(at / HOUR) for at in times)
    folded = sorted(Counter(int(at / HOUR) % HOURS_A_DAY for at in times).values(), reverse=True)
    facts = {
        "requests": len(asked),
        "mean gap, s": statistics.fmean(gaps),
        "median gap, s": statistics.median(gaps),
        "coefficient of variation of the gaps": statistics.pstdev(gaps) / statistics.fmean(gaps),
        "requests in the busiest minute": max(Counter(int(at / MINUTE) for at in times).values()),
        "requests in the busiest hour": max(hours.values()),
        "share of hours without a request": 1 - len(hours) / (1 + max(hours) - min(hours)),
        "share of the busiest 6 hours of the day": sum(folded[:PEAK_HOURS]) / len(asked),
        "users": len(users),
        "share of the first user": users[0] / len(asked),
        "share of the first 100 users": sum(users[:FIRST_USERS]) / len(asked),
    }
    for what in ("user", "type", "model"):
        if what in asked[0]:
            same = _share(a[what] == b[what] for a, b in pairwise(asked))
            facts[f"share followed by the same {what}"] = same
    return facts | _content_facts(lines, asked)


def _content_facts(lines: Sequence[Line], asked: Sequence[Line]) -> Facts:
    images = [line for line in asked if line["type"] == "sdxl_generate"]
    texts = [line["tokens"] for line in lines if "tokens" in line]
    return {
        "share of videos": 1 - len(images) / len(asked),
        "share of one image": _share(line["images"] == 1 for line in images),
        "share of six images": _share(line["images"] == 6 for line in images),
        "share of 30 steps": _share(line["steps"] == 30 for line in images),
        "share of images after an enhancement": _share("after" in line for line in images),
        "tokens a text": statistics.fmean(texts),
    }


def _share(holds: Iterable[bool]) -> float:
    return statistics.fmean(holds)


def strain_facts(workload: Workload, profile: Profile) -> Facts:
    """What it means for a card: how much work, in what lumps, and what the bound and the plainest
    policy make of it."""
    services = {r.id: service_seconds(profile.demand(r)) for r in workload.requests}
    periods = busy_periods(workload, services)
    work = sum(services.values())
    row = contest("fifo-lru", workload, profile, default_settings())
    span = workload.requests[-1].arrival - workload.requests[0].arrival
    by_class = dict.fromkeys(CLASSES, 0.0)
    for request in workload.requests:
        by_class[request.job_class] += services[request.id]
    lumps = sum(period for period in periods if period > LONG_BUSY_SECONDS)
    return {
        "utilisation": work / span,
        **{f"share of the work that is {name}": part / work for name, part in by_class.items()},
        "busy periods": len(periods),
        "longest busy period, s": max(periods),
        "share of work in busy periods over 600 s": lumps / work,
        "mean flow of the bound, s": row["bound_mean_flow_s"],
        "mean flow of fifo-lru, s": row["mean_flow_s"],
        "ratio of fifo-lru": row["ratio"],
        "SLO of fifo-lru": row["slo"],
    }


def busy_periods(workload: Workload, services: Mapping[str, float]) -> list[float]:
    """Seconds of each stretch in which a device that has no set-ups is never idle."""
    periods: list[float] = []
    end = float("-inf")
    for at, job in releases(workload, services):
        if at > end:
            periods.append(0.0)
            end = at
        periods[-1] += services[job]
        end += services[job]
    return periods


def describe(lines: Sequence[Line], profile: Profile) -> Facts:
    workload = parse_all((line, f"line {n}") for n, line in enumerate(lines, 1))
    return traffic_facts(lines) | strain_facts(workload, profile)


def describe_files(paths: Sequence[Path]) -> None:
    """Print a table: the trace's figures, then a column a file."""
    columns: list[Mapping[str, float]] = [TRACE]
    profile = read_profile(PROFILE)
    for path in paths:
        lines = [orjson.loads(x) for x in path.read_bytes().splitlines() if x.strip()]
        columns.append(describe(lines, profile))
    names = dict.fromkeys(name for facts in columns for name in facts)
    width = max(map(len, names))
    sys.stdout.write(f"{'':<{width}}      trace\n")
    for name in names:
        cells = " ".join(f"{number(facts.get(name)):>10}" for facts in columns)
        sys.stdout.write(f"{name:<{width}} {cells}\n")
