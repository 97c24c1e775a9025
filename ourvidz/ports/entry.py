"""What a job meets before it runs: the operator's policy, and its references."""

from __future__ import annotations

from pathlib import Path
from typing import Protocol

from ourvidz.jobs import JobError, JobSpec, Reference


class ReferenceFailed(Exception):
    """A reference could not be fetched or is no acceptable image. ``store_away``: it lies in our
    own storage, which gives nothing to anybody for now."""

    def __init__(self, error: JobError, *, store_away: bool = False) -> None:
        super().__init__(error.message)
        self.error = error
        self.store_away = store_away


class References(Protocol):
    async def fetch(self, reference: Reference, path: Path) -> None:
        """Fetch, check and write one reference image to ``path``. Raises ``ReferenceFailed``,
        ``DiskRefused``."""


class Admission(Protocol):
    """The operator's policy. The default admits everything."""

    async def admit(self, spec: JobSpec) -> JobError | None:
        """``None`` to admit, or the error with which the job is answered."""
