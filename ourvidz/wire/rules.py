"""What the border enforces: limits, defaults and the table of legacy types, from settings."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from uuid import UUID

from ourvidz.config.jobs import Defaults, Enhancement, LegacyType, Limits
from ourvidz.config.settings import Settings

NORMAL_CLASS = "normal"


@dataclass(frozen=True, slots=True)
class Rules:
    """Everything that parsing depends on besides the payload.

    ``job_classes`` are the classes that the scheduler has a weight for. ``default_user_id`` owns
    the jobs that name no user.
    """

    limits: Limits
    defaults: Defaults
    legacy_types: Mapping[str, LegacyType]
    enhancement: Enhancement
    default_user_id: UUID
    job_classes: frozenset[str] = frozenset({NORMAL_CLASS})

    @classmethod
    def from_settings(cls, settings: Settings) -> Rules:
        return cls(
            limits=settings.limits,
            defaults=settings.defaults,
            legacy_types=settings.legacy_types,
            enhancement=settings.enhancement,
            default_user_id=UUID(settings.http.default_user_id),
            job_classes=frozenset({NORMAL_CLASS, *settings.scheduler.class_weights}),
        )
