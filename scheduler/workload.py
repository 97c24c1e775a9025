"""What is asked for in a simulation: requests in order of arrival, some of them chained.

A request says *what* is wanted (steps, images, frames, tokens); what that costs is the profile's.
A chained request (``after``) is released when the request it names ends, and no earlier than its
own arrival. Flow time counts from its arrival all the same.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

from scheduler import fields
from scheduler.errors import InputError

CLASSES = ("chat", "image", "video")
CLASS_OF = {
    "chat": "chat",
    "enhance_base": "chat",
    "enhance_instruct": "chat",
    "sdxl_generate": "image",
    "wan_generate": "video",
}
_COUNTS = {"chat": ("tokens",), "image": ("images", "steps"), "video": ("frames", "steps")}


@dataclass(frozen=True, slots=True)
class Request:
    """One line of a workload. A count that its type does not have is 1, a size that is not given
    is 0."""

    id: str
    arrival: float
    user: str
    type: str
    after: str | None = None
    images: int = 1
    steps: int = 1
    frames: int = 1
    tokens: int = 1
    width: int = 0
    height: int = 0

    @property
    def job_class(self) -> str:
        return CLASS_OF[self.type]


@dataclass(frozen=True, slots=True)
class Workload:
    """``requests`` by arrival, then id; ``children``: whose parent is whose, in that order."""

    requests: tuple[Request, ...]
    children: Mapping[str, tuple[Request, ...]]


def parse(line: object, where: str) -> Request:
    """One parsed line; unknown keys are left alone. Raises ``InputError``, which names ``where``
    and the field."""
    entries = fields.table(line, where)
    kind = fields.text(entries, "type", where)
    if kind not in CLASS_OF:
        raise InputError(f"{where}: type is {kind!r}, allowed: {', '.join(sorted(CLASS_OF))}")
    counts = {name: fields.count(entries, name, where) for name in _COUNTS[CLASS_OF[kind]]}
    return Request(
        id=fields.text(entries, "id", where),
        arrival=fields.number(entries, "arrival_s", where, low=-fields.NUMBER_MAX),
        user=fields.text(entries, "user", where, ""),
        type=kind,
        after=fields.text(entries, "after", where) if entries.get("after") is not None else None,
        **counts,
        **{name: fields.count(entries, name, where, 0, low=0) for name in ("width", "height")},
    )


def chain(requests: Iterable[Request]) -> Workload:
    """Put requests in order and link the chains. Raises ``InputError`` for an id that comes twice,
    a parent that does not exist, a chain that ends in itself, and if there is no request."""
    ordered = sorted(requests, key=lambda r: (r.arrival, r.id))
    if not ordered:
        raise InputError("the workload has no requests")
    known: dict[str, Request] = {}
    for request in ordered:
        if request.id in known:
            raise InputError(f"request {request.id}: the id comes twice")
        known[request.id] = request
    children: dict[str, tuple[Request, ...]] = {}
    for request in ordered:
        if request.after is not None:
            if request.after not in known:
                raise InputError(f"request {request.id}: after is {request.after!r}, no such id")
            children[request.after] = (*children.get(request.after, ()), request)
    _refuse_cycles(ordered, children)
    return Workload(tuple(ordered), children)


def _refuse_cycles(ordered: list[Request], children: Mapping[str, tuple[Request, ...]]) -> None:
    released = [r for r in ordered if r.after is None]
    for request in released:  # grows while it is walked
        released += children.get(request.id, ())
    if len(released) < len(ordered):
        reached = {r.id for r in released}
        lost = next(r for r in ordered if r.id not in reached)
        raise InputError(f"request {lost.id}: after is {lost.after!r}, a chain without a beginning")


def parse_all(lines: Iterable[tuple[Any, str]]) -> Workload:
    """A workload from parsed lines, each with where it stands."""
    return chain(parse(line, where) for line, where in lines)
