"""How to get components in: what to evict, unstage, stage and load, and in which order.

Pure functions of where things are. Asked again after every event, they return the commands that may
be issued now; what has been issued shows in the tiers, so nothing is issued twice.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass
from enum import Enum

from scheduler.messages import Evict, Load, Move, Stage, Unstage
from scheduler.residency import Residency
from scheduler.types import Tier


class Eviction(Enum):
    """What goes first when the device lacks room.

    PRICED: what costs least to bring back, for those who wait for it, then by how often it is used,
    and no more than must go. RECENCY: what was used least recently, until there is room. UNWAITED:
    the same, but what somebody waits for last. FAMILY: all of another family than what is wanted
    (the name up to the first dot), room or not; then by RECENCY.
    """

    PRICED = "priced"
    RECENCY = "recency"
    UNWAITED = "unwaited"
    FAMILY = "family"


Price = tuple[float, float, float, str]


@dataclass(frozen=True, slots=True)
class Want:
    """What must be on the device together, with room to work. ``clear``: and nothing else."""

    components: tuple[str, ...]
    working_bytes: int
    clear: bool = False


@dataclass(frozen=True, slots=True)
class Shelf:
    """Where everything is, what is free, and what is to be ``kept``."""

    residencies: Mapping[str, Residency]
    device_free: int
    host_free: int
    kept: Collection[str]
    waiters: Callable[[str], int]
    load_seconds: Callable[[Residency], float]
    reload_seconds: Callable[[Residency], float]
    now: float
    eviction: Eviction = Eviction.PRICED

    def evict_price(self, residency: Residency) -> Price:
        return self._price(residency, self.load_seconds(residency))

    def unstage_price(self, residency: Residency) -> Price:
        return self._price(residency, self.reload_seconds(residency))

    def _price(self, residency: Residency, seconds: float) -> Price:
        """The way back, once for each job that waits for it; what nobody waits for goes by how
        many seconds of it are likely to be needed again for each byte that it takes."""
        waiting = seconds * self.waiters(residency.name)
        worth = residency.worth(self.now) * seconds / max(1, residency.size)
        return (waiting, worth, residency.last_used, residency.name)

    def by_recency(self, residency: Residency) -> tuple[bool, float, str]:
        waited = self.eviction is Eviction.UNWAITED and self.waiters(residency.name) > 0
        return (waited, residency.last_used, residency.name)


def victims(
    candidates: Iterable[Residency], lack: int, price: Callable[[Residency], Price]
) -> list[Residency]:
    """What to give up for ``lack`` bytes: the cheapest that suffice, or all if they do not.

    From the dearest down, whatever the others cover for is let off. Cheapest first; empty if
    nothing is lacking.
    """
    taken = sorted(candidates, key=price)
    surplus = sum(residency.size for residency in taken) - lack
    for residency in reversed(taken[:]):
        if residency.size <= surplus:
            taken.remove(residency)
            surplus -= residency.size
    return taken


def ready(want: Want, shelf: Shelf) -> bool:
    """Whether a run may start: all is in, there is room to work, and the device is clear if that
    is wanted."""
    needed = [shelf.residencies[name] for name in want.components]
    if any(r.tier is not Tier.RESIDENT for r in needed) or shelf.device_free < want.working_bytes:
        return False
    return not (want.clear and any(r.on_device for r in _others(want, shelf)))


def bring_in(want: Want, shelf: Shelf) -> list[Move]:
    """The commands to issue now.

    1. Evict until the weights that are missing and the working bytes fit; all that is spare, if
       the device is to be clear.
    2. Unstage until the masters that are missing fit: first what is not on the device; if that is
       not enough, evict more, to be unstaged once it is off the device.
    3. Stage what has no master, as far as the host has room.
    4. Load what is staged, as far as the device has room, and once it is clear if that is wanted.
    """
    needed = [shelf.residencies[name] for name in want.components]
    evicted = _evictions(want, needed, shelf)  # 1
    unstaged, more = _unstagings(want, needed, evicted, shelf)  # 2
    moves: list[Move] = [Evict(r.name) for r in [*evicted, *more]]
    moves += [Unstage(r.name) for r in unstaged]
    moves += _fitting(Stage, needed, Tier.ABSENT, shelf.host_free)  # 3
    if not (want.clear and any(r.on_device for r in _others(want, shelf))):
        moves += _fitting(Load, needed, Tier.STAGED, shelf.device_free)  # 4
    return moves


def _evictions(want: Want, needed: Sequence[Residency], shelf: Shelf) -> list[Residency]:
    spare = _spare(want, shelf, Tier.RESIDENT)
    if want.clear:
        return spare
    missing = sum(r.size for r in needed if r.tier not in (Tier.LOADING, Tier.RESIDENT))
    coming = sum(r.size for r in shelf.residencies.values() if r.tier is Tier.EVICTING)
    lack = want.working_bytes + missing - shelf.device_free - coming
    if shelf.eviction is Eviction.PRICED:
        return victims(spare, lack, shelf.evict_price)
    gone = _strangers(want, spare) if shelf.eviction is Eviction.FAMILY else []
    lack -= sum(r.size for r in gone)
    for residency in sorted(spare, key=shelf.by_recency):
        if lack > 0 and residency not in gone:
            gone.append(residency)
            lack -= residency.size
    return gone


def _strangers(want: Want, spare: Iterable[Residency]) -> list[Residency]:
    families = [name.partition(".")[0] for name in want.components]
    return [r for r in spare if r.name.partition(".")[0] not in families]


def _unstagings(
    want: Want, needed: Sequence[Residency], evicted: Sequence[Residency], shelf: Shelf
) -> tuple[list[Residency], list[Residency]]:
    """What to unstage now, and what more to evict so that it can be unstaged later."""
    missing = sum(r.size for r in needed if not r.master or r.tier is Tier.UNSTAGING)
    coming = sum(r.size for r in shelf.residencies.values() if r.tier is Tier.UNSTAGING)
    lack = missing - shelf.host_free - coming
    spare = [r for r in _others(want, shelf) if r.unstageable and r.name not in shelf.kept]
    unstaged = victims(spare, lack, shelf.unstage_price)
    lack -= sum(r.size for r in unstaged)
    lack -= sum(r.size for r in _others(want, shelf) if r.tier is Tier.EVICTING)
    lack -= sum(r.size for r in evicted)
    resident = [r for r in _spare(want, shelf, Tier.RESIDENT) if r not in evicted]
    return unstaged, victims(resident, lack, shelf.unstage_price)


def _fitting(
    command: type[Stage | Load], needed: Sequence[Residency], tier: Tier, free: int
) -> list[Move]:
    moves: list[Move] = []
    for residency in needed:
        if residency.tier is tier and residency.size <= free:
            free -= residency.size
            moves.append(command(residency.name))
    return moves


def _others(want: Want, shelf: Shelf) -> list[Residency]:
    return [r for r in shelf.residencies.values() if r.name not in want.components]


def _spare(want: Want, shelf: Shelf, tier: Tier) -> list[Residency]:
    return [r for r in _others(want, shelf) if r.tier is tier and r.name not in shelf.kept]
