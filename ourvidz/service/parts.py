"""What a job is made of: its parts, one after the other, as far as earlier runs have not made them.

Before the first of them comes admission, and the references are fetched; what a part's run has made
is in the journal and the spool when it ends.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import TypeVar

import anyio
import structlog

from ourvidz.jobs import (
    ErrorCode,
    JobError,
    JobResult,
    JobState,
    Reference,
    TextResult,
    TextWork,
    Work,
    pictures_of,
)
from ourvidz.ports import (
    Admission,
    DiskRefused,
    Executor,
    Journal,
    Part,
    Plan,
    PlanRejected,
    ReferenceFailed,
    References,
)
from ourvidz.service.active import ActiveJob, part_id
from ourvidz.service.demand import Demands
from ourvidz.service.disk import Disk
from ourvidz.service.earlier import Earlier, find_earlier
from ourvidz.service.engine import Engine
from ourvidz.service.faults import CANCELLED, JobFailed, settle_error
from ourvidz.service.health import STORE_UNAVAILABLE, Alarms
from ourvidz.service.metrics import Metrics
from ourvidz.service.produce import Produced, Production
from ourvidz.service.progress import ProgressReporter
from ourvidz.service.spool import Spool, reference_path
from scheduler.messages import CancelRequested, JobArrived
from scheduler.types import Outcome

log = structlog.get_logger()

# Between two series of attempts at a storage that is away.
_STORE_SECONDS = 5.0

T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class Parts:
    """Runs the parts of jobs, ``attempts_max`` times at most where a run is cut off."""

    attempts_max: int
    journal: Journal
    executor: Executor
    references: References
    admission: Admission
    production: Production
    engine: Engine
    demands: Demands
    spool: Spool
    disk: Disk
    reporter: ProgressReporter
    metrics: Metrics
    alarms: Alarms

    async def run(self, job: ActiveJob) -> JobResult:
        """Take the job through all of its parts. Raises ``JobFailed``."""
        earlier = await self._earlier(job)
        references: Mapping[str, Path] = {}
        if any(earlier.missing(job.spec, part) for part in range(len(job.spec.works))):
            self._check_attempts(job)
            with job.preparing:
                references = await self._prepare(job)
        if job.stop is not None:
            return JobResult("cancelled", error=CANCELLED, warnings=job.spec.warnings)
        async with self.reporter.report(job), self.production.collect(job, earlier) as produced:
            for index in range(len(job.spec.works)):
                job.part, job.phase, job.step = index, 0, 0
                await self._take_part(job, references, earlier, produced)
            job.ran = True
        await self.spool.rendered(str(job.id))
        result = produced.result(job)
        self.metrics.job_seconds.labels(job.spec.requested_type).observe(result.generation_seconds)
        return result

    async def _earlier(self, job: ActiveJob) -> Earlier:
        """What is there of the job, which is from here on what was accepted: what earlier runs have
        made belongs to that, and another configuration may read the payload differently."""
        if not job.new:
            record = await self.journal.get(job.id)
            job.spec = job.spec if record is None else record.spec
        folder = self.spool.folder(str(job.id))
        return await self._kept(
            job, lambda: find_earlier(self.journal, job.spec, folder, new=job.new)
        )

    def _check_attempts(self, job: ActiveJob) -> None:
        """Raises ``JobFailed`` for a job whose runs were cut off too often."""
        limit = self.attempts_max
        if job.claimed.attempts >= limit:
            job.exhausted = True
            message = f"given up: {job.claimed.attempts} runs were cut off, {limit} are allowed"
            raise JobFailed(JobError(ErrorCode.WORKER_UNAVAILABLE, message))

    async def _prepare(self, job: ActiveJob) -> Mapping[str, Path]:
        """Admission and references, which an earlier run may have fetched: their URLs expire.
        Raises ``JobFailed``."""
        refusal = await self.admission.admit(job.spec)
        if refusal is not None:
            raise JobFailed(refusal)
        paths: dict[str, Path] = {}
        for reference in getattr(job.spec.final, "references", ()):
            path = reference_path(self.spool.folder(str(job.id)), reference)
            if not path.exists():
                await self._fetch(job, reference, path)
            paths[reference.role] = path
        return paths

    async def _fetch(self, job: ActiveJob, reference: Reference, path: Path) -> None:
        """A storage of ours that is away is waited for, as uploads do. Raises ``JobFailed``."""
        cause = f"reference of {job.id}"
        try:
            while True:
                try:
                    await self._kept(job, partial(self.references.fetch, reference, path))
                except ReferenceFailed as failure:
                    if not failure.store_away:
                        raise JobFailed(failure.error) from failure
                    log.warning("store_unavailable", reason=failure.error.message)
                    self.alarms.ring(STORE_UNAVAILABLE, cause)
                    await anyio.sleep(_STORE_SECONDS)
                else:
                    return
        finally:
            self.alarms.silence(STORE_UNAVAILABLE, cause)

    async def _kept(self, job: ActiveJob, write: Callable[[], Awaitable[T]]) -> T:
        """Wait for a disk that is full, as long as the job is wanted. Raises ``JobFailed``."""
        try:
            return await self.disk.keep(write, lambda: job.stop is None)
        except DiskRefused as full:
            error = JobError(ErrorCode.WORKER_UNAVAILABLE, str(full), retryable=True)
            raise JobFailed(error) from full

    async def _take_part(
        self, job: ActiveJob, references: Mapping[str, Path], earlier: Earlier, produced: Produced
    ) -> None:
        """See to it that all of the part at hand is there. Raises ``JobFailed``."""
        spec, index = job.spec, job.part
        work = _with_prompt(spec.works[index], produced.text) if index else spec.works[index]
        wanted = earlier.wanted(spec, index)
        folder = self.spool.folder(str(spec.id))
        part = Part(part_id(spec, index), spec, work, references, folder, wanted)
        if not earlier.missing(spec, index):
            await self._pass_over(job, part)
            produced.text = earlier.texts.get(index)
            return
        await self._run_part(job, part)
        if index + 1 < len(spec.works) and produced.text is not None:
            # What the next part makes of it must not meet another text after a restart.
            await self.journal.add_text(spec.id, index, produced.text)

    async def _pass_over(self, job: ActiveJob, part: Part) -> None:
        """Earlier runs have made all of the part. What there is to say of it is said again."""
        try:
            plan = await self.executor.plan(part)
        except PlanRejected:
            plan = Plan((), (), "")  # The model that made it is not here any more.
        finally:
            self.executor.forget(part.id)
        job.pass_over(plan.phases)
        self.production.begin(job, part, plan.warnings)

    async def _run_part(self, job: ActiveJob, part: Part) -> None:
        """Bring one part to the scheduler and wait for its end. Raises ``JobFailed``."""
        job.resumed = job.resumed or len(part.pictures) < pictures_of(part.work)
        try:
            plan = await self.executor.plan(part)
            demand = self.demands.demand(job, part, plan.phases)
            job.planned.append(plan.phases)
            job.phases.append(demand.phases)
            self.production.begin(job, replace(part, model=plan.model), plan.warnings)
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
            raise JobFailed(settle_error(settled, part.work) if failed else CANCELLED)


def _with_prompt(work: Work, text: TextResult | None) -> Work:
    """The second part of a chain runs with the first one's text. Raises ``JobFailed``."""
    if text is None or not text.text.strip():
        raise JobFailed(JobError(ErrorCode.INVALID_PROMPT, "the enhancement gave no text"))
    if isinstance(work, TextWork):
        raise TypeError("a chain ends with an image or a video")
    return replace(work, prompt=text.text)
