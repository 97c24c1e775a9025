"""What if: the jobs of a recording as a workload, to be served once more by other rules.

Each job that arrived is asked for again, with the demand that the scheduler was told; a phase that
ran alone from its beginning to its end while nothing was brought in takes as long as it did. A job
that follows another comes when that one has ended. Left out are jobs that were cancelled, at
whatever time, and those that the recorded card was too small for. A job that failed is asked for as
any other: what-if knows no faults.

What the profile says of the card, of transfers, of components' bytes and of running together holds;
key by key, what it does not say is as it was recorded. Seconds of phases are always the recorded
card's.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any

from scheduler import fields
from scheduler import messages as m
from scheduler.errors import InputError
from scheduler.profile import parse
from scheduler.recording import Header, Turn
from scheduler.types import Budget, Component, Demand, Lease, Links, Outcome, Phase, Sharing
from scheduler.workload import Request, Workload, chain

_LEFT_OUT = (Outcome.CANCELLED, Outcome.REFUSED)
# The type of a request, by the kind of its demand; enhancements are held to a chat's SLO.
_TYPES = {"image": "sdxl_generate", "video": "wan_generate", "text": "chat"}


@dataclass(frozen=True, slots=True)
class RecordedCosts:
    """``profile.Costs`` with demands that are ready."""

    budget: Budget
    links: Links
    links_naive: Links
    copy_slowdown: float
    paused_bytes: int
    slo_seconds: Mapping[str, float]
    components: tuple[Component, ...]
    demands: Mapping[str, Demand]

    def demand(self, request: Request) -> Demand:
        return self.demands[request.id]


class Recorded:
    """Collects a recording, turn by turn."""

    def __init__(self) -> None:
        self._demands: dict[str, Demand] = {}
        self._outcomes: dict[str, Outcome] = {}
        self._watch = _Watch()

    def feed(self, turn: Turn) -> None:
        for event in turn.events:
            if isinstance(event, m.JobArrived):
                if event.demand.job in self._demands:
                    raise InputError(f"job {event.demand.job} arrived twice")
                self._demands[event.demand.job] = event.demand
            self._watch.saw(event, turn.at)
        for command in turn.commands or ():
            if isinstance(command, m.Settle):
                self._outcomes[command.job] = command.outcome
            self._watch.ordered(command, turn.at)

    @property
    def left_out(self) -> Mapping[str, int]:
        """How many jobs are not in the workload, by their outcome."""
        return Counter(o.value for o in self._outcomes.values() if o in _LEFT_OUT)

    @property
    def estimated(self) -> tuple[int, int]:
        """How many phases of the workload's jobs keep the seconds that were expected of them, as
        they never ran alone and undisturbed; and how many there are."""
        phases = [(j, n) for j, d in self._kept().items() for n in range(len(d.phases))]
        return sum(phase not in self._watch.measured for phase in phases), len(phases)

    def workload(self) -> Workload:
        """Raises ``InputError`` if no job is left, or for one whose kind is not known."""
        kept = self._kept()
        return chain(
            Request(
                id=demand.job,
                arrival=demand.arrival,
                user=demand.user,
                type=_type_of(demand),
                after=demand.follows if demand.follows in kept else None,
            )
            for demand in kept.values()
        )

    def costs(self, document: object, header: Header) -> RecordedCosts:
        """What it costs to serve them, with a profile's parsed TOML document over the recorded
        card. Raises ``InputError``."""
        tables = fields.table(document, "the profile")
        batching = fields.table(tables.get("batching", {}), "[batching]")
        card = parse(self._filled(tables, header))
        return RecordedCosts(
            budget=card.budget,
            links=card.links,
            links_naive=card.links_naive if "links_naive" in tables else card.links,
            copy_slowdown=card.copy_slowdown,
            paused_bytes=card.paused_bytes,
            slo_seconds=card.slo_seconds,
            components=card.components,
            demands={
                job: self._demand(demand, card.paused_bytes, batching)
                for job, demand in self._kept().items()
            },
        )

    def _kept(self) -> dict[str, Demand]:
        outcomes = self._outcomes
        return {j: d for j, d in self._demands.items() if outcomes.get(j) not in _LEFT_OUT}

    def _demand(self, demand: Demand, state_bytes: int, batching: Mapping[str, Any]) -> Demand:
        phases = (
            self._phase(demand.job, number, phase, state_bytes, batching)
            for number, phase in enumerate(demand.phases)
        )
        # Whoever follows another comes in the moment in which that one ends: nobody waits for it.
        return replace(demand, phases=tuple(phases), follows=None, followed=False)

    def _phase(
        self, job: str, number: int, phase: Phase, state_bytes: int, batching: Mapping[str, Any]
    ) -> Phase:
        expected = phase.steps_expected
        if expected is None and self._demands[job].kind == "text":
            expected = phase.steps  # nothing was learned yet of how long such texts are
        if expected is not None:
            # The machine takes every step: of a text those that it had, or was expected to have.
            steps = max(1, min(phase.steps, self._watch.steps.get((job, number), expected)))
            seconds = phase.step_seconds * steps
            phase = replace(phase, seconds=seconds, steps=steps, steps_expected=None)
        measured = self._watch.measured.get((job, number))
        if measured is not None:
            phase = replace(phase, seconds=measured, seconds_p90=None)
        sharing = phase.sharing and _shared(phase.sharing, batching)
        return replace(phase, sharing=sharing, state_bytes_max=state_bytes)

    def _filled(self, tables: Mapping[str, Any], header: Header) -> dict[str, Any]:
        """The profile with what it does not say; of phases, and of components that the recording
        does not know, it has nothing to say here."""
        recorded: dict[str, dict[str, Any]] = {
            "device": {
                "vram_bytes": header.budget.device_bytes,
                "host_pinned_bytes": header.budget.host_bytes,
                "paused_bytes": self._watch.state_bytes_max,
            },
            "links": {
                "disk_to_host": header.links.disk_to_host,
                "host_to_device": header.links.host_to_device,
                "fixed_seconds": header.links.fixed_seconds,
            },
            "links_naive": {"disk_to_device": header.links.disk_to_host},
        }
        filled = {
            name: {**table, **fields.table(tables.get(name, {}), f"[{name}]")}
            for name, table in recorded.items()
        }
        sizes = fields.table(tables.get("components", {}), "[components]")
        filled["components"] = {
            c.name: sizes.get(c.name, c.weight_bytes) for c in header.components
        }
        nothing = {"types": [], "name": "recorded", "components": []}
        said = {name: table for name, table in tables.items() if name != "batching"}
        return {**said, **filled, "phase": [nothing]}


class _Watch:
    """What ran, and whether it ran alone."""

    def __init__(self) -> None:
        self.measured: dict[tuple[str, int], float] = {}
        self.steps: dict[tuple[str, int], int] = {}
        self.state_bytes_max = 0
        self._moving: set[str] = set()
        self._began: dict[Lease, float] = {}
        self._disturbed: dict[Lease, bool] = {}

    def ordered(self, command: m.Command, now: float) -> None:
        match command:
            case m.Stage(component) | m.Load(component):
                self._moving.add(component)
                self._disturb()
            case m.Start(lease) | m.Resume(lease):
                beside = bool(self._began)
                self._disturb()
                self._began[lease] = now
                partial = isinstance(command, m.Resume)
                self._disturbed[lease] = beside or partial or bool(self._moving)

    def saw(self, event: m.Event, now: float) -> None:
        match event:
            case m.StepReached(lease, step):
                self.steps[lease.job, lease.phase] = step
            case m.PhaseFinished(lease, state_bytes):
                began, disturbed = self._end(lease)
                if began is not None and not disturbed:
                    self.measured[lease.job, lease.phase] = now - began
                self.state_bytes_max = max(self.state_bytes_max, state_bytes)
            case m.Paused(lease, _, state_bytes):
                self._end(lease)
                self.state_bytes_max = max(self.state_bytes_max, state_bytes)
            case m.RunCancelled(lease) | m.RunFailed(lease):
                self._end(lease)
            case (
                m.StageSucceeded(component)
                | m.LoadSucceeded(component)
                | m.StageFailed(component)
                | m.LoadFailed(component)
                | m.Aborted(component)
            ):
                self._moving.discard(component)

    def _end(self, lease: Lease) -> tuple[float | None, bool]:
        return self._began.pop(lease, None), self._disturbed.pop(lease, True)

    def _disturb(self) -> None:
        self._disturbed = dict.fromkeys(self._disturbed, True)


def _type_of(demand: Demand) -> str:
    if demand.kind not in _TYPES:
        allowed = ", ".join(_TYPES)
        raise InputError(f"job {demand.job}: kind is {demand.kind!r}, allowed: {allowed}")
    return _TYPES[demand.kind]


def _shared(sharing: Sharing, batching: Mapping[str, Any]) -> Sharing:
    """Texts join in the middle of a phase, images do not."""
    kind = "text" if sharing.mid_phase else "image"
    most = fields.count(batching, f"{kind}_max", "[batching]", sharing.units_max)
    exponent = fields.number(batching, f"{kind}_exponent", "[batching]", sharing.exponent)
    return replace(sharing, units_max=max(most, sharing.units), exponent=exponent)
