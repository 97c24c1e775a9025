"""Terminal callbacks: posted until the backend has taken them, or parked with an alarm."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from dataclasses import dataclass
from datetime import timedelta

import stamina
import structlog

from ourvidz.config.settings import Callback
from ourvidz.jobs import InvalidJob
from ourvidz.ports import (
    Answer,
    Clock,
    JobRecord,
    Journal,
    Notifier,
    NotifyRejected,
    NotifyUnavailable,
)
from ourvidz.service.health import CALLBACK_UNAVAILABLE, Alarms
from ourvidz.service.pauses import asked, backoff
from ourvidz.wire import callback_completed, callback_failed, callback_invalid

log = structlog.get_logger()


@dataclass(slots=True)
class Announcer:
    """``notifier`` is ``None`` where no callbacks are sent: then an answer is settled unsent.
    ``parked`` callbacks were given up, by this process or an earlier one."""

    journal: Journal
    notifier: Notifier | None
    settings: Callback
    clock: Clock
    alarms: Alarms
    parked: int = 0

    async def recover(self) -> None:
        self.parked = await self.journal.parked()

    async def unpark(self, event_ids: Collection[str] | None, limit: int) -> Sequence[str]:
        """As ``ports.Journal.unpark``: what was given up is to be announced again."""
        job_ids = await self.journal.unpark(event_ids, limit)
        self.parked = await self.journal.parked()
        return job_ids

    async def announce(self, answer: Answer, record: JobRecord | None) -> None:
        """Returns once the answer is acknowledged or parked; ``record`` is that of the answer's
        job, if it ever became one."""
        if self.notifier is None:
            await self.journal.answered(answer.event_id)
            return
        body = answer.body
        if body is None:
            assert record is not None, "an answer without a body belongs to a job"
            body = self._body(record)
        try:
            async for attempt in stamina.retry_context(on=_retry_wait, **backoff(self.settings)):
                with attempt:
                    if await self._announce_once(self.notifier, answer.event_id, body):
                        return
        finally:
            self.alarms.silence(CALLBACK_UNAVAILABLE, answer.event_id)

    async def _announce_once(self, notifier: Notifier, event_id: str, body: bytes) -> bool:
        """One attempt; true when nothing is left to do. Raises ``NotifyUnavailable`` to retry."""
        try:
            await notifier.notify(event_id, body)
        except NotifyUnavailable as error:
            attempts = await self.journal.answer_failed(event_id, str(error), park=False)
            if attempts < self.settings.attempts_max:
                log.warning("callback_unavailable", event_id=event_id, reason=str(error))
                self.alarms.ring(CALLBACK_UNAVAILABLE, event_id)
                raise
            await self._park(event_id, f"given up after {attempts} attempts: {error}")
        except NotifyRejected as error:
            await self._park(event_id, str(error))
        else:
            await self.journal.answered(event_id)
            log.info("callback_delivered", event_id=event_id)
        return True

    async def _park(self, event_id: str, reason: str) -> None:
        await self.journal.answer_failed(event_id, reason, park=True)
        self.parked = await self.journal.parked()
        log.error("callback_parked", event_id=event_id, reason=reason)

    def _body(self, record: JobRecord) -> bytes:
        assert record.result is not None, "an ended job has a result"
        if record.result.status == "completed":
            return callback_completed(record.spec, record.result, self.settings.shape)
        return callback_failed(record.spec, record.result, record.completed_at or 0.0)

    def invalid_body(self, invalid: InvalidJob) -> bytes:
        """The ``failed`` callback for a payload that never became a job."""
        return callback_invalid(invalid, self.clock.wall())


def _retry_wait(error: Exception) -> bool | timedelta:
    """Retry what may pass; wait as long as the receiver asked for."""
    if not isinstance(error, NotifyUnavailable):
        return False
    return asked(error.retry_after_seconds)
