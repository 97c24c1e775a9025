"""The life of one job, claim to acknowledgement, in one readable coroutine.

``Flow.run`` is steps 2 to 8 of a job's life: parse, admit, reside and run (the engine's business,
awaited here), spool, deliver, acknowledge. Every way out leaves the job in the journal or back in
its queue. A defect that one job meets is that job's end: it is answered as failed, with an alarm.
Only where that cannot be written down, as the journal does not work, the service goes down with
its leases recoverable.
"""

from __future__ import annotations

import shutil
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path

import anyio
import structlog

from ourvidz.config.settings import Settings
from ourvidz.jobs import (
    ErrorCode,
    InvalidJob,
    JobError,
    JobResult,
    JobSpec,
    JobState,
    TextResult,
    TextWork,
    Work,
)
from ourvidz.logs import bind_job
from ourvidz.ports import (
    Admission,
    Claimed,
    Executor,
    Journal,
    Known,
    Part,
    PlanRejected,
    ReferenceFailed,
    References,
)
from ourvidz.service.active import ActiveJob, Roster, part_id
from ourvidz.service.claims import Claims
from ourvidz.service.delivery import Delivery
from ourvidz.service.demand import Demands
from ourvidz.service.engine import Engine
from ourvidz.service.faults import CANCELLED, JobFailed, settle_error
from ourvidz.service.health import JOB_DEFECT, Alarms
from ourvidz.service.metrics import Metrics
from ourvidz.service.produce import Production
from ourvidz.service.progress import ProgressReporter
from ourvidz.wire import Rules, parse
from scheduler.messages import CancelRequested, JobArrived
from scheduler.types import Outcome

log = structlog.get_logger()


@dataclass(frozen=True, slots=True)
class Flow:
    """What a job's life needs of the rest of the service."""

    settings: Settings
    rules: Rules
    source: Claims
    journal: Journal
    executor: Executor
    references: References
    admission: Admission
    production: Production
    engine: Engine
    roster: Roster
    demands: Demands
    delivery: Delivery
    reporter: ProgressReporter
    alarms: Alarms
    metrics: Metrics

    async def run(self, claimed: Claimed) -> None:
        """Take one claimed element to its end; gives the claim's place in the roster back."""
        try:
            owed = await self._take(claimed)
        finally:
            self.roster.give_back(claimed.queue)
        if owed is not None:
            await self.delivery.deliver(owed)

    async def _take(self, claimed: Claimed) -> str | None:
        """Returns the id to deliver for, if there is something to deliver."""
        try:
            parsed = parse(claimed.raw, self.rules)
        except Exception as error:
            # It promises not to raise. What proves it wrong must not come back at every start.
            log.exception("element_broke", queue=claimed.queue)
            self.alarms.ring(JOB_DEFECT)
            await self.source.dead_letter(claimed.claim_id, f"internal error ({error!r})"[:500])
            return None
        if not await self.source.first(claimed, parsed):
            return None
        if isinstance(parsed, InvalidJob):
            return await self._reject(claimed, parsed)
        with bind_job(parsed.id):
            return await self._accept(claimed, parsed)

    async def _reject(self, claimed: Claimed, invalid: InvalidJob) -> str | None:
        """Answer a payload that is no job; returns the id to deliver for, if it has one."""
        reason = f"{invalid.error.code.value}: {invalid.error.message}"
        log.warning("job_invalid", job=invalid.id, queue=claimed.queue, reason=reason)
        owed = False
        if invalid.id is not None:
            body = self.delivery.invalid_body(invalid)
            owed = await self.journal.reject(invalid, None, body)
        await self.source.dead_letter(claimed.claim_id, reason)
        return invalid.id if owed else None

    async def _accept(self, claimed: Claimed, spec: JobSpec) -> str | None:
        """Run the job unless it is known already; returns the id to deliver for."""
        known = await self.journal.accept(spec, claimed.queue, claimed.claim_id)
        log.info("job_claimed", queue=claimed.queue, type=spec.requested_type, known=known.value)
        if known in (Known.NEW, Known.QUEUED):
            return await self._live(claimed, spec)
        if known is Known.CONFLICT:
            await self.source.dead_letter(claimed.claim_id, "same id, another body")
            log.error("job_conflict", queue=claimed.queue)
        else:
            await self._adopt(claimed, spec)
        return None

    async def _adopt(self, claimed: Claimed, spec: JobSpec) -> None:
        """The job is here already: a producer pushed it twice, or its lease ran out and this is its
        own element. The newest claim holds it from here on, so that in both cases one is left."""
        superseded = await self.journal.adopt(spec.id, claimed.claim_id)
        if superseded != claimed.claim_id:
            job = self.roster.get(spec.id)
            if job is not None:
                job.claimed = claimed
            self.delivery.adopt(spec.id, claimed.claim_id)
        if superseded is not None:
            await self.source.acknowledge(superseded)

    async def _live(self, claimed: Claimed, spec: JobSpec) -> str | None:
        # It was handed back a moment ago, and this is another element of it.
        while (leaving := self.roster.get(spec.id)) is not None:
            await leaving.left.wait()
        with self.roster.open(spec, claimed) as job:
            result = await self._result(job)
            job.decided = True
            if result is None or result.status != "completed":
                self.delivery.uploads.drop(spec.id)
            if result is None:
                await self.journal.requeue(spec.id)
                await self.source.hand_back(job.claimed.claim_id)
                log.info("job_handed_back")
                return None
            metrics = job.metrics()
            result = replace(result, metrics=metrics)
            await self.journal.finish(spec.id, result, answer=job.stop != "backend")
            if job.exhausted and result.status == "failed":
                await self.source.dead_letter(job.claimed.claim_id, "its runs were cut off")
            log.info(
                "job_ended",
                status=result.status,
                seconds=result.generation_seconds,
                run_seconds=metrics["run_seconds"],
                estimated_run_seconds=metrics["estimated_run_seconds"],
            )
            if result.error is not None:
                log.warning("job_error", code=result.error.code.value, reason=result.error.message)
        return str(spec.id)

    async def _result(self, job: ActiveJob) -> JobResult | None:
        """How the job ends, or ``None`` where it is handed back to its queue."""
        warnings = job.spec.warnings
        try:
            result = await self._attempt(job)
        except JobFailed as failure:
            result = JobResult("failed", error=failure.error, warnings=warnings)
        except Exception as error:
            # A defect of ours must cost this job alone.
            log.exception("job_broke")
            self.alarms.ring(JOB_DEFECT)
            message = f"internal error ({type(error).__name__})"
            failed = JobError(ErrorCode.WORKER_UNAVAILABLE, message, retryable=True)
            result = JobResult("failed", error=failed, warnings=warnings)
        if job.stop == "drain" and result.status != "completed":
            return None
        if job.stop is not None and job.stop != "drain":
            return JobResult("cancelled", error=CANCELLED, warnings=result.warnings)
        return result

    async def _attempt(self, job: ActiveJob) -> JobResult:
        limit = self.settings.intake.attempts_max
        if job.claimed.attempts >= limit:
            job.exhausted = True
            message = f"given up: {job.claimed.attempts} runs were cut off, {limit} are allowed"
            raise JobFailed(JobError(ErrorCode.WORKER_UNAVAILABLE, message))
        spool = self.spool(job.spec)
        await anyio.to_thread.run_sync(_fresh_folder, spool)
        references: Mapping[str, Path] = {}
        with job.preparing:
            references = await self._prepare(job, spool)
        if job.stop is not None:
            return JobResult("cancelled", error=CANCELLED, warnings=job.spec.warnings)
        async with self.reporter.report(job), self.production.collect(job) as produced:
            works = job.spec.works
            for index, work in enumerate(works):
                job.part, job.phase, job.step = index, 0, 0
                ready = _with_prompt(work, produced.text) if index else work
                await self._run_part(job, ready, references, spool)
            job.ran = True
        result = produced.result(job)
        self.metrics.job_seconds.labels(job.spec.requested_type).observe(result.generation_seconds)
        return result

    async def _prepare(self, job: ActiveJob, spool: Path) -> Mapping[str, Path]:
        """Admission and references. Raises ``JobFailed``."""
        refusal = await self.admission.admit(job.spec)
        if refusal is not None:
            raise JobFailed(refusal)
        paths: dict[str, Path] = {}
        for reference in getattr(job.spec.final, "references", ()):
            path = spool / f"reference-{reference.role}"
            try:
                await self.references.fetch(reference, path)
            except ReferenceFailed as failure:
                raise JobFailed(failure.error) from failure
            paths[reference.role] = path
        return paths

    async def _run_part(
        self, job: ActiveJob, work: Work, references: Mapping[str, Path], spool: Path
    ) -> None:
        """Bring one part to the scheduler and wait for its end. Raises ``JobFailed``."""
        part = Part(part_id(job.spec, job.part), job.spec, work, references, spool)
        try:
            plan = await self.executor.plan(part)
            demand = self.demands.demand(job, part, plan.phases)
            job.planned.append(plan.phases)
            job.phases.append(demand.phases)
            self.production.begin(job, part, plan.warnings)
            self.executor.begin(part, self.production.sink(job))
            if job.state is JobState.CLAIMED:
                await self.journal.move(job.id, JobState.WAITING)
                job.change(JobState.WAITING)
            job.scheduled = True
            await self.engine.put(JobArrived(demand))
            if job.stop is not None:
                await self.engine.put(CancelRequested(part.id))
            settled = await job.wait_settled()
        except PlanRejected as rejected:
            raise JobFailed(rejected.error) from rejected
        finally:
            job.scheduled = False
            self.executor.forget(part.id)
        if settled.outcome is not Outcome.FINISHED:
            failed = settled.outcome is not Outcome.CANCELLED
            raise JobFailed(settle_error(settled, work) if failed else CANCELLED)

    def spool(self, spec: JobSpec) -> Path:
        """The job's own folder for references and rendered files."""
        return self.settings.service.data_dir / "spool" / str(spec.id)


def _with_prompt(work: Work, text: TextResult | None) -> Work:
    """The second part of a chain runs with the first one's text. Raises ``JobFailed``."""
    if text is None or not text.text.strip():
        raise JobFailed(JobError(ErrorCode.INVALID_PROMPT, "the enhancement gave no text"))
    if isinstance(work, TextWork):
        raise TypeError("a chain ends with an image or a video")
    return replace(work, prompt=text.text)


def _fresh_folder(path: Path) -> None:
    shutil.rmtree(path, ignore_errors=True)
    path.mkdir(parents=True)
