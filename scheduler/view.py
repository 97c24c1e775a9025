"""What a policy sees, and all it sees: reading it changes nothing."""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping, Sequence
from typing import Protocol

from scheduler.types import Demand, Sharing


class JobView(Protocol):
    """A job that is present. ``needs`` are the components of its remaining phases, in the order of
    first use; ``remaining_seconds`` leaves out set-ups, as it does company; ``begun`` says that its
    first phase was started; ``rank`` and ``lane`` are what the policy's ``place`` returned last,
    when ``placed_seconds`` were left to run; ``turn`` counts the jobs of the same user and kind
    that were there when it arrived; ``sharing`` is that of its current phase, ``None`` if it must
    run alone."""

    @property
    def id(self) -> str: ...
    @property
    def demand(self) -> Demand: ...
    @property
    def weight(self) -> float: ...
    @property
    def phase(self) -> int: ...
    @property
    def step(self) -> int: ...
    @property
    def begun(self) -> bool: ...
    @property
    def needs(self) -> tuple[str, ...]: ...
    @property
    def remaining_seconds(self) -> float: ...
    @property
    def sharing(self) -> Sharing | None: ...
    @property
    def rank(self) -> float: ...
    @property
    def lane(self) -> int: ...
    @property
    def placed_seconds(self) -> float: ...
    @property
    def turn(self) -> int: ...


class GroupView(Protocol):
    """Waiting jobs that need the same components, weigh the same, are of one kind and stand in the
    same lane, so that within the group the policy's rank alone decides."""

    @property
    def needs(self) -> tuple[str, ...]: ...
    @property
    def weight(self) -> float: ...
    @property
    def kind(self) -> str: ...
    @property
    def lane(self) -> int: ...
    def jobs(self) -> Iterator[JobView]:
        """By rank, then arrival, then id."""


class View(Protocol):
    """The core's index. Everything here is kept up to date incrementally, or is cheap."""

    @property
    def running(self) -> Sequence[JobView]:
        """The jobs whose leases live: one, or several that share a run."""

    @property
    def begun(self) -> Mapping[str, JobView]:
        """Those whose first phase was started. They are few: the device has room for the states of
        all."""

    @property
    def waiting_count(self) -> int:
        """How many do not run."""

    def waiting(self) -> Iterator[JobView]:
        """All that do not run, by ``demand.arrival``, then id."""

    def groups(self) -> Iterator[GroupView]:
        """The waiting jobs in groups; no group is empty."""

    def sharers(self, job: JobView) -> Iterator[JobView]:
        """The waiting jobs that could share a run of this one's current phase now, by lane, the
        highest first, and rank."""

    def coming_sharers(self, job: JobView) -> Iterator[JobView]:
        """The waiting jobs whose next phase could share a run of this one's current one."""

    def resident(self, component: str) -> bool:
        """It is on the device, or on its way there."""

    def setup_seconds(self, needs: tuple[str, ...]) -> float:
        """Seconds to stage and load what of these is not on the device, as things are."""

    def pausing(self, run: JobView) -> bool:
        """A running job was asked to pause."""

    def way_back_seconds(self, run: JobView, job: JobView) -> float:
        """Seconds to load again what a run uses, if that cannot stay while the job's next phase
        runs in its place."""

    def unserved_since(self, kind: str) -> float | None:
        """Since when the kind's jobs have had no share of the device; ``None`` if none waits."""

    def next_served(self) -> float:
        """When a kind that waits will have had its share, if what runs goes on; infinity if
        never."""

    @property
    def kinds(self) -> Collection[str]:
        """The kinds of the jobs that wait."""

    def blocked(self, needs: Sequence[str]) -> bool:
        """One of these has failed and may not be tried again yet."""

    def admits(self, job: JobView) -> bool:
        """Its state, and that of whoever would have to be paused for it, is sure to find room. Only
        such a job may be chosen."""
