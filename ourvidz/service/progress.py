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
        number = 0
        while True:
            moved = job.moved.ticket
            if job.state is JobState.RUNNING:
                number += 1
                try:
                    await self._tell(notifier, job, number)
                except Exception:
                    # Best effort: what goes wrong with a report must not harm the job it is about.
                    log.exception("progress_broke")
                await anyio.sleep(self.settings.progress_seconds)
            await moved.wait()

    async def _tell(self, notifier: Notifier, job: ActiveJob, number: int) -> None:
        body = callback_processing(job.spec, job.progress())
        try:
            delivered = await notifier.notify(event_id(job.id, f"processing.{number}"), body)
        except (NotifyRejected, NotifyUnavailable) as error:
            log.info("progress_not_delivered", reason=str(error))
            return
        if delivered.skipped:
            await self.on_skipped(job)
