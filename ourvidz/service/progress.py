"""``processing`` callbacks while a job runs: best effort, at most one a period, never durable."""

from __future__ import annotations

from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass

import anyio
import structlog

from ourvidz.config.settings import Callback
from ourvidz.jobs import JobState
from ourvidz.ports import Notifier, NotifyRejected, NotifyUnavailable
from ourvidz.service.active import ActiveJob
from ourvidz.wire import callback_processing, event_id

log = structlog.get_logger()

OnSkipped = Callable[[ActiveJob], Awaitable[None]]


@dataclass(slots=True)
class ProgressReporter:
    """Tells the backend how a job is doing. Its answer ``skipped`` means that nobody wants the job
    any more: ``on_skipped`` then stops it."""

    notifier: Notifier | None
    settings: Callback
    on_skipped: OnSkipped

    @asynccontextmanager
    async def report(self, job: ActiveJob) -> AsyncIterator[None]:
        """Report until the block is left; no report is under way after that."""
        failure: Exception | None = None
        async with anyio.create_task_group() as tasks:
            if self.notifier is not None and self.settings.progress:
                tasks.start_soon(self._loop, self.notifier, job)
            try:
                yield
            except Exception as error:  # noqa: BLE001 - re-raised below, not in a group
                failure = error
            tasks.cancel_scope.cancel()
        if failure is not None:
            raise failure

    async def _loop(self, notifier: Notifier, job: ActiveJob) -> None:
        # A job that was handed back or cut off runs again: a receiver that drops what it has had
        # under the same id must not drop the later run's reports.
        run, number = job.claimed.claim_id, 0
        while True:
            moved = job.moved.ticket
            if job.lost:
                return  # Another worker may have it by now, and reports on it.
            if job.state is JobState.RUNNING:
                number += 1
                pause = await self._tell(notifier, job, f"processing.{run}.{number}")
                if pause is None:
                    return
                await anyio.sleep(pause)
            await moved.wait()

    async def _tell(self, notifier: Notifier, job: ActiveJob, event: str) -> float | None:
        """Report once. Returns the least seconds until the next report, ``None`` for no more."""
        period = self.settings.progress_seconds
        try:
            body = callback_processing(job.spec, job.progress())
            delivered = await notifier.notify(event_id(job.id, event), body)
        except NotifyUnavailable as error:
            log.info("progress_not_delivered", reason=str(error))
            return max(period, error.retry_after_seconds or 0.0)
        except NotifyRejected as error:
            # It would refuse the next one, too. The alarm is the terminal callback's.
            log.warning("progress_rejected", reason=str(error))
            return None
        except Exception:
            # Best effort: what goes wrong with a report must not harm the job it is about.
            log.exception("progress_broke")
            return period
        if delivered.skipped:
            await self.on_skipped(job)
            return None
        return period
