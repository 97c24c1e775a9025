"""Where results go: an asset store, and whoever is called back."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Protocol


class StoreRejected(Exception):
    """The store refuses this file; the same attempt would be refused again."""


class StoreDenied(StoreRejected):
    """The store refuses every file: a wrong key, a bucket that is gone. Nothing is wrong with this
    file, and once an operator has mended that the same attempt succeeds."""


class StoreUnavailable(Exception):
    """The store did not answer or is busy; the same attempt may succeed, not before
    ``retry_after_seconds`` where the store named a time."""

    def __init__(self, message: str, retry_after_seconds: float | None = None) -> None:
        super().__init__(message)
        self.retry_after_seconds = retry_after_seconds


class AssetStore(Protocol):
    """Files under ``bucket/key``. A put of the same key replaces the file, atomically.

    Calls may overlap; so many as the store can bear are under way, the others wait. Each is one
    attempt: to try again is the caller's business.
    """

    async def put(self, bucket: str, key: str, path: Path, mime: str) -> None:
        """Returns once the store holds every byte of the file. Raises ``StoreRejected`` or
        ``StoreUnavailable``."""

    async def get(self, bucket: str, key: str, path: Path, bytes_max: int) -> None:
        """Copy to ``path``. Raises ``KeyError`` if absent, ``StoreRejected`` if too large,
        ``DiskRefused``, ``StoreUnavailable``."""


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
