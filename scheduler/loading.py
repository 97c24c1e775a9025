"""Component commands on their way: issued, ended, tried again, given up."""

from __future__ import annotations

from dataclasses import dataclass

from scheduler import messages as m
from scheduler.index import Index
from scheduler.residency import Failure, Residency
from scheduler.types import Fault, SchedulerSettings, Tier

_ISSUED: dict[type[m.Move], Tier] = {
    m.Stage: Tier.STAGING,
    m.Load: Tier.LOADING,
    m.Evict: Tier.EVICTING,
    m.Unstage: Tier.UNSTAGING,
}
_ENDED: dict[type[m.Moved], tuple[Tier, Tier]] = {
    m.StageSucceeded: (Tier.STAGING, Tier.STAGED),
    m.StageFailed: (Tier.STAGING, Tier.ABSENT),
    m.LoadSucceeded: (Tier.LOADING, Tier.RESIDENT),
    m.LoadFailed: (Tier.LOADING, Tier.STAGED),
    m.Evicted: (Tier.EVICTING, Tier.STAGED),
    m.Unstaged: (Tier.UNSTAGING, Tier.ABSENT),
}
_ABORTED = {Tier.STAGING: Tier.ABSENT, Tier.LOADING: Tier.STAGED}


@dataclass(frozen=True, slots=True)
class Ended:
    """A command has ended; ``fault`` if it failed, ``given_up`` if it was the last attempt."""

    residency: Residency
    fault: Fault | None = None
    given_up: bool = False


class Loading:
    def __init__(self, index: Index, settings: SchedulerSettings) -> None:
        self._index = index
        self._settings = settings

    @property
    def retry_at(self) -> float | None:
        """When the next failed component may be tried again."""
        failures = (r.failure for r in self._index.residencies.values())
        return min((f.until for f in failures if f is not None), default=None)

    @property
    def transfers(self) -> list[Residency]:
        """What is on its way to the host or to the device."""
        return [
            r for r in self._index.residencies.values() if r.tier in (Tier.STAGING, Tier.LOADING)
        ]

    def issue(self, move: m.Move, owner: str, *, ahead: bool) -> None:
        """``ahead``: it is brought in for later, and may be called off."""
        residency = self._index.residencies[move.component]
        self._index.move(residency, _ISSUED[type(move)], owner, ahead=ahead)

    def end(self, event: m.Moved, now: float) -> Ended | None:
        """Take a terminal event in. ``None`` if no such command is in flight."""
        residency = self._index.residencies.get(event.component)
        if isinstance(event, m.Aborted):
            return None if residency is None else self._aborted(residency)
        expected, tier = _ENDED[type(event)]
        if residency is None or residency.tier is not expected:
            return None
        if isinstance(event, m.StageFailed | m.LoadFailed):
            return self._failed(residency, event, now)
        residency.failures = 0
        failed = residency.failure is not None  # and its master was unstaged for room
        self._index.move(residency, Tier.FAILED if failed else tier)
        return Ended(residency)

    def _aborted(self, residency: Residency) -> Ended | None:
        if not residency.aborting:
            return None
        self._index.move(residency, _ABORTED[residency.tier])
        return Ended(residency)

    def _failed(
        self, residency: Residency, event: m.StageFailed | m.LoadFailed, now: float
    ) -> Ended:
        _, again = _ENDED[type(event)]
        permanent = isinstance(event, m.StageFailed) and event.permanent
        residency.failures += 1
        given_up = permanent or residency.failures >= self._settings.load_attempts_max
        if given_up:
            until = now + self._settings.load_retry_seconds
            residency.failure = Failure(event.detail, permanent, until)
        self._index.move(residency, Tier.FAILED if given_up else again)
        fault = event.fault if isinstance(event, m.LoadFailed) else Fault.LOAD
        return Ended(residency, fault, given_up)

    def forget_failures(self, now: float) -> None:
        """Components whose failure's time is over may be tried again, as often as at first."""
        for residency in self._index.residencies.values():
            if residency.failure is not None and residency.failure.until <= now:
                residency.failure = None
                residency.failures = 0
                if residency.tier is Tier.FAILED:
                    tier = Tier.STAGED if residency.master else Tier.ABSENT
                    self._index.move(residency, tier)
