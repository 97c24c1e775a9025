"""The scheduler's own settings, from the configuration's."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import fields, replace

from ourvidz.config.settings import Scheduler
from scheduler.types import PolicySettings, SchedulerSettings


def scheduler_settings(table: Scheduler) -> SchedulerSettings:
    return SchedulerSettings(
        waiting_jobs_max=table.waiting_jobs_max,
        load_attempts_max=table.load_attempts_max,
        load_retry_seconds=table.load_retry_seconds,
        follow_seconds=table.follow_seconds,
        class_weights=table.class_weights,
        policy=PolicySettings(**{f.name: getattr(table, f.name) for f in fields(PolicySettings)}),
    )


def overlaid(
    settings: SchedulerSettings, table: Scheduler, keys: Iterable[str]
) -> SchedulerSettings:
    """The settings with what the table has under these dotted keys of the configuration."""
    names = {key.split(".")[1] for key in keys if key.startswith("scheduler.")}
    given = scheduler_settings(table)
    policy = {f.name: getattr(given.policy, f.name) for f in fields(given.policy)}
    rest = {f.name: getattr(given, f.name) for f in fields(given) if f.name != "policy"}
    return replace(
        settings,
        **{name: rest[name] for name in names & rest.keys()},
        policy=replace(settings.policy, **{name: policy[name] for name in names & policy.keys()}),
    )
