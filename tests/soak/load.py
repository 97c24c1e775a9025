"""What a soak puts into the queues, and what is planted in it: known before it begins.

Everything follows from the seed. Which jobs a fault is planted in is drawn by a hash of the seed
and the job's id, the same number of them for every seed.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal
from uuid import NAMESPACE_OID, uuid5

import orjson
from support.history import Push
from support.house import USER

# ``crash``: takes its process down at each run. ``malformed``: no job can be made of it. Both
# together are the poison. ``hang``: a step of its first run never returns. ``oom``: the first run
# in each process finds no memory.
Planted = Literal["crash", "malformed", "hang", "oom"]
SHARES: Mapping[Planted, float] = {"crash": 0.005, "malformed": 0.005, "hang": 0.005, "oom": 0.01}
POISON: tuple[Planted, ...] = ("crash", "malformed")
REFUSED_SHARE = 0.05
REPEATED_SHARE = 0.1

IMAGES, VIDEOS, TEXTS = "sdxl_queue", "wan_queue", "chat_queue"
QUEUES = (IMAGES, VIDEOS, TEXTS)


def drawn(seed: int, *what: object) -> float:
    """A number in [0, 1) that looks random and is always the same."""
    digest = hashlib.sha256(repr((seed, *what)).encode()).digest()
    return int.from_bytes(digest[:8]) / 2**64


@dataclass(frozen=True, slots=True)
class Element:
    """``twice``: its producer does not hear that it was pushed, and pushes it again."""

    id: str
    queue: str
    raw: bytes
    twice: bool


@dataclass(frozen=True, slots=True)
class Load:
    elements: Sequence[Element]
    planted: Mapping[str, Planted]

    def of(self, *kinds: Planted) -> frozenset[str]:
        return frozenset(job for job, kind in self.planted.items() if kind in kinds)

    @property
    def pushed(self) -> list[Push]:
        malformed = self.of("malformed")
        return [Push(element.id, element.id in malformed) for element in self.elements]


def make_load(jobs: int, seed: int) -> Load:
    """Three of five jobs are images, one of five is a text, the rest videos and pictures of an
    enhanced prompt. At least one job of each planted kind."""
    ids = [str(uuid5(NAMESPACE_OID, f"soak {seed} {number}")) for number in range(jobs)]
    left = sorted(ids, key=lambda job: drawn(seed, "planted", job))
    planted: dict[str, Planted] = {}
    for kind, share in SHARES.items():
        count = max(1, round(jobs * share))
        planted |= dict.fromkeys(left[:count], kind)
        del left[:count]
    return Load([_element(job, seed, planted.get(job)) for job in ids], planted)


def _element(job: str, seed: int, planted: Planted | None) -> Element:
    base: dict[str, Any] = {"id": job, "user_id": USER, "prompt": "a pear"}
    image = {"type": "sdxl_generate", "width": 64, "height": 64, "steps": 4}
    sort = drawn(seed, "sort", job)
    if planted == "malformed":
        queue, body = IMAGES, {**image, "steps": 9999}
    elif sort < 0.6:
        queue, body = IMAGES, {**image, "batch_size": 1 + (sort < 0.1)}
    elif sort < 0.8:
        queue, body = TEXTS, {"type": "chat"}
    elif sort < 0.9:
        queue, body = IMAGES, {**image, "enhance": "base"}
    else:
        video = {"type": "wan_generate", "width": 64, "height": 32, "frames": 5, "steps": 8}
        queue, body = VIDEOS, video
    if sort >= 0.95:
        body["seed"] = 7
    twice = drawn(seed, "twice", job) < REPEATED_SHARE
    return Element(job, queue, orjson.dumps({**base, **body}), twice)
