"""The nouns of the scheduler: what is asked for, what is resident, what it costs.

Bytes are exact integers, times are seconds as floats on one monotonic axis that the caller owns.
Nothing here knows a prompt, a tensor or a clock.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import Enum


def _require(holds: bool, where: str, value: object, allowed: str) -> None:
    if not holds:
        raise ValueError(f"{where} is {value!r}, allowed: {allowed}")


def _finite(value: float, where: str, low: float = -math.inf) -> None:
    allowed = "a finite number" if low == -math.inf else f"a finite number from {low}"
    _require(math.isfinite(value) and value >= low, where, value, allowed)


class Tier(Enum):
    """Where a component is; the moves between tiers are a table in ``scheduler.residency``.

    Its bytes count on the device while LOADING, RESIDENT and EVICTING, and on the host from
    STAGING until it is ABSENT again: the host master stays while the device copy lives. A FAILED
    component holds host bytes only if it was the load that failed, not the staging.
    """

    ABSENT = "absent"
    STAGING = "staging"
    STAGED = "staged"
    LOADING = "loading"
    RESIDENT = "resident"
    EVICTING = "evicting"
    UNSTAGING = "unstaging"
    FAILED = "failed"


@dataclass(frozen=True, slots=True)
class Component:
    """The unit of residency: one module's weights, e.g. ``sdxl.unet``."""

    name: str
    weight_bytes: int

    def __post_init__(self) -> None:
        _require(bool(self.name), "component.name", self.name, "a name")
        _finite(self.weight_bytes, f"component {self.name}: weight_bytes", 0)


@dataclass(frozen=True, slots=True)
class Sharing:
    """With whom a phase may run together: phases of other jobs with the same ``key``, which need
    the same components.

    ``units`` is what this job brings (a text 1, an image job its images); a run takes at most
    ``units_max``. A step of ``n`` units takes ``(n / units) ** exponent`` times as long as the
    phase's own. With ``mid_phase`` a job may join at any step boundary, else only those that have
    done the same steps run together.
    """

    key: str
    units: int
    units_max: int
    exponent: float
    mid_phase: bool

    def __post_init__(self) -> None:
        _require(bool(self.key), "sharing.key", self.key, "a name")
        _finite(self.units, f"sharing {self.key}: units", 1)
        _finite(self.units_max, f"sharing {self.key}: units_max", 1)
        # Beyond 1 it would be quicker to run one after the other.
        allowed = "0 to 1"
        _require(0 <= self.exponent <= 1, f"sharing {self.key}: exponent", self.exponent, allowed)

    def factor(self, units: int) -> float:
        """How much longer a step of so many units takes than one of this job alone."""
        return float((units / self.units) ** self.exponent)


@dataclass(frozen=True, slots=True)
class Phase:
    """A stretch of work that needs these components together.

    ``working_bytes`` are the activations' peak for this job's shape, on top of the weights;
    ``seconds`` is the expected duration of the whole phase when it runs alone, ``seconds_p90`` its
    90th percentile where that is known, ``steps`` its step boundaries. ``state_bytes_max`` bounds
    what the job carries on the device at any of the phase's step boundaries and at its end;
    ``None`` stands for what it carried into the phase plus ``working_bytes``. A tighter bound lets
    more jobs be begun at the same time. ``sharing`` is ``None`` where it must run alone. A phase
    that may end before its last step has ``steps_expected``, which its ``seconds`` are for.
    """

    name: str
    components: tuple[str, ...]
    working_bytes: int
    seconds: float
    steps: int
    state_bytes_max: int | None = None
    sharing: Sharing | None = None
    seconds_p90: float | None = None
    steps_expected: int | None = None

    def __post_init__(self) -> None:
        where = f"phase {self.name}: "
        _finite(self.working_bytes, where + "working_bytes", 0)
        _finite(self.seconds, where + "seconds", 0)
        _finite(self.steps, where + "steps", 0)
        if self.state_bytes_max is not None:
            _finite(self.state_bytes_max, where + "state_bytes_max", 0)
        if self.seconds_p90 is not None:
            _finite(self.seconds_p90, where + "seconds_p90", 0)
        if self.steps_expected is not None:
            _finite(self.steps_expected, where + "steps_expected", 1)

    @property
    def step_seconds(self) -> float:
        return self.seconds / (self.steps_expected or max(1, self.steps))


@dataclass(frozen=True, slots=True)
class Demand:
    """What the scheduler sees of a job. ``job`` is unique; ``arrival`` counts for ageing.

    ``job_class`` has a weight in the settings. ``kind`` is what is made (a text, an image, a
    video): users take turns within a kind, and each has its share of the device. ``followed``:
    another job, which names it in ``follows``, arrives as soon as this one has finished.
    """

    job: str
    phases: tuple[Phase, ...]
    job_class: str
    user: str
    arrival: float
    deadline: float | None = None
    kind: str = ""
    follows: str | None = None
    followed: bool = False

    def __post_init__(self) -> None:
        _require(bool(self.job), "demand.job", self.job, "an id")
        _finite(self.arrival, f"job {self.job}: arrival")
        if self.deadline is not None:
            _finite(self.deadline, f"job {self.job}: deadline")


@dataclass(frozen=True, slots=True)
class Budget:
    """What the ledger may give out, on the card and in (pinned) host memory."""

    device_bytes: int
    host_bytes: int

    def __post_init__(self) -> None:
        _finite(self.device_bytes, "budget.device_bytes", 0)
        _finite(self.host_bytes, "budget.host_bytes", 0)


@dataclass(frozen=True, slots=True)
class Links:
    """Bytes per second of each link, and the fixed cost of one transfer in seconds."""

    disk_to_host: float
    host_to_device: float
    fixed_seconds: float

    def __post_init__(self) -> None:
        for name in ("disk_to_host", "host_to_device"):
            rate = getattr(self, name)
            _require(math.isfinite(rate) and rate > 0, f"links.{name}", rate, "above 0")
        _finite(self.fixed_seconds, "links.fixed_seconds", 0)

    def stage_seconds(self, size: int) -> float:
        return self.fixed_seconds + size / self.disk_to_host

    def load_seconds(self, size: int) -> float:
        return self.fixed_seconds + size / self.host_to_device


@dataclass(frozen=True, slots=True)
class PolicySettings:
    """In which order jobs run; ``scheduler.policy_priced`` says what each of these does.

    ``late_ageing`` is the one to move along the frontier between mean flow and the tail of long
    jobs: seconds of work that a second of lateness outweighs. The switches turn single ingredients
    off, to see what each is worth.
    """

    ageing_seconds: float = 300.0
    late_ageing: float = 0.0
    wait_seconds_max: float = 10_800.0
    margin_seconds: float = 8.0
    discount: float = 0.55
    discount_seconds_max: float = 12.0
    hysteresis_seconds: float = 0.2
    turn_seconds: float = 0.3
    share_floor: float = 0.02
    share_seconds: float = 10.0
    price_set_ups: bool = True
    preempt: bool = True
    prefetch: bool = True
    share_texts: bool = True
    share_images: bool = True

    def __post_init__(self) -> None:
        for name in ("ageing_seconds", "wait_seconds_max", "share_seconds"):
            # Less is no time in which anything happens, and makes numbers too large to tell apart.
            _finite(getattr(self, name), f"policy.{name}", 0.1)
        for name in ("late_ageing", "margin_seconds", "discount_seconds_max", "turn_seconds"):
            _finite(getattr(self, name), f"policy.{name}", 0)
        _finite(self.hysteresis_seconds, "policy.hysteresis_seconds", 0)
        for name in ("discount", "share_floor"):
            value = getattr(self, name)
            _require(0 <= value <= 1, f"policy.{name}", value, "0 to 1")


@dataclass(frozen=True, slots=True)
class SchedulerSettings:
    """``waiting_jobs_max`` is what ``credit`` counts down from. ``load_attempts_max`` bounds the
    tries in a row to stage or load a component, after which it is left alone for
    ``load_retry_seconds``. The device waits up to ``follow_seconds`` for a job that follows one.
    ``class_weights`` divide a job's seconds; a class that is not named weighs 1.
    """

    waiting_jobs_max: int
    load_attempts_max: int
    load_retry_seconds: float
    follow_seconds: float = 0.25
    class_weights: Mapping[str, float] = field(default_factory=dict)
    policy: PolicySettings = field(default_factory=PolicySettings)

    def __post_init__(self) -> None:
        value = self.load_retry_seconds
        allowed = "a finite number above 0"
        _require(math.isfinite(value) and value > 0, "settings.load_retry_seconds", value, allowed)
        _finite(self.follow_seconds, "settings.follow_seconds", 0)
        _finite(self.waiting_jobs_max, "settings.waiting_jobs_max", 1)
        _finite(self.load_attempts_max, "settings.load_attempts_max", 1)
        for name, weight in self.class_weights.items():
            where = f"settings.class_weights.{name}"
            _require(math.isfinite(weight) and weight > 0, where, weight, "above 0")


@dataclass(frozen=True, slots=True)
class Lease:
    """A job's right to the device and its working bytes, for one ``Start`` or ``Resume``.

    Made by that command and ended only by that command's terminal event, never by a request.
    ``id`` is unique in the scheduler's life; a terminal event of another lease is stale.
    """

    id: int
    job: str
    phase: int


class Outcome(Enum):
    """How a job left the scheduler. Exactly one for every job that arrived."""

    FINISHED = "finished"
    FAILED = "failed"
    CANCELLED = "cancelled"
    REFUSED = "refused"


class Fault(Enum):
    """Why a command failed, as far as the scheduler must know. SHARED: a step that several jobs
    took together failed, and nobody knows yet which of them is to blame."""

    SHARED = "shared"
    OUT_OF_MEMORY = "out_of_memory"
    LOAD = "load"
    RUN = "run"
    TOO_LARGE = "too_large"
    UNKNOWN_COMPONENT = "unknown_component"
