"""Where results go: an asset store, and whoever is called back."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Protocol


class StoreRejected(Exception):
    """The store refuses this file; the same attempt would be refused again."""


class StoreUnavailable(Exception):
    """The store did not answer or is busy; the same attempt may succeed later."""


class AssetStore(Protocol):
    """Files under ``bucket/key``. A put of the same key replaces the file, atomically."""

    async def put(self, bucket: str, key: str, path: Path, mime: str) -> None:
        """Raises ``StoreRejected`` or ``StoreUnavailable``."""

    async def get(self, bucket: str, key: str, path: Path, bytes_max: int) -> None:
        """Copy to ``path``. Raises ``KeyError`` if absent, ``StoreRejected`` if too large."""


@dataclass(frozen=True, slots=True)
class Delivered:
    """``skipped``: the backend no longer wants this job."""

    skipped: bool


class NotifyRejected(Exception):
    """The receiver refuses this callback for good (400, 401, ...)."""


class NotifyUnavailable(Exception):
    """Worth trying again, not before ``retry_after_seconds`` where the receiver named a time."""

    def __init__(self, message: str, retry_after_seconds: float | None = None) -> None:
        super().__init__(message)
        self.retry_after_seconds = retry_after_seconds


class Notifier(Protocol):
    async def notify(self, event_id: str, body: bytes) -> Delivered:
        """Sign and post one callback, once. Raises ``NotifyRejected`` or ``NotifyUnavailable``."""
