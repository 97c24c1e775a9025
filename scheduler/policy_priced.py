"""The policy that runs live: shortest remaining work, with everything else priced in.

A waiting job's *key* is ``(tier, score, arrival, id)``; the lowest goes. Scores are seconds.

1. Tier, in this order:
   1a. it has waited ``wait_seconds_max``: the bound on waiting, a last resort. While there is no
       room for the oldest of these only jobs go that were begun;
   1b. its kind waits and has not had ``share_seconds`` of the device within ``share_seconds /
       share_floor``: the share floor;
   1c. all others.
2. Score:
   2a. seconds left to run, and to set up what is not on the device, over the weight of its class;
   2b. less ``discount`` of its work, up to ``discount_seconds_max``, while it must begin within
       ``margin_seconds`` to meet its deadline. What is sure to be late is not urgent any more;
   2c. more by a second for each ``ageing_seconds`` by which it came later, which is what waiting
       takes off all others; less ``late_ageing`` seconds for each second past its deadline, in
       slices;
   2d. more by ``turn_seconds`` for each job of the same user and kind that it found waiting.
3. While a run lasts, everyone in it is paused for the best job if everyone gives way to it. They
   keep the places in which they were chosen, less the work that will be done at the boundary at
   which they can stop:
   3a. never at the boundary that ends the phase, and never for a job that can join the run;
   3b. for a lower tier;
   3c. within a tier, for a score that is lower by ``hysteresis_seconds``, by the seconds that it
       takes to bring back what the run uses, if that cannot stay meanwhile, and by the delay of
       those who share the run beside the first.
4. Company:
   4a. whoever may join at any step does (texts): it hardly slows the others. But while jobs of 1a
       wait only these join, and nobody if one of them cannot;
   4b. those that must begin together (images) do where it pays: the seconds that are saved count
       for the newcomer and for everyone who waits behind, the delay for those it joins;
   4c. where 4b would pay for a job that is a phase behind, that job goes first.
5. Components are brought in ahead for those that run, then for the best of those that wait.

Jobs that need a component that has failed are passed over. Between two events no score changes but
a run's, which falls as it goes on: so a decision to wait stands until something happens, a
``Place`` runs out, or ``wake``.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import replace
from itertools import islice

from scheduler.policy import WAIT, Decision, Place
from scheduler.types import PolicySettings, Sharing
from scheduler.view import JobView, View

_ORDINARY, _LAST = range(2)
# Of the keys, 1a to 1c.
_LAST_TIER, _SHARE_TIER, _ORDINARY_TIER = range(3)
# Lateness counts in slices, for no score may change between two events.
_LATE_SLICE_SECONDS = 5.0
# A user's further jobs do not fall back for ever: beyond this they stand in line as before.
_TURNS_MAX = 8
# Jobs of a group that are asked for whether there is room for their state; the first but for a few
# odd ones. Where none is admitted, those that are begun can still go on.
_LOOKS_MAX = 8

_Key = tuple[int, float, float, str]


class PricedWork:
    steadfast = False

    def __init__(self, settings: PolicySettings) -> None:
        self._settings = settings
        self._share_period = (
            settings.share_seconds / settings.share_floor if settings.share_floor else math.inf
        )

    def place(self, job: JobView, now: float) -> Place:
        settings, demand = self._settings, job.demand
        last = demand.arrival + settings.wait_seconds_max
        if now >= last:  # 1a
            return Place(demand.arrival, _LAST)
        rank = job.remaining_seconds / job.weight  # 2a
        rank += demand.arrival / settings.ageing_seconds  # 2c
        rank += settings.turn_seconds * min(job.turn, _TURNS_MAX)  # 2d
        place = Place(rank, _ORDINARY, last)
        deadline = demand.deadline
        return place if deadline is None else self._timed(job, place, deadline, now)

    def choose(self, view: View, now: float) -> Decision:
        job = self._best(view, now)
        running = view.running
        if job is not None and all(view.pausing(run) for run in running):
            return replace(self._taken(self._gathered(job, view)), preempt=bool(running))
        if job is not None and self._gives_way(job, view, now):  # 3
            return replace(self._taken(job), preempt=True)
        if not self._settings.prefetch:
            return WAIT
        coming = running if job is None else (*running, job)
        return Decision(None, ahead=tuple(j.id for j in coming))  # 5

    def _taken(self, job: JobView) -> Decision:
        return Decision(job.id, ahead=(job.id,) if self._settings.prefetch else ())

    def company(self, job: JobView, view: View, now: float) -> Iterable[JobView]:  # noqa: ARG002
        sharing = job.sharing
        if sharing is None:
            return ()
        others = self._welcome(view.sharers(job), view)
        if not sharing.mid_phase:
            pays = self._settings.share_images and not view.running
            return _paying(sharing, others, view.waiting_count) if pays else ()  # 4b
        if not self._settings.share_texts:
            return ()
        return _joining(sharing.key, others, view) if view.running else others  # 4a

    def order(self, view: View, now: float) -> list[JobView]:
        def turn(job: JobView) -> tuple[bool, _Key]:
            return view.blocked(job.needs), self._key(job, view, now)

        return sorted(view.waiting(), key=turn)

    def wake(self, view: View, now: float) -> float | None:
        """When a kind will be due its share, or one that is will have had it."""
        since = (view.unserved_since(kind) for kind in view.kinds)
        turns = [at + self._share_period for at in since if at is not None]
        if any(at <= now for at in turns):
            turns.append(view.next_served())
        return min((at for at in turns if now < at < math.inf), default=None)

    def _timed(self, job: JobView, place: Place, deadline: float, now: float) -> Place:
        """What a deadline makes of an ordinary place."""
        settings, left = self._settings, job.remaining_seconds
        latest = deadline - left
        if now >= deadline:  # 2c
            return self._late(place, deadline, now) if settings.late_ageing else place
        if now >= latest:
            return replace(place, until=min(place.until, deadline))
        if now < latest - settings.margin_seconds:
            return replace(place, until=min(place.until, latest - settings.margin_seconds))
        urgency = min(settings.discount * left, settings.discount_seconds_max)  # 2b
        return Place(place.rank - urgency / job.weight, _ORDINARY, min(place.until, latest))

    def _late(self, place: Place, deadline: float, now: float) -> Place:
        slices = math.floor((now - deadline) / _LATE_SLICE_SECONDS)
        if deadline + (slices + 1) * _LATE_SLICE_SECONDS <= now:  # the division was rounded down
            slices += 1
        late = slices * _LATE_SLICE_SECONDS
        until = min(place.until, deadline + (slices + 1) * _LATE_SLICE_SECONDS)
        return replace(place, rank=place.rank - self._settings.late_ageing * late, until=until)

    def _key(self, job: JobView, view: View, now: float) -> _Key:
        return self._key_of(job, job.rank, view, now)

    def _key_of(self, job: JobView, rank: float, view: View, now: float) -> _Key:
        tier = self._tier(job.lane, job.demand.kind, view, now)
        score = rank + self._setup(job.needs, view) / job.weight
        return tier, score, job.demand.arrival, job.id

    def _tier(self, lane: int, kind: str, view: View, now: float) -> int:
        if lane == _LAST:  # 1a
            return _LAST_TIER
        since = view.unserved_since(kind)
        due = since is not None and now >= since + self._share_period  # 1b, as ``wake`` says
        return _SHARE_TIER if due else _ORDINARY_TIER

    def _setup(self, needs: tuple[str, ...], view: View) -> float:
        return view.setup_seconds(needs) if self._settings.price_set_ups else 0.0

    def _best(self, view: View, now: float) -> JobView | None:
        if not self._lacks_room(view):
            return self._best_head(view, now) or self._best_begun(view, now)
        begun = self._best_begun(view, now)  # 1a
        return begun if begun is not None or view.running else self._best_head(view, now)

    def _lacks_room(self, view: View) -> bool:
        """There is none for the oldest of those who have waited for too long."""
        oldest = min(_last(view), key=lambda job: (job.rank, job.id), default=None)
        return oldest is not None and not view.admits(oldest)

    def _welcome(self, jobs: Iterator[JobView], view: View) -> Iterator[JobView]:
        """Who of these may come along: none that would take room that is lacking."""
        return (job for job in jobs if job.begun) if self._lacks_room(view) else jobs  # 1a

    def _best_begun(self, view: View, now: float) -> JobView | None:
        joined, running = self._joined(view), view.running
        rest = (job for job in view.begun.values() if job not in running)
        may = (job for job in rest if _may_go(job, view, joined))
        return min(may, key=lambda job: self._key(job, view, now), default=None)

    def _best_head(self, view: View, now: float) -> JobView | None:
        best: tuple[_Key, JobView] | None = None
        joined = self._joined(view)
        for group in view.groups():
            tier = self._tier(group.lane, group.kind, view, now)
            beside = self._setup(group.needs, view) / group.weight
            for job in islice(group.jobs(), _LOOKS_MAX):
                key = tier, job.rank + beside, job.demand.arrival, job.id
                if best is not None and key >= best[0]:
                    break
                if _may_go(job, view, joined):
                    best = key, job
                    break
        return None if best is None else best[1]

    def _joined(self, view: View) -> str | None:
        """Whoever has this key joins the run that lasts, and need not preempt it."""
        for run in view.running:
            sharing = run.sharing
            if sharing is not None and sharing.mid_phase and not view.pausing(run):
                return sharing.key if self._settings.share_texts else None
        return None

    def _gives_way(self, job: JobView, view: View, now: float) -> bool:
        """Whether whoever runs should be paused for a job."""
        if not self._settings.preempt:
            return False
        tier, score, _, _ = self._key(job, view, now)
        runs = view.running
        work = job.remaining_seconds + self._setup(job.needs, view)
        delay = (len(runs) - 1) * work / job.weight
        return all(self._yields(run, job, (tier, score + delay), view, now) for run in runs)

    def _yields(
        self, run: JobView, job: JobView, other: tuple[int, float], view: View, now: float
    ) -> bool:
        phase = run.demand.phases[run.phase]
        if run.step + 1 >= phase.steps:  # 3a
            return False
        left = run.remaining_seconds - phase.step_seconds
        rank = run.rank - (run.placed_seconds - left) / run.weight
        tier, score, _, _ = self._key_of(run, rank, view, now)
        if other[0] != tier:  # 3b
            return other[0] < tier
        way_back = view.way_back_seconds(run, job)
        return score - other[1] > self._settings.hysteresis_seconds + way_back  # 3c

    def _gathered(self, job: JobView, view: View) -> JobView:
        """The job itself, or one that should catch up with it first."""
        sharing = job.sharing
        if sharing is None or sharing.mid_phase or not self._settings.share_images:
            return job
        others = self._welcome(view.sharers(job), view)
        beside = list(_paying(sharing, others, view.waiting_count))
        coming = self._welcome(view.coming_sharers(job), view)
        behind = (j for j in coming if not view.blocked(j.needs) and view.admits(j))
        return next(_paying(sharing, behind, view.waiting_count, beside), job)  # 4c


def _paying(
    sharing: Sharing, others: Iterator[JobView], waiting: int, beside: Sequence[JobView] = ()
) -> Iterator[JobView]:
    """Who of ``others`` should begin together with one that shares so and those ``beside`` it, all
    among so many who wait. What a run takes is counted in what a unit takes alone."""
    exponent = sharing.exponent
    units = sharing.units + sum(_units(j) for j in beside)
    members = 1 + len(beside)
    for other in others:
        if units >= sharing.units_max:
            return
        more = _units(other, phases=2)
        if units + more > sharing.units_max:
            continue
        alone, before, together = more**exponent, units**exponent, (units + more) ** exponent
        saved = (before + alone - together) * (waiting - members)
        if saved > (together - before) * members:
            units, members = units + more, members + 1
            yield other


def _last(view: View) -> Iterator[JobView]:
    """The first of each group that have waited for too long and miss nothing that has failed."""
    for group in view.groups():
        if group.lane == _LAST and not view.blocked(group.needs):
            yield next(group.jobs())


def _joining(key: str, others: Iterator[JobView], view: View) -> Iterator[JobView]:
    """Who joins a run that lasts: whatever came in would keep out for longer who has waited for too
    long."""
    last = list(_last(view))
    if any(not _joins(job, key) for job in last):
        return iter(())
    return (job for job in others if job.lane == _LAST) if last else others


def _may_go(job: JobView, view: View, joined: str | None) -> bool:
    """Whether a waiting job may be chosen: not if it joins the run that lasts."""
    joins = joined is not None and _joins(job, joined)
    return not joins and view.admits(job) and not view.blocked(job.needs)


def _joins(job: JobView, key: str) -> bool:
    return job.sharing is not None and job.sharing.key == key


def _units(job: JobView, phases: int = 1) -> int:
    """The units of the job's next phase that can be shared, among so many."""
    for phase in job.demand.phases[job.phase : job.phase + phases]:
        if phase.sharing is not None:
            return phase.sharing.units
    return 1
