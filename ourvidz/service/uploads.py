"""Rendered files on their way to the store, many at once.

An upload begins as soon as its file stands in the journal, while the device goes on with the next
one; the delivery later waits for those that it finds begun and begins the others. What is begun is
kept in memory only: after a restart a file is stored once more, the same bytes under the same key.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from datetime import timedelta
from functools import partial
from pathlib import Path
from uuid import UUID

import anyio
import anyio.to_thread
import stamina
import structlog
from anyio.abc import TaskGroup

from ourvidz.config.settings import Callback
from ourvidz.jobs import Asset
from ourvidz.ports import AssetStore, StoreDenied, StoreRejected, StoreUnavailable
from ourvidz.service.health import STORE_DENIED, STORE_REFUSED, STORE_UNAVAILABLE, Alarms
from ourvidz.service.pauses import asked, backoff
from ourvidz.service.spool import is_whole

log = structlog.get_logger()


class SpoolLost(Exception):
    """A rendered file is gone, or is not any more what was rendered."""


@dataclass(slots=True)
class _Upload:
    """``outcome`` once ``done``: what is stored, or why it is not; ``None`` if it was dropped."""

    asset: Asset
    scope: anyio.CancelScope = field(default_factory=anyio.CancelScope)
    done: anyio.Event = field(default_factory=anyio.Event)
    outcome: Asset | Exception | None = None


@dataclass(slots=True)
class Uploads:
    """Every upload of the service. How many are under way at once is the store's business."""

    store: AssetStore
    bucket: str
    callback: Callback
    alarms: Alarms
    tasks: TaskGroup | None = None
    _begun: dict[UUID, dict[str, _Upload]] = field(default_factory=dict)

    def begin(self, job_id: UUID, asset: Asset) -> None:
        """Start to store a file that is in the journal; a known one goes on as it is."""
        self._upload(job_id, asset)

    async def finish(self, job_id: UUID, assets: Sequence[Asset]) -> list[Asset | StoreRejected]:
        """What became of each file: as it is stored, its thumbnail perhaps missing, or why it
        never will be. Waits as long as the store is away or denies everything. Raises
        ``SpoolLost``."""
        uploads = [self._upload(job_id, asset) for asset in assets]
        for upload in uploads:
            await upload.done.wait()
        outcomes: list[Asset | StoreRejected] = []
        for upload in uploads:
            if not isinstance(upload.outcome, Asset | StoreRejected):
                # To be begun anew when the delivery is tried again.
                self._begun.get(job_id, {}).pop(upload.asset.key, None)
                raise upload.outcome or RuntimeError("the upload was dropped")
            outcomes.append(upload.outcome)
        return outcomes

    def drop(self, job_id: UUID) -> None:
        """Nobody waits for the job's files any more: stop what is under way and forget it."""
        for upload in self._begun.pop(job_id, {}).values():
            upload.scope.cancel()

    def _upload(self, job_id: UUID, asset: Asset) -> _Upload:
        of_job = self._begun.setdefault(job_id, {})
        upload = of_job.get(asset.key)
        if upload is None:
            assert self.tasks is not None, "the service gives its task group when it starts"
            upload = of_job[asset.key] = _Upload(asset)
            self.tasks.start_soon(self._run, upload)
        return upload

    async def _run(self, upload: _Upload) -> None:
        try:
            with upload.scope:
                upload.outcome = await self._store(upload.asset)
        except Exception as error:  # noqa: BLE001 - the delivery raises it, and rings an alarm
            upload.outcome = error
        finally:
            upload.done.set()

    async def _store(self, asset: Asset) -> Asset:
        """Put one file and its thumbnail, which may be missing. Raises ``StoreRejected``,
        ``SpoolLost``."""
        await self._put(asset.key, asset.path, asset.mime, asset)
        if asset.thumbnail_key is None or asset.thumbnail_path is None:
            return asset
        try:
            await self._put(asset.thumbnail_key, asset.thumbnail_path, "image/webp")
        except StoreRejected as error:
            log.warning("thumbnail_rejected", key=asset.thumbnail_key, reason=str(error))
            return replace(asset, thumbnail_key=None, thumbnail_path=None)
        return asset

    async def _put(self, key: str, path: str, mime: str, asset: Asset | None = None) -> None:
        """Until the store has it or refuses it for good: a store that is away or denies everything
        holds the job back, it loses nothing. ``asset`` if the file must be that one's, whole."""
        again = partial(self._again, key)
        try:
            async for attempt in stamina.retry_context(on=again, **backoff(self.callback)):
                with attempt:
                    await _check(asset)
                    try:
                        await self.store.put(self.bucket, key, Path(path), mime)
                    except StoreRejected:
                        await _check(asset)  # it may have gone in the meantime
                        raise
        finally:
            for alarm in (STORE_UNAVAILABLE, STORE_DENIED):
                self.alarms.silence(alarm, key)
        self.alarms.silence(STORE_REFUSED)

    def _again(self, key: str, error: Exception) -> bool | timedelta:
        if isinstance(error, StoreUnavailable):
            log.warning("store_unavailable", reason=str(error))
            self.alarms.ring(STORE_UNAVAILABLE, key)
            return asked(error.retry_after_seconds)
        if isinstance(error, StoreDenied):
            # Somebody has to mend it, which takes longer than a store is busy.
            log.error("store_denied", reason=str(error))
            self.alarms.ring(STORE_DENIED, key)
            return timedelta(seconds=self.callback.retry_seconds_max)
        if isinstance(error, StoreRejected):
            self.alarms.ring(STORE_REFUSED)
        return False


async def _check(asset: Asset | None) -> None:
    """Raises ``SpoolLost`` unless the asset's file, if there is one, is whole."""
    if asset is not None and not await anyio.to_thread.run_sync(is_whole, asset):
        raise SpoolLost(asset.key)
