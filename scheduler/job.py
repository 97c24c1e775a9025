"""A job inside the scheduler: where it stands, what is left of it, what it may still claim.

Theory of operation. A job is WAITING from its arrival until its first ``Start``, and again between
its phases; RUNNING while a lease of its lives; PAUSED when a run ended at a step boundary inside a
phase. A RUNNING job goes back to where it stood if its run was out of memory and may be tried
again. SETTLED is the end, and there is exactly one way out of the scheduler for every job.

=======  ==========================
state    may become
=======  ==========================
waiting  running, settled
running  waiting, paused, settled
paused   running, settled
settled
=======  ==========================

Once *begun* (its first ``Start`` was issued) a job carries state on the device whenever it does not
run, until it is settled. Claims keep begun jobs from locking each other out: a set of them is
*safe* if each, with the device to itself but for the state of all others, could run any phase it
has left. A job is begun only into a safe set, and claims only shrink as phases go by, so that at
any time every begun job can go on, in any order. A job that is alone may always begin: it was not
refused. Where a state outgrows its claim all this no longer holds: then whoever still fits goes on,
and if nobody does, the job that needs most fails.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from enum import Enum
from typing import NamedTuple

from scheduler.errors import IllegalMove
from scheduler.types import Budget, Demand, Fault, Lease, Phase, Sharing

# How much longer than expected a phase may take, one time in ten, where nothing is known of it.
_SPREAD = 0.25


class Standing(Enum):
    WAITING = "waiting"
    RUNNING = "running"
    PAUSED = "paused"
    SETTLED = "settled"


_S = Standing
MOVES: dict[Standing, tuple[Standing, ...]] = {
    _S.WAITING: (_S.RUNNING, _S.SETTLED),
    _S.RUNNING: (_S.WAITING, _S.PAUSED, _S.SETTLED),
    _S.PAUSED: (_S.RUNNING, _S.SETTLED),
    _S.SETTLED: (),
}


class Claim(NamedTuple):
    """What a job may still ask of the device, in bytes.

    ``held``: the most state it may carry between two of its runs; ``peak``: the most that one of
    its runs takes, with the state it carries into it.
    """

    held: int
    peak: int


class Job:
    """A demand and its progress. ``phase`` is the one being run or next to run, ``step`` the steps
    done in it. ``carried`` is its state on the device, of which ``owed`` bytes found no room in
    the ledger yet; ``entry`` is what it carried into the phase. ``alone``: its last run was out of
    memory, the next has the device to itself; ``solo``: it shares no run any more. ``claimed`` is
    what the job may still ask as of when it began to wait or to run. ``rank`` and ``lane`` are the
    policy's, as of its latest ``placing``, when ``placed_seconds`` of it were left; it ``waits``
    while it stands there. ``turn`` counts the jobs of the same user and kind that were there when
    it arrived."""

    __slots__ = (
        "_needs_from",
        "_seconds_after",
        "_spread_from",
        "alone",
        "begun",
        "carried",
        "claimed",
        "components",
        "demand",
        "entry",
        "id",
        "lane",
        "owed",
        "phase",
        "placed_seconds",
        "placing",
        "rank",
        "run_bytes",
        "solo",
        "standing",
        "step",
        "turn",
        "waits",
        "weight",
    )

    def __init__(self, demand: Demand, sizes: Mapping[str, int], weight: float) -> None:
        self.id = demand.job
        self.demand = demand
        self.weight = weight
        self.standing = Standing.WAITING
        self.phase = 0
        self.step = 0
        self.carried = self.owed = self.entry = 0
        self.begun = self.alone = self.solo = self.waits = False
        self.rank = self.placed_seconds = 0.0
        self.lane = self.placing = self.turn = 0
        self.components = tuple(tuple(dict.fromkeys(p.components)) for p in demand.phases)
        self.run_bytes = tuple(phase_bytes(p, sizes)[0] for p in demand.phases)
        needs: tuple[str, ...] = ()
        seconds = spread = 0.0
        needs_from, seconds_after, spread_from = [], [], []
        for phase, components in zip(
            reversed(demand.phases), reversed(self.components), strict=True
        ):
            needs = tuple(dict.fromkeys(components + needs))
            needs_from.append(needs)
            seconds_after.append(seconds)
            seconds += phase.seconds
            spread += _spread(phase)
            spread_from.append(spread)
        self._needs_from = tuple(reversed(needs_from))
        self._seconds_after = tuple(reversed(seconds_after))
        self._spread_from = tuple(reversed(spread_from))
        self.claimed = Claim(0, 0)

    @property
    def current(self) -> Phase:
        return self.demand.phases[self.phase]

    @property
    def last_phase(self) -> bool:
        return self.phase == len(self.demand.phases) - 1

    @property
    def sharing(self) -> Sharing | None:
        """With whom the current phase may run; ``None`` if it must run alone."""
        return None if self.solo else self.current.sharing

    @property
    def needs(self) -> tuple[str, ...]:
        """The components of the phases that are left, in the order of first use."""
        return self._needs_from[self.phase]

    @property
    def phase_seconds(self) -> float:
        """Expected seconds left of the current phase; those of a step, where it goes on beyond the
        steps that were expected."""
        phase = self.current
        if phase.steps_expected is not None:
            return max(1, phase.steps_expected - self.step) * phase.step_seconds
        done = self.step / phase.steps if phase.steps else 0.0
        return phase.seconds * (1.0 - done)

    @property
    def remaining_seconds(self) -> float:
        """Expected seconds of running that are left, over all phases."""
        return self.phase_seconds + self._seconds_after[self.phase]

    @property
    def spread_seconds(self) -> float:
        """By how much what is left may take longer, one time in ten."""
        return self._spread_from[self.phase]

    def reach(self, step: int) -> None:
        """Note the steps done; a step that comes late changes nothing."""
        self.step = max(self.step, min(step, self.current.steps))

    def next_phase(self) -> None:
        self.phase += 1
        self.step = 0
        self.alone = False

    def move(self, standing: Standing) -> None:
        """Raises ``IllegalMove`` with the story unless the table allows it."""
        if standing not in MOVES[self.standing]:
            allowed = ", ".join(s.value for s in MOVES[self.standing]) or "nothing"
            raise IllegalMove(
                f"job {self.id}: {self.standing.value} -> {standing.value}; "
                f"{self.standing.value} may become {allowed} (phase {self.phase}, step {self.step})"
            )
        self.standing = standing

    def claim(self, *, pausing: bool = False) -> Claim:
        """What it may still ask, if its current run is paused (``pausing``) or is not."""
        carried, entry = self.carried, self.entry
        held, peak = carried, 0
        for index in range(self.phase, len(self.demand.phases)):
            phase = self.demand.phases[index]
            bound = phase.state_bytes_max
            if bound is None:
                bound = entry + phase.working_bytes
            if pausing and index == self.phase:
                carried = max(carried, bound)
                held = max(held, carried)
            peak = max(peak, carried + self.run_bytes[index])
            if index < len(self.demand.phases) - 1:
                held = max(held, bound)
            carried = entry = bound
        return Claim(held, peak)


@dataclass(slots=True)
class Run:
    """A lease that lives, in the run ``number``, perhaps beside others. ``since``: when its step
    was last known; ``resumed``: a ``Resume``."""

    lease: Lease
    job: Job
    number: int
    since: float
    resumed: bool
    first_step: int
    pausing: bool = False
    cancelling: bool = False


def _spread(phase: Phase) -> float:
    late = phase.seconds_p90
    return _SPREAD * phase.seconds if late is None else max(0.0, late - phase.seconds)


def phase_bytes(phase: Phase, sizes: Mapping[str, int]) -> tuple[int, int]:
    """What a phase takes on the device, and on the host. Raises ``KeyError``."""
    weights = sum(sizes[name] for name in dict.fromkeys(phase.components))
    return weights + phase.working_bytes, weights


def refusal(
    demand: Demand, sizes: Mapping[str, int], budget: Budget
) -> tuple[Fault | None, str] | None:
    """Why a demand can never be met, or ``None`` if it can."""
    if not demand.phases:
        return None, "the demand has no phases"
    for phase in demand.phases:
        for name in phase.components:
            if name not in sizes:
                known = ", ".join(sorted(sizes))
                detail = f"phase {phase.name} needs component {name}, known: {known}"
                return Fault.UNKNOWN_COMPONENT, detail
        device, host = phase_bytes(phase, sizes)
        if device > budget.device_bytes:
            return Fault.TOO_LARGE, (
                f"phase {phase.name} needs {device} bytes on the device "
                f"({host} of weights, {phase.working_bytes} to work in), "
                f"the budget is {budget.device_bytes}"
            )
        if host > budget.host_bytes:
            return Fault.TOO_LARGE, (
                f"phase {phase.name} needs {host} bytes of weights on the host, "
                f"the budget is {budget.host_bytes}"
            )
    return None
