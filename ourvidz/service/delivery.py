"""Upload, announce, acknowledge: never on the device's path, never inferring twice.

A job that is RENDERED has its files in the spool; one that has ended owes its terminal callback.
Both facts stand in the journal, so a restart goes on where the last process stopped. The stages
are the same whether a job has just ended or was found after a crash.
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from functools import partial
from uuid import UUID

import anyio
import stamina
import structlog
from anyio.abc import TaskGroup

from ourvidz.config.settings import Callback
from ourvidz.jobs import Asset, ErrorCode, JobError, JobState
from ourvidz.ports import (
    JobRecord,
    Journal,
    StoreRejected,
)
from ourvidz.service.announcer import Announcer
from ourvidz.service.claims import Claims
from ourvidz.service.disk import Disk
from ourvidz.service.events import Events
from ourvidz.service.faults import refusal_of
from ourvidz.service.health import DELIVERY_BROKE, SPOOL_LOST, Alarms
from ourvidz.service.metrics import Metrics
from ourvidz.service.pauses import backoff
from ourvidz.service.signal import Signal
from ourvidz.service.spool import Spool, is_whole
from ourvidz.service.uploads import SpoolLost, Uploads
from ourvidz.service.views import ended_data

log = structlog.get_logger()


@dataclass(slots=True)
class _Held:
    """What is being delivered: under which claim, if any, and which one was lost."""

    claim_id: str | None
    lost: str | None = None
    scope: anyio.CancelScope = field(default_factory=anyio.CancelScope)
    over: anyio.Event = field(default_factory=anyio.Event)


@dataclass(slots=True)
class Delivery:
    """Brings what has ended to the store and to the backend; ``pending`` jobs are on their way."""

    journal: Journal
    claims: Claims
    uploads: Uploads
    announcer: Announcer
    events: Events
    metrics: Metrics
    callback: Callback
    spool: Spool
    room: Signal
    disk: Disk
    alarms: Alarms
    pending: int = 0
    _held: dict[str, _Held] = field(default_factory=dict)

    async def recover(self, tasks: TaskGroup) -> None:
        """Go on with everything that an earlier process left undelivered. A job of whose files
        some are gone (an ephemeral disk) goes back to its queue, where its element still is."""
        self.uploads.tasks = tasks
        await self.announcer.recover()
        rendered = []
        for record in await self.journal.in_states(JobState.RENDERED):
            if await anyio.to_thread.run_sync(_spooled, record):
                rendered.append(str(record.spec.id))
            else:
                await self.journal.requeue(record.spec.id)
                log.warning("spool_lost", job=str(record.spec.id))
        await self.spool.sweep(self._waits)
        owed = [answer.job_id for answer in await self.journal.answers()]
        for job_id in dict.fromkeys(rendered + owed):
            log.info("delivery_recovered", job=job_id)
            tasks.start_soon(self.deliver, job_id, None)

    async def _waits(self, job_id: str) -> bool | None:
        """As ``Spool.sweep`` asks."""
        record = await self._record(job_id)
        if record is None or record.state.terminal:
            return None
        return record.state is JobState.QUEUED

    async def deliver(
        self, job_id: str, claim_id: str | None, decided: Callable[[], None] = lambda: None
    ) -> None:
        """Take one ended job, or one refused payload, through the stages that are left, as long as
        the claim holds; without one, of an earlier process or of a job that was cancelled in its
        queue, until its element is claimed again. ``decided`` is called once it is certain whether
        such a cancel stands, and at the end.

        What nobody foresaw holds this one delivery back, with an alarm: it is tried again.
        """
        self.pending += 1
        try:
            # One that is under way may be past the answer that is to be sent once more.
            while (earlier := self._held.get(job_id)) is not None:
                await earlier.over.wait()
            await self._hold(job_id, claim_id, decided)
        finally:
            self.pending -= 1
            self.disk.look()
            self.room.notify()

    async def _hold(self, job_id: str, claim_id: str | None, decided: Callable[[], None]) -> None:
        self.alarms.silence(SPOOL_LOST, job_id)
        held = self._held[job_id] = _Held(claim_id)
        try:
            with held.scope:
                async for attempt in stamina.retry_context(
                    on=partial(self._broke, job_id), **backoff(self.callback)
                ):
                    with attempt:
                        await self._deliver(job_id, decided)
            if held.lost is not None:
                await self._let_go(job_id, held)
        finally:
            decided()  # also where the claim was lost before that
            self._held.pop(job_id, None)
            held.over.set()
            self.alarms.silence(DELIVERY_BROKE, job_id)

    def _broke(self, job_id: str, error: BaseException) -> bool:
        """Whether to try again; a cancelled delivery is over."""
        if not isinstance(error, Exception):
            return False
        log.error("delivery_broke", job=job_id, exc_info=error)
        self.alarms.ring(DELIVERY_BROKE, job_id)
        return True

    async def _deliver(self, job_id: str, decided: Callable[[], None]) -> None:
        record = await self._record(job_id)
        stands = record is None or await self._stands(record)
        decided()
        if not stands:
            return
        if record is not None and record.state is JobState.RENDERED:
            try:
                record = await self._upload(record)
            except SpoolLost as lost:
                await self._make_again(job_id, lost)
                return
        if record is not None:
            self._publish_end(record)
        for answer in await self.journal.answers(job_id):
            await self.announcer.announce(answer, record)
        if record is not None:
            await self._release(record.spec.id)
        else:
            await self._bury(job_id)

    async def _stands(self, record: JobRecord) -> bool:
        """Whether the job's end is this worker's to tell. Not so a cancel in its queue, if another
        worker has, or had, the job: then it is undone, for nobody was told of it yet."""
        unclaimed = record.state is JobState.CANCELLED and record.claim_id is None
        if not unclaimed or await self.claims.withdraw(record.spec):
            return True
        await self.journal.requeue(record.spec.id)
        log.warning("cancel_too_late", job=str(record.spec.id))
        return False

    @property
    def held(self) -> Mapping[str, str]:
        """Jobs by the claims that are held for their delivery."""
        return {held.claim_id: job_id for job_id, held in self._held.items() if held.claim_id}

    def supersede(self, job_id: str, claim_id: str) -> str | None:
        """What is being delivered is held by this claim from here on. Returns the claim that it
        does not need any more: its earlier one, or this one where nothing is being delivered."""
        held = self._held.get(job_id)
        if held is None:
            return claim_id
        earlier, held.claim_id = held.claim_id, claim_id
        return earlier

    def adopt(self, job_id: UUID, claim_id: str) -> bool:
        """The job, if it is being delivered, is held by this claim from here on; whether it is."""
        return self.supersede(str(job_id), claim_id) != claim_id

    def lose(self, claim_id: str) -> None:
        """The claim is gone: no upload and no callback is begun for what it held."""
        for job_id, held in self._held.items():
            if held.claim_id == claim_id:
                held.lost = claim_id
                held.scope.cancel()
                with contextlib.suppress(ValueError):  # The id of a refused payload is any text.
                    self.uploads.drop(UUID(job_id))

    async def _let_go(self, job_id: str, held: _Held) -> None:
        """Whoever claims the element next goes on: here, from what the journal holds."""
        record = await self._record(job_id)
        if record is not None and record.state is JobState.RENDERED:
            await self.journal.requeue(record.spec.id)
            await self.spool.left(job_id)
        elif record is not None:
            await self.spool.remove(job_id)
        if held.claim_id is not None and held.claim_id != held.lost:
            await self.claims.hand_back(held.claim_id)  # It came again in the meantime.
        log.info("delivery_let_go", job=job_id)

    async def _make_again(self, job_id: str, lost: SpoolLost) -> None:
        """What the disk has lost is rendered again, by whoever claims the job's element next."""
        log.error("spool_lost", job=job_id, key=str(lost))
        self.alarms.ring(SPOOL_LOST, job_id)
        self.uploads.drop(UUID(job_id))
        await self.journal.requeue(UUID(job_id))
        await self.spool.left(job_id)
        held = self._held[job_id]
        if held.claim_id is not None:
            await self.claims.hand_back(held.claim_id)

    async def _record(self, job_id: str) -> JobRecord | None:
        return await record_of(self.journal, job_id)

    async def _upload(self, record: JobRecord) -> JobRecord:
        """Store every file; what the store refuses for good is reported as that file's failure."""
        result = record.result
        assert result is not None, "a rendered job has a result"
        outcomes = await self.uploads.finish(record.spec.id, result.assets)
        stored = tuple(outcome for outcome in outcomes if isinstance(outcome, Asset))
        failed = dict(result.failed)
        for asset, outcome in zip(result.assets, outcomes, strict=True):
            if isinstance(outcome, StoreRejected):
                log.error("asset_rejected", job=str(record.spec.id), reason=str(outcome))
                failed[asset.index] = JobError(ErrorCode.WORKER_UNAVAILABLE, str(outcome))
        if failed and not stored:
            error = next(iter(failed.values()))
            result = replace(result, status="failed", assets=(), error=error, failed=failed)
        else:
            result = replace(result, assets=stored, failed=failed)
        await self.journal.uploaded(record.spec.id, result)
        self.uploads.drop(record.spec.id)
        updated = await self.journal.get(record.spec.id)
        assert updated is not None, "the journal forgets no job"
        return updated

    async def _release(self, job_id: UUID) -> None:
        """The lease and the spool are held until here. The claim is looked up again: the job may
        have come out of its queue once more, but not after its answer was settled."""
        record = await self.journal.get(job_id)
        # A renewal at this moment must not take it for lost.
        self._held[str(job_id)].claim_id = None
        if record is not None and record.claim_id is not None:
            await self.drop(record, record.claim_id)
        await self.spool.remove(str(job_id))

    async def drop(self, record: JobRecord | None, claim_id: str) -> None:
        """A job's element that is not needed any more goes for good, or to the dead letters."""
        result = None if record is None else record.result
        if result is None or result.dead_letter is None:
            await self.claims.acknowledge(claim_id)
        else:
            await self.claims.dead_letter(claim_id, result.dead_letter)

    async def _bury(self, job_id: str) -> None:
        """A payload that is answered goes to the dead letters, also if another claim takes over its
        element meanwhile."""
        invalid = await self.journal.rejected(job_id)
        held = self._held[job_id]
        while invalid is not None and (claim_id := held.claim_id) is not None:
            held.claim_id = None  # as in _release
            try:
                await self.claims.dead_letter(claim_id, refusal_of(invalid))
            except BaseException:
                held.claim_id = held.claim_id or claim_id
                raise

    def _publish_end(self, record: JobRecord) -> None:
        events = self.events.open(record.spec.id)
        if not events.ended:
            kind, status = record.spec.requested_type, record.state.status
            self.metrics.jobs_ended.labels(kind, status).inc()
            events.publish("end", ended_data(record))


async def record_of(journal: Journal, job_id: str) -> JobRecord | None:
    """The job's row; ``None`` for a payload that never became a job, whose id is any text."""
    try:
        return await journal.get(UUID(job_id))
    except ValueError:
        return None


def _spooled(record: JobRecord) -> bool:
    """Whether every file of a rendered job is still there, whole."""
    assets = record.result.assets if record.result is not None else ()
    return all(is_whole(asset) for asset in assets)
