"""What requests cost on a card: bytes and seconds, read from a parsed profile.

A phase takes ``seconds + seconds_per_image * images + step_seconds * steps * images **
image_exponent`` or ``token_seconds * tokens``; all of it times ``frames / 81`` where it is
``frame_scaled``. A phase with ``step_seconds`` or ``token_seconds`` has a boundary after every step
or token, any other only at its end. Its working bytes are ``work_bytes + work_bytes_per_image *
images``. With ``[batching]`` texts on one component share a run, joining at any token, and images
of the same size and steps do if they begin together.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Protocol

from scheduler import fields
from scheduler.errors import InputError
from scheduler.types import Budget, Component, Demand, Links, Phase, Sharing
from scheduler.workload import CLASS_OF, Request

FRAMES = 81
# Of what is computed for images, nothing grows faster than attention.
_EXPONENT_MAX = 2.0


@dataclass(frozen=True, slots=True)
class Batching:
    """``[batching]``: a step of ``n`` together takes ``n ** exponent`` times as long."""

    text_exponent: float
    text_max: int
    image_exponent: float
    image_max: int


@dataclass(frozen=True, slots=True)
class PhaseCost:
    """One ``[[phase]]`` of a profile."""

    name: str
    components: tuple[str, ...]
    work_bytes: int
    work_bytes_per_image: int
    seconds: float
    seconds_per_image: float
    step_seconds: float
    image_exponent: float
    token_seconds: float
    frame_scaled: bool

    def phase(self, request: Request, state_bytes: int, batching: Batching | None) -> Phase:
        steps, seconds = 1, self.seconds + self.seconds_per_image * request.images
        if self.step_seconds:
            scale = request.images**self.image_exponent
            steps, seconds = request.steps, seconds + self.step_seconds * request.steps * scale
        elif self.token_seconds:
            steps, seconds = request.tokens, seconds + self.token_seconds * request.tokens
        if self.frame_scaled:
            seconds *= request.frames / FRAMES
        return Phase(
            name=self.name,
            components=self.components,
            working_bytes=self.work_bytes + self.work_bytes_per_image * request.images,
            seconds=seconds,
            steps=steps,
            state_bytes_max=state_bytes,
            sharing=None if batching is None else self._sharing(request, batching),
        )

    def _sharing(self, request: Request, batching: Batching) -> Sharing | None:
        name = "+".join(self.components)
        if self.token_seconds:
            return Sharing(name, 1, batching.text_max, batching.text_exponent, mid_phase=True)
        if self.step_seconds and self.image_exponent:
            key = f"{name} {request.width}x{request.height} {request.steps}"
            exponent = batching.image_exponent
            return Sharing(key, request.images, batching.image_max, exponent, mid_phase=False)
        return None


class Costs(Protocol):
    """A card, and what a request costs on it."""

    @property
    def budget(self) -> Budget: ...
    @property
    def links(self) -> Links: ...
    @property
    def links_naive(self) -> Links: ...
    @property
    def copy_slowdown(self) -> float: ...
    @property
    def paused_bytes(self) -> int: ...
    @property
    def slo_seconds(self) -> Mapping[str, float]: ...
    @property
    def components(self) -> tuple[Component, ...]: ...
    def demand(self, request: Request) -> Demand:
        """Raises ``InputError`` for a request that it cannot price."""


@dataclass(frozen=True, slots=True)
class Profile:
    """``links_naive``: how usual loaders read, straight from disk. ``paused_bytes``: what a begun
    job keeps on the device. ``copy_slowdown``: how much longer a phase takes while a copy runs."""

    budget: Budget
    links: Links
    links_naive: Links
    copy_slowdown: float
    paused_bytes: int
    slo_seconds: Mapping[str, float]
    components: tuple[Component, ...]
    phases: Mapping[str, tuple[PhaseCost, ...]]
    batching: Batching | None = None

    def demand(self, request: Request) -> Demand:
        """Raises ``InputError`` for a type that the profile does not know."""
        costs = self.phases.get(request.type)
        if costs is None:
            raise InputError(f"the profile has no [[phase]] for type {request.type}")
        return Demand(
            job=request.id,
            phases=tuple(cost.phase(request, self.paused_bytes, self.batching) for cost in costs),
            job_class=request.job_class,
            user=request.user,
            arrival=request.arrival,
            deadline=request.arrival + self.slo_seconds[request.type],
            kind=request.job_class,
        )


def parse(document: object) -> Profile:
    """A profile from a parsed TOML document; unknown keys are left alone. Raises ``InputError``."""
    tables = fields.table(document, "the profile")
    device = _section(tables, "device")
    links, naive = _section(tables, "links"), _section(tables, "links_naive")
    sizes = _section(tables, "components")
    components = tuple(
        Component(fields.name(n, "[components]"), fields.size(sizes, n, "[components]"))
        for n in sizes
    )
    vram = fields.size(device, "vram_bytes", "[device]")
    reserve = fields.size(device, "reserve_bytes", "[device]", 0)
    if reserve > vram:
        raise InputError(f"[device]: reserve_bytes is {reserve}, allowed: up to vram_bytes, {vram}")
    return Profile(
        budget=Budget(vram - reserve, fields.size(device, "host_pinned_bytes", "[device]")),
        links=Links(
            _rate(links, "disk_to_host", "[links]"),
            _rate(links, "host_to_device", "[links]"),
            fields.number(links, "fixed_seconds", "[links]", 0.0),
        ),
        links_naive=Links(
            _rate(naive, "disk_to_device", "[links_naive]"),
            _rate(naive, "disk_to_device", "[links_naive]"),
            fields.number(naive, "fixed_seconds", "[links_naive]", 0.0),
        ),
        copy_slowdown=fields.number(
            links, "compute_slowdown_while_copying", "[links]", 1.0, low=1.0
        ),
        paused_bytes=fields.size(device, "paused_bytes", "[device]", 0),
        slo_seconds=_slo(tables),
        components=components,
        phases=_phases(tables, tuple(sizes)),
        batching=_batching(tables),
    )


def _batching(tables: Mapping[str, Any]) -> Batching | None:
    if "batching" not in tables:
        return None
    entries = _section(tables, "batching")
    return Batching(
        text_exponent=fields.number(entries, "text_exponent", "[batching]", high=1.0),
        text_max=fields.count(entries, "text_max", "[batching]"),
        image_exponent=fields.number(entries, "image_exponent", "[batching]", high=1.0),
        image_max=fields.count(entries, "image_max", "[batching]"),
    )


def _phases(
    tables: Mapping[str, Any], components: tuple[str, ...]
) -> dict[str, tuple[PhaseCost, ...]]:
    listed = tables.get("phase")
    if not isinstance(listed, list) or not listed:
        raise InputError("[[phase]] is missing")
    found: dict[str, tuple[PhaseCost, ...]] = {}
    for number, value in enumerate(listed, start=1):
        where = f"[[phase]] {number}"
        entries = fields.table(value, where)
        cost = _phase(entries, where)
        for name in cost.components:
            if name not in components:
                raise InputError(f"{where}: component {name} is not in [components]")
        for kind in fields.texts(entries, "types", where):
            if kind not in CLASS_OF:
                allowed = ", ".join(sorted(CLASS_OF))
                raise InputError(f"{where}: type is {kind!r}, allowed: {allowed}")
            found[kind] = (*found.get(kind, ()), cost)
    return found


def _phase(entries: Mapping[str, Any], where: str) -> PhaseCost:
    cost = PhaseCost(
        name=fields.text(entries, "name", where),
        components=fields.texts(entries, "components", where),
        work_bytes=fields.size(entries, "work_bytes", where, 0),
        work_bytes_per_image=fields.size(entries, "work_bytes_per_image", where, 0),
        seconds=fields.number(entries, "seconds", where, 0.0),
        seconds_per_image=fields.number(entries, "seconds_per_image", where, 0.0),
        step_seconds=fields.number(entries, "step_seconds", where, 0.0),
        image_exponent=fields.number(entries, "image_exponent", where, 0.0, high=_EXPONENT_MAX),
        token_seconds=fields.number(entries, "token_seconds", where, 0.0),
        frame_scaled=fields.flag(entries, "frame_scaled", where, default=False),
    )
    if cost.step_seconds and cost.token_seconds:
        raise InputError(f"{where}: step_seconds and token_seconds, allowed: one of them")
    return cost


def _slo(tables: Mapping[str, Any]) -> dict[str, float]:
    entries = _section(tables, "slo_seconds")
    return {kind: fields.number(entries, kind, "[slo_seconds]") for kind in CLASS_OF}


def _section(tables: Mapping[str, Any], name: str) -> Mapping[str, Any]:
    if name not in tables:
        raise InputError(f"[{name}] is missing")
    return fields.table(tables[name], f"[{name}]")


def _rate(entries: Mapping[str, Any], name: str, where: str) -> float:
    return fields.number(entries, name, where, low=1.0, high=fields.BYTES_MAX)
