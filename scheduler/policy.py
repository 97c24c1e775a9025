"""Which job next, beside whom, and whom to prepare for. A policy reads the index and returns a
decision; it changes nothing."""

from __future__ import annotations

import math
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Protocol

from scheduler.view import JobView, View


@dataclass(frozen=True, slots=True)
class Decision:
    """``job`` is to run next; ``None``: leave things as they are until the next event.

    While a run lasts, a job is only taken with ``preempt``: whoever runs is asked to pause at the
    next step, and the job's components are loaded meanwhile. While the run lasts that there is, or
    that the job begins, components are brought in for the coming phases of those ``ahead``, as far
    as there is slack: the first for whom something is missing gets it.
    """

    job: str | None
    preempt: bool = False
    ahead: tuple[str, ...] = ()


WAIT = Decision(None)


@dataclass(frozen=True, slots=True)
class Place:
    """Where a waiting job stands among those of its kind that need the same components and weigh
    the same.

    The lowest ``rank`` of a ``lane`` goes first; lanes are for jobs that age differently, and where
    jobs of several could share a run, the highest lane comes first. Neither may depend on anything
    that changes before ``until``, when the policy is asked again.
    """

    rank: float
    lane: int = 0
    until: float = math.inf


class Policy(Protocol):
    @property
    def steadfast(self) -> bool:
        """A job that was chosen keeps its turn until it starts. If not, ``choose`` is asked again
        when jobs arrive meanwhile, and may give its turn to one of these."""

    def place(self, job: JobView, now: float) -> Place:
        """Asked when the job begins to wait, after every one of its runs again."""

    def choose(self, view: View, now: float) -> Decision:
        """Asked after every event while no job is on its way to be started. The chosen job must
        wait and be admitted (``View.admits``)."""

    def company(self, job: JobView, view: View, now: float) -> Iterable[JobView]:
        """Who shares a run that ``job`` is in, best first: asked when it is to be started, and
        while it runs after every event. Those are taken for whom there is room."""

    def order(self, view: View, now: float) -> list[JobView]:
        """All waiting jobs in the order in which they would go now, for estimates; it may take
        its time."""

    def wake(self, view: View, now: float) -> float | None:
        """When it may decide otherwise though nothing will have happened and no ``Place`` will have
        run out, later than ``now``; ``None`` if never. That a run has reached a step is no reason
        to choose a job that was not chosen before."""


class Solitary:
    """The part of a policy that runs one job at a time, until it ends."""

    steadfast = True

    def company(self, job: JobView, view: View, now: float) -> Iterable[JobView]:  # noqa: ARG002
        return ()

    def wake(self, view: View, now: float) -> float | None:  # noqa: ARG002
        return None
