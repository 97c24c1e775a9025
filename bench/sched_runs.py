"""Contests for the report: which policy serves which workload on which card, run side by side.

A ``Round`` says all that one contest depends on, so what two tables have in common is run once. A
*source* is a seed of ``bench.traffic`` or the path of a workload.
"""

from __future__ import annotations

import os
import tomllib
from collections.abc import Callable, Collection, Mapping
from concurrent.futures import ProcessPoolExecutor, as_completed
from dataclasses import dataclass, field, replace
from functools import cache
from pathlib import Path
from typing import Any

from bench import traffic
from bench.sched_limits import LIMITS, serve
from ourvidz.cli.simulate import read_profile, read_workload
from ourvidz.config.policy import scheduler_settings
from ourvidz.config.settings import Scheduler
from scheduler.contest import contest, summary
from scheduler.profile import Profile, parse
from scheduler.types import SchedulerSettings
from scheduler.workload import Workload, chain, parse_all

PROFILE = Path(__file__).parent / "profiles" / "48gb.toml"
# Beside whatever else a small machine does.
PROCESSES = min(2, os.cpu_count() or 1)

Row = Mapping[str, Any]
Source = int | Path


@dataclass(frozen=True, slots=True)
class Round:
    """One contest of a policy, or of one of the ``LIMITS``: ``changes`` to the default settings,
    arrivals ``load`` times as dense, a card of ``vram_bytes`` where it is not the profile's own."""

    policy: str
    source: Source
    profile: Path = PROFILE
    changes: Mapping[str, Any] = field(default_factory=dict, hash=False)
    load: float = 1.0
    vram_bytes: int | None = None


def default_settings() -> SchedulerSettings:
    """Those of a service without a configuration."""
    return scheduler_settings(Scheduler())


def changed(settings: SchedulerSettings, changes: Mapping[str, Any]) -> SchedulerSettings:
    """With some set otherwise, those of the policy among them, by their names alone."""
    of_policy = {name for name in changes if hasattr(settings.policy, name)}
    return replace(
        settings,
        policy=replace(settings.policy, **{name: changes[name] for name in of_policy}),
        **{name: value for name, value in changes.items() if name not in of_policy},
    )


def run(round_: Round) -> Row:
    """Raises ``InputError`` for a request that the card cannot serve."""
    workload = _workload(round_.source, round_.load)
    profile = _profile(round_.profile, round_.vram_bytes)
    ideal = LIMITS.get(round_.policy)
    if ideal is not None:
        record = serve(workload, profile, ideal)
        return {"policy": round_.policy, **summary(workload, profile, record)}
    settings = changed(default_settings(), round_.changes)
    return contest(round_.policy, workload, profile, settings)


def run_all(rounds: Collection[Round], progress: Callable[[int, Round], None]) -> dict[Round, Row]:
    """Every round once; ``progress`` is told how many are done and which was the last."""
    rows: dict[Round, Row] = {}
    with ProcessPoolExecutor(PROCESSES) as pool:
        running = {pool.submit(run, round_): round_ for round_ in dict.fromkeys(rounds)}
        for done in as_completed(running):
            rows[running[done]] = done.result()
            progress(len(rows), running[done])
    return rows


@cache
def _workload(source: Source, load: float) -> Workload:
    if load != 1:
        dense = _workload(source, 1.0).requests
        return chain(replace(r, arrival=r.arrival / load) for r in dense)
    if isinstance(source, Path):
        return read_workload(source)
    return parse_all((line, f"seed {source}") for line in traffic.workload(source))


@cache
def _profile(path: Path, vram_bytes: int | None) -> Profile:
    if vram_bytes is None:
        return read_profile(path)
    document = tomllib.loads(path.read_text(encoding="utf-8"))
    document["device"]["vram_bytes"] = vram_bytes
    return parse(document)
