"""Requests as a real image service gets them: a workload for the simulator, from a seed.

    python -m bench.traffic --seed 0 > workload.jsonl
    python -m bench.traffic --describe workload.jsonl

The figures below are fitted to twelve days of a production Stable-Diffusion service: people come
in sittings, most of them short and some very long, along a daily curve with hours of silence; a
few come back again and again, and one makes a tenth of all requests. Text-to-image requests become
SDXL images; the others, which work on a picture that is given, become WAN videos. Neither the
trace's models nor its text exist here: a line's ``model`` is a number by popularity, and chat and
enhancements, which the trace does not have, are laid over the requests.

A line is what ``scheduler.workload`` reads: ``id``, ``arrival_s``, ``user``, ``type``, ``after``
where it is chained, and the counts of its type. Standard library only.
"""

from __future__ import annotations

import argparse
import itertools
import json
import math
import random
import sys
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

HOUR, DAY = 3600.0, 86400.0
DAYS = 12
# Days beyond the twelve repeat the last week; the first four are those of a service nobody knows.
DAYS_REPEATED = 7
# The first day begins in the evening, as the trace does; times of arrival are counted from here.
BEGINNING = 17 * HOUR

# Percent of a day's requests in each of its hours, and by how much (log-normal) an hour differs.
HOURS: tuple[float, ...] = (
    *(14.4, 3.1, 3, 3, 1.3, 0.6, 0.5, 0.3, 0.4, 0.3, 0.1, 0),
    *(0, 0, 0, 0.1, 2.2, 8.4, 11.4, 2, 3.4, 14.3, 14.8, 16.4),
)
HOUR_SIGMA = 0.25

# What is asked for, and how often the next request of a sitting asks for it anew.
IMAGES, IMAGES_WEIGHTS, IMAGES_REDRAWN = (1, 3, 6), (59.6, 27.4, 13.0), 0.17
STEPS, STEPS_WEIGHTS = (30, 40, 50, 35, 25, 38, 28, 10), (93.2, 4.4, 1, 0.4, 0.3, 0.3, 0.2, 0.2)
STEPS_REDRAWN = 0.3
MODELS, MODELS_EXPONENT, MODELS_REDRAWN = 74, 1.2, 0.32
MODELS_WEIGHTS = tuple(rank**-MODELS_EXPONENT for rank in range(1, MODELS + 1))

# The share of sittings that are newcomers'; the others are of people who have been here before, in
# proportion to how often.
NEWCOMERS = 0.71

# What the trace does not have.
IMAGES_CHAINED, VIDEOS_CHAINED = 0.3, 0.5
REQUESTS_PER_CHAT, CHAT_USERS, CHAT_WITHIN_SECONDS = 4, 1000, 600.0
ENHANCE_TOKENS, CHAT_TOKENS = (80, 200), (60, 300)
SIZE_OF = {"sdxl_generate": (1024, 1024), "wan_generate": (832, 480)}


@dataclass(frozen=True, slots=True)
class Habit:
    """How people ask for one type: requests on each day; how many make a sitting on average, of
    those who ask for little and those who ask for much; the share of sittings that are of the one
    user who never stops, and their length; the seconds between two requests, log-normal."""

    type: str
    daily: tuple[int, ...]
    short: float
    long: float
    long_share: float
    regular: float
    regular_share: float
    gap_median: float
    gap_sigma: float

    @property
    def length(self) -> float:
        others = self.short + self.long_share * (self.long - self.short)
        return others + self.regular_share * (self.regular - others)

    def requests_on(self, day: int) -> int:
        last = len(self.daily) - DAYS_REPEATED
        return self.daily[day if day < len(self.daily) else last + (day - last) % DAYS_REPEATED]


PICTURES = Habit(
    type="sdxl_generate",
    daily=(79, 40, 84, 63, 516, 1070, 1507, 1355, 347, 1016, 1355, 1626),
    short=2.55,
    long=9.0,
    long_share=0.18,
    regular=33.0,
    regular_share=0.013,
    gap_median=62.0,
    gap_sigma=0.9,
)
FILMS = Habit(
    type="wan_generate",
    daily=(36, 53, 2, 0, 47, 44, 92, 117, 84, 144, 130, 149),
    short=2.1,
    long=10.5,
    long_share=0.25,
    regular=0.0,
    regular_share=0.0,
    gap_median=80.0,
    gap_sigma=1.0,
)


@dataclass(frozen=True, slots=True)
class Asked:
    """One request of the service, before it is thinned and chained."""

    at: float
    user: str
    type: str
    images: int
    steps: int
    model: int


class Crowd:
    """The people of one habit: who sits down next, and how long."""

    def __init__(self, habit: Habit, prefix: str) -> None:
        self._habit = habit
        self._prefix = prefix
        self._lengths: dict[str, float] = {}
        self._sittings: list[str] = []

    def next(self, rng: random.Random) -> tuple[str, float]:
        """A user, and the length on average of this user's sittings."""
        habit = self._habit
        if rng.random() < habit.regular_share:
            return f"{self._prefix}0", habit.regular
        if self._sittings and rng.random() > NEWCOMERS:
            user = rng.choice(self._sittings)
        else:
            user = f"{self._prefix}{len(self._lengths) + 1}"
            self._lengths[user] = habit.long if rng.random() < habit.long_share else habit.short
        self._sittings.append(user)
        return user, self._lengths[user]


def _beginnings(habit: Habit, days: int, rng: random.Random) -> Iterator[float]:
    """When sittings begin: within an hour at random, at the hour's own rate."""
    for day, (hour, percent) in itertools.product(range(days), enumerate(HOURS)):
        mood = rng.lognormvariate(-(HOUR_SIGMA**2) / 2, HOUR_SIGMA)
        rate = habit.requests_on(day) * percent / 100 * mood / habit.length / HOUR
        at = day * DAY + hour * HOUR - BEGINNING
        end = at + HOUR
        while rate and at >= 0 and (at := at + rng.expovariate(rate)) < end:
            yield at


def _sitting(
    habit: Habit, user: str, at: float, length: float, rng: random.Random
) -> Iterator[Asked]:
    """About ``length`` requests of one user, each much like the one before."""
    images = _drawn(IMAGES, IMAGES_WEIGHTS, rng)
    steps = _drawn(STEPS, STEPS_WEIGHTS, rng)
    model = _drawn(range(MODELS), MODELS_WEIGHTS, rng)
    while True:
        yield Asked(at, user, habit.type, images, steps, model)
        if rng.random() < 1 / length:
            return
        at += rng.lognormvariate(math.log(habit.gap_median), habit.gap_sigma)
        if rng.random() < IMAGES_REDRAWN:
            images = _drawn(IMAGES, IMAGES_WEIGHTS, rng)
        if rng.random() < STEPS_REDRAWN:
            steps = _drawn(STEPS, STEPS_WEIGHTS, rng)
        if rng.random() < MODELS_REDRAWN:
            model = _drawn(range(MODELS), MODELS_WEIGHTS, rng)


def _drawn(values: Sequence[int], weights: Sequence[float], rng: random.Random) -> int:
    return rng.choices(values, weights)[0]


def asked(days: int, rng: random.Random) -> list[Asked]:
    """All requests of so many days, in order."""
    found: list[Asked] = []
    for habit, crowd in ((PICTURES, Crowd(PICTURES, "u")), (FILMS, Crowd(FILMS, "v"))):
        for at in _beginnings(habit, days, rng):
            user, length = crowd.next(rng)
            found += _sitting(habit, user, at, length, rng)
    found = [request for request in found if request.at < days * DAY - BEGINNING]
    return sorted(found, key=lambda request: (request.at, request.user))


def workload(
    seed: int,
    load: float = 1.0,
    days: int = DAYS,
    images: float = 0.5,
    videos: float = 0.25,
) -> list[dict[str, Any]]:
    """Lines of a workload in order of arrival. ``images`` and ``videos`` are the shares of the
    service's requests that one card gets; ``load`` divides the times of arrival."""
    rng = random.Random(seed)
    kept = {"sdxl_generate": images, "wan_generate": videos}
    requests = [r for r in asked(days, rng) if rng.random() < kept[r.type]]
    lines: list[dict[str, Any]] = []
    for number, request in enumerate(requests):
        lines += _chain(f"r{number}", request, rng)
    for number in range(len(lines) // REQUESTS_PER_CHAT):
        at = rng.choice(lines)["arrival_s"] + rng.random() * CHAT_WITHIN_SECONDS
        user = f"c{rng.randrange(CHAT_USERS)}"
        lines.append(_line(f"c{number}", at, user, "chat", tokens=rng.randint(*CHAT_TOKENS)))
    for line in lines:
        line["arrival_s"] = round(line["arrival_s"] / load, 3)
    return sorted(lines, key=lambda line: (line["arrival_s"], line["id"]))


def _chain(name: str, request: Asked, rng: random.Random) -> Iterator[dict[str, Any]]:
    """The line of a request, and before it that of its enhancement, if it has one."""
    film = request.type == "wan_generate"
    width, height = SIZE_OF[request.type]
    images = {"images": request.images, "steps": request.steps}
    counts = {"frames": 81, "steps": 50} if film else images
    line = _line(name, request.at, request.user, request.type, **counts)
    if rng.random() < (VIDEOS_CHAINED if film else IMAGES_CHAINED):
        kind = rng.choice(("enhance_base", "enhance_instruct"))
        tokens = rng.randint(*ENHANCE_TOKENS)
        yield _line(f"{name}-e", request.at, request.user, kind, tokens=tokens)
        line["after"] = f"{name}-e"
    yield {**line, "width": width, "height": height, "model": request.model}


def _line(name: str, at: float, user: str, kind: str, **counts: int) -> dict[str, Any]:
    return {"id": name, "arrival_s": at, "user": user, "type": kind, **counts}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n", 1)[0])
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--load", type=float, default=1.0, help="0.5: half as busy; 3: thrice")
    parser.add_argument("--days", type=int, default=DAYS)
    parser.add_argument("--images", type=float, default=0.5, help="share of images that are kept")
    parser.add_argument("--videos", type=float, default=0.25, help="share of videos that are kept")
    parser.add_argument("--describe", type=Path, nargs="+", metavar="FILE", help="of workloads")
    args = parser.parse_args()
    if not args.load > 0:
        parser.error(f"--load is {args.load}, allowed: above 0")
    if args.describe:
        from bench.described import describe_files  # noqa: PLC0415 - what generating needs not

        describe_files(args.describe)
        return
    for line in workload(args.seed, args.load, args.days, args.images, args.videos):
        sys.stdout.write(json.dumps(line) + "\n")


if __name__ == "__main__":
    main()
