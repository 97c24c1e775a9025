"""The scheduler's own settings, from the configuration's."""

from __future__ import annotations

from dataclasses import fields

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
