"""The nouns of the scheduler: what is asked for, what is resident, what it costs.

Bytes are exact integers, times are seconds as floats on one monotonic axis that the caller owns.
Nothing here knows a prompt, a tensor or a clock.
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import Enum


class Tier(Enum):
    """Where a component is. Its bytes are counted in every state but ABSENT (host) and in
    LOADING, RESIDENT and EVICTING (device); the host master stays while the device copy lives."""

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


@dataclass(frozen=True, slots=True)
class Phase:
    """A stretch of work that needs these components together.

    ``working_bytes`` are the activations' peak for this job's shape, on top of the weights;
    ``seconds`` is the expected duration of the whole phase, ``steps`` its step boundaries.
    """

    name: str
    components: tuple[str, ...]
    working_bytes: int
    seconds: float
    steps: int


@dataclass(frozen=True, slots=True)
class Demand:
    """What the scheduler sees of a job. ``job`` is unique; ``arrival`` counts for ageing."""

    job: str
    phases: tuple[Phase, ...]
    job_class: str
    user: str
    arrival: float
    deadline: float | None = None


@dataclass(frozen=True, slots=True)
class Budget:
    """What the ledger may give out, on the card and in (pinned) host memory."""

    device_bytes: int
    host_bytes: int


@dataclass(frozen=True, slots=True)
class Links:
    """Bytes per second of each link, and the fixed cost of one transfer in seconds."""

    disk_to_host: float
    host_to_device: float
    fixed_seconds: float

    def stage_seconds(self, size: int) -> float:
        return self.fixed_seconds + size / self.disk_to_host

    def load_seconds(self, size: int) -> float:
        return self.fixed_seconds + size / self.host_to_device


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
    """Why a command failed, as far as the scheduler must know."""

    OUT_OF_MEMORY = "out_of_memory"
    LOAD = "load"
    RUN = "run"
    TOO_LARGE = "too_large"
    UNKNOWN_COMPONENT = "unknown_component"
