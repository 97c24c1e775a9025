"""The life of one job, claim to acknowledgement, in one readable coroutine.

``Flow.run`` is steps 2 to 8 of a job's life: parse, take the job through its parts (the business
of ``parts``, awaited here), deliver, acknowledge. Every way out leaves the job in the journal or
back in its queue. A defect that one job meets is that job's end: it is answered as failed, with an
alarm. Only where that cannot be written down, as the journal does not work, the service goes down
with its leases recoverable.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

import structlog

from ourvidz.jobs import ErrorCode, InvalidJob, JobError, JobResult, JobSpec
from ourvidz.logs import bind_job
from ourvidz.ports import Claimed, Journal, Known
from ourvidz.service.active import ActiveJob, Roster
from ourvidz.service.claims import Claims
from ourvidz.service.delivery import Delivery
from ourvidz.service.faults import CANCELLED, JobFailed, refusal_of
from ourvidz.service.health import JOB_DEFECT, Alarms
from ourvidz.service.parts import Parts
from ourvidz.service.spool import Spool
from ourvidz.wire import Rules, job_key, parse

log = structlog.get_logger()


@dataclass(frozen=True, slots=True)
class Owed:
    """Whom to deliver for, and the claim that holds its element."""

    job_id: str
    claim_id: str | None


@dataclass(frozen=True, slots=True)
class Flow:
    """What a job's life needs of the rest of the service."""

    rules: Rules
    claims: Claims
    journal: Journal
    roster: Roster
    parts: Parts
    delivery: Delivery
    spool: Spool
    alarms: Alarms

    async def run(self, claimed: Claimed) -> None:
        """Take one claimed element to its end; gives the claim's place in the roster back."""
        try:
            owed = await self._take(claimed)
        finally:
            self.roster.give_back(claimed.queue)
        if owed is not None:
            await self.delivery.deliver(owed.job_id, owed.claim_id)

    async def _take(self, claimed: Claimed) -> Owed | None:
        """Returns what there is to deliver."""
        try:
            parsed = parse(claimed.raw, self.rules)
        except Exception as error:
            # It promises not to raise. What proves it wrong must not come back at every start.
            log.exception("element_broke", queue=claimed.queue)
            self.alarms.ring(JOB_DEFECT)
            await self.claims.dead_letter(claimed.claim_id, f"internal error ({error!r})"[:500])
            return None
        if not await self.claims.first(claimed, parsed):
            return None
        if isinstance(parsed, InvalidJob):
            return await self._reject(claimed, parsed)
        with bind_job(parsed.id):
            return await self._accept(claimed, parsed)

    async def _reject(self, claimed: Claimed, invalid: InvalidJob) -> Owed | None:
        """Answer a payload that is no job, if it has an id. While its answer is owed its newest
        element is held: what another worker cannot find nobody would answer, if this one were gone
        for good."""
        reason = refusal_of(invalid)
        log.warning("job_invalid", job=invalid.id, queue=claimed.queue, reason=reason)
        left: str | None = claimed.claim_id
        if invalid.id is not None:
            key, body = job_key(invalid.id), self.delivery.announcer.invalid_body(invalid)
            if await self.journal.reject(invalid, body):
                return Owed(key, claimed.claim_id)
            if await self.journal.rejected(key) is not None:
                owed = await self.journal.answers(key)
                left = self.delivery.supersede(key, claimed.claim_id)
                if owed and left == claimed.claim_id:
                    return Owed(key, left)  # Its lease was lost, and this is its element again.
        if left is not None:
            await self.claims.dead_letter(left, reason)
        return None

    async def _accept(self, claimed: Claimed, spec: JobSpec) -> Owed | None:
        """Run the job unless it is known already."""
        known = await self.journal.accept(spec, claimed.queue, claimed.claim_id)
        log.info("job_claimed", queue=claimed.queue, type=spec.requested_type, known=known.value)
        if known in (Known.NEW, Known.QUEUED):
            return await self._live(claimed, spec, known)
        if known is not Known.CONFLICT:
            return await self._adopt(claimed, spec)
        await self.claims.dead_letter(claimed.claim_id, "same id, another body")
        log.error("job_conflict", queue=claimed.queue)
        return None

    async def _adopt(self, claimed: Claimed, spec: JobSpec) -> Owed | None:
        """The job is here already: a producer pushed it twice, or its lease ran out and this is its
        own element. The newest claim holds it from here on, so that in both cases one is left."""
        superseded = await self.journal.adopt(spec.id, claimed.claim_id)
        needed = superseded != claimed.claim_id
        held = needed and self._hold(claimed, spec)
        if superseded is not None:
            await self.delivery.drop(await self.journal.get(spec.id), superseded)
        return await self._take_up(claimed, spec) if needed and not held else None

    def _hold(self, claimed: Claimed, spec: JobSpec) -> bool:
        """Whether there is somebody who goes on under this claim."""
        job = self.roster.get(spec.id)
        if job is not None:
            job.claimed = claimed
        return self.delivery.adopt(spec.id, claimed.claim_id) or job is not None

    async def _take_up(self, claimed: Claimed, spec: JobSpec) -> Owed | None:
        """The job was let go when its lease was lost, and this is its element again."""
        known = await self.journal.accept(spec, claimed.queue, claimed.claim_id)
        if known is Known.QUEUED:
            return await self._live(claimed, spec, known)
        if known is Known.ENDED:
            return Owed(str(spec.id), claimed.claim_id)
        # Between two of its states: it is there when the element comes the next time.
        await self.claims.hand_back(claimed.claim_id)
        return None

    async def _live(self, claimed: Claimed, spec: JobSpec, known: Known) -> Owed | None:
        # It was handed back a moment ago, and this is another element of it.
        while (leaving := self.roster.get(spec.id)) is not None:
            await leaving.left.wait()
        with self.roster.open(spec, claimed) as job:
            job.new = known is Known.NEW
            self.spool.taken(str(spec.id))
            result = await self._result(job)
            job.decided = True
            if result is None or result.status != "completed":
                self.delivery.uploads.drop(spec.id)
            if result is None:
                await self._let_go(job)
                return None
            metrics = job.metrics()
            given_up = job.exhausted and result.status == "failed"
            letter = "its runs were cut off" if given_up else None
            result = replace(result, metrics=metrics, dead_letter=letter)
            await self.journal.finish(spec.id, result, answer=job.stop != "backend")
            if job.lost:
                await self._let_go(job, result)
                return None
            log.info(
                "job_ended",
                status=result.status,
                seconds=result.generation_seconds,
                run_seconds=metrics["run_seconds"],
                estimated_run_seconds=metrics["estimated_run_seconds"],
            )
            if result.error is not None:
                log.warning("job_error", code=result.error.code.value, reason=result.error.message)
            return Owed(str(spec.id), job.claimed.claim_id)

    async def _let_go(self, job: ActiveJob, result: JobResult | None = None) -> None:
        """Back to its queue with what there is of it. Where its end is written down already, that
        stands, and its answer is owed to the next claim."""
        if result is None or result.status == "completed":
            self.delivery.uploads.drop(job.id)
            await self.journal.requeue(job.id)
            await self.spool.left(str(job.id))
        else:
            await self.spool.remove(str(job.id))
        if job.claimed.claim_id != job.lost:
            await self.claims.hand_back(job.claimed.claim_id)
        log.info("job_let_go" if job.lost else "job_handed_back")

    async def _result(self, job: ActiveJob) -> JobResult | None:
        """How the job ends, or ``None`` where it is handed back to its queue."""
        warnings = job.spec.warnings
        try:
            result = await self.parts.run(job)
        except JobFailed as failure:
            result = JobResult("failed", error=failure.error, warnings=warnings)
        except Exception as error:
            # A defect of ours must cost this job alone.
            log.exception("job_broke")
            self.alarms.ring(JOB_DEFECT)
            message = f"internal error ({type(error).__name__})"
            failed = JobError(ErrorCode.WORKER_UNAVAILABLE, message, retryable=True)
            result = JobResult("failed", error=failed, warnings=warnings)
        if job.lost:
            return None
        if job.stop == "drain" and result.status != "completed":
            return None
        if job.stop is not None and job.stop != "drain":
            return JobResult("cancelled", error=CANCELLED, warnings=result.warnings)
        return result
