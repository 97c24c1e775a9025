"""Where each component is, as a table.

Theory of operation. A component's weights lie on disk (ABSENT). A ``Stage`` reads them into one
immutable host master (STAGING, then STAGED), a ``Load`` copies the master to the device (LOADING,
then RESIDENT), an ``Evict`` drops the device copy (EVICTING) and leaves it STAGED, an ``Unstage``
drops the master (UNSTAGING). Every state in -ING is one command in flight: its ``owner`` is the job
for which it was issued, and only its terminal event ends it. Bytes are reserved when the command is
issued and freed when its terminal event has come, so they follow from the state alone.

A stage or load that fails is tried again (ABSENT, STAGED) until the attempts are used up; then
the component is FAILED, with its ``failure``, until that failure's time is over. A FAILED
component's master may be unstaged to make room, which does not end the failure.

=========  ===========================
state      may become
=========  ===========================
absent     staging
staging    staged, absent, failed
staged     loading, unstaging
loading    resident, staged, failed
resident   evicting
evicting   staged
unstaging  absent, failed
failed     absent, staged, unstaging
=========  ===========================
"""

from __future__ import annotations

from dataclasses import dataclass

from scheduler.errors import IllegalMove
from scheduler.types import Component, Tier

_T = Tier
MOVES: dict[Tier, tuple[Tier, ...]] = {
    _T.ABSENT: (_T.STAGING,),
    _T.STAGING: (_T.STAGED, _T.ABSENT, _T.FAILED),
    _T.STAGED: (_T.LOADING, _T.UNSTAGING),
    _T.LOADING: (_T.RESIDENT, _T.STAGED, _T.FAILED),
    _T.RESIDENT: (_T.EVICTING,),
    _T.EVICTING: (_T.STAGED,),
    _T.UNSTAGING: (_T.ABSENT, _T.FAILED),
    _T.FAILED: (_T.ABSENT, _T.STAGED, _T.UNSTAGING),
}
# Long against a burst of jobs, short against a day's change of what is asked for.
USE_HALF_LIFE_SECONDS = 3600.0
IN_FLIGHT = (_T.STAGING, _T.LOADING, _T.EVICTING, _T.UNSTAGING)
ON_DEVICE = (_T.LOADING, _T.RESIDENT, _T.EVICTING)


@dataclass(frozen=True, slots=True)
class Failure:
    """Why a component cannot be had before ``until``. ``permanent``: trying again is no use."""

    detail: str
    permanent: bool
    until: float


@dataclass(slots=True, eq=False)
class Residency:
    """One component's place. ``master``: its host bytes are taken. ``failures`` in a row. ``uses``
    is how often runs began with it, as of ``last_used``, the older ones fading; ``ahead``: it is
    being brought in for later, ``aborting``: and was called off."""

    component: Component
    tier: Tier = Tier.ABSENT
    master: bool = False
    owner: str = ""
    last_used: float = 0.0
    uses: float = 0.0
    ahead: bool = False
    aborting: bool = False
    failures: int = 0
    failure: Failure | None = None

    @property
    def name(self) -> str:
        return self.component.name

    @property
    def size(self) -> int:
        return self.component.weight_bytes

    @property
    def in_flight(self) -> bool:
        return self.tier in IN_FLIGHT

    @property
    def on_device(self) -> bool:
        """Its device bytes are taken."""
        return self.tier in ON_DEVICE

    @property
    def unstageable(self) -> bool:
        """It has a master that nothing uses."""
        return self.tier is Tier.STAGED or (self.tier is Tier.FAILED and self.master)

    def move(self, tier: Tier, owner: str = "") -> None:
        """Raises ``IllegalMove`` with the story unless the table allows it."""
        if tier not in MOVES[self.tier]:
            allowed = ", ".join(t.value for t in MOVES[self.tier])
            raise IllegalMove(
                f"component {self.name}: {self.tier.value} -> {tier.value}; "
                f"{self.tier.value} may become {allowed} (owner {self.owner or 'nobody'}, "
                f"{self.failures} failures, {self.failure})"
            )
        dropped = tier is Tier.ABSENT or (tier is Tier.FAILED and self.tier is not Tier.LOADING)
        self.master = not dropped
        self.tier = tier
        self.owner = owner
        self.ahead = self.aborting = False

    def use(self, now: float) -> None:
        """A run begins with it."""
        self.uses, self.last_used = self.worth(now) + 1.0, now

    def worth(self, now: float) -> float:
        """How often it was used of late: an hour halves a use's weight."""
        age = max(0.0, now - self.last_used)
        return float(self.uses * 0.5 ** (age / USE_HALF_LIFE_SECONDS))
