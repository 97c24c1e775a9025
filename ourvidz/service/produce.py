"""What a job's runs yield, turned into spooled files and journal rows while the device goes on."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from uuid import UUID

import anyio
import structlog
from anyio.streams.memory import MemoryObjectReceiveStream, MemoryObjectSendStream

from ourvidz.jobs import (
    Asset,
    ErrorCode,
    ImageWork,
    JobError,
    JobResult,
    TextResult,
    TextWork,
)
from ourvidz.ports import (
    Clock,
    ImageProduced,
    Journal,
    Part,
    Renderer,
    RenderFailed,
    RunNotice,
    RunSink,
    TextChunk,
    TextDone,
    VideoProduced,
)
from ourvidz.service.active import ActiveJob
from scheduler.messages import StepReached

log = structlog.get_logger()

Picture = ImageProduced | VideoProduced


@dataclass(slots=True)
class Produced:
    """What one job has yielded so far."""

    started: float
    clock: Clock
    assets: dict[int, Asset] = field(default_factory=dict)
    failed: dict[int, JobError] = field(default_factory=dict)
    text: TextResult | None = None
    final_prompt: str | None = None
    warnings: list[str] = field(default_factory=list)
    part: Part | None = None

    def result(self, job: ActiveJob) -> JobResult:
        """The job's result once every part has finished and every file is written."""
        everything_failed = bool(self.failed) and not self.assets
        return JobResult(
            status="failed" if everything_failed else "completed",
            assets=tuple(asset for _, asset in sorted(self.assets.items())),
            text=self.text if isinstance(job.spec.final, TextWork) else None,
            error=next(iter(self.failed.values())) if everything_failed else None,
            final_prompt=self.final_prompt,
            warnings=(*job.spec.warnings, *self.warnings),
            failed=dict(sorted(self.failed.items())),
            generation_seconds=round(self.clock.monotonic() - self.started, 3),
        )


@dataclass(slots=True)
class Production:
    """One for the service; ``collect`` opens one job's collection."""

    renderer: Renderer
    journal: Journal
    clock: Clock
    on_step: Callable[[StepReached], None]
    _open: dict[UUID, tuple[Produced, MemoryObjectSendStream[Picture]]] = field(
        default_factory=dict
    )

    @asynccontextmanager
    async def collect(self, job: ActiveJob) -> AsyncIterator[Produced]:
        """Render what the job's runs yield; every file is in the journal when the block is left.

        The stream's buffer is bounded by what one job can ask for: six images or one video.
        """
        produced = Produced(self.clock.monotonic(), self.clock)
        images = job.spec.final.images if isinstance(job.spec.final, ImageWork) else 1
        send, receive = anyio.create_memory_object_stream[Picture](images)
        self._open[job.id] = (produced, send)
        failure: Exception | None = None
        try:
            async with anyio.create_task_group() as tasks:
                tasks.start_soon(self._render_all, job, produced, receive)
                with send:
                    try:
                        yield produced
                    except Exception as error:  # noqa: BLE001 - re-raised below, not in a group
                        failure = error
        finally:
            del self._open[job.id]
        if failure is not None:
            raise failure

    def begin(self, job: ActiveJob, part: Part, warnings: tuple[str, ...]) -> None:
        """A part is about to run."""
        produced, _ = self._open[job.id]
        produced.part = part
        produced.warnings += warnings
        if not isinstance(part.work, TextWork):
            produced.final_prompt = part.work.prompt

    def sink(self, job: ActiveJob) -> RunSink:
        """Where the executor reports; called on the loop's thread, never blocks."""
        produced, pictures = self._open[job.id]

        def notice(notice: RunNotice) -> None:
            match notice:
                case StepReached():
                    job.reach(notice.lease.phase, notice.step)
                    self.on_step(notice)
                case ImageProduced() | VideoProduced():
                    pictures.send_nowait(notice)
                case TextChunk():
                    job.log.publish("delta", {"part": job.part, "text": notice.text})
                case TextDone():
                    produced.text = TextResult(
                        notice.text, notice.prompt_tokens, notice.tokens, notice.finish_reason
                    )

        return notice

    async def _render_all(
        self,
        job: ActiveJob,
        produced: Produced,
        pictures: MemoryObjectReceiveStream[Picture],
    ) -> None:
        with pictures:
            async for picture in pictures:
                await self._render(job, produced, picture)

    async def _render(self, job: ActiveJob, produced: Produced, picture: Picture) -> None:
        part = produced.part
        assert part is not None, "a run yields only after its part began"
        index = picture.index if isinstance(picture, ImageProduced) else 0
        try:
            if isinstance(picture, ImageProduced):
                asset = await self.renderer.image(part, picture)
            else:
                asset = await self.renderer.video(part, picture)
        except RenderFailed as error:
            log.warning("asset_failed", index=index, reason=str(error))
            produced.failed[index] = JobError(
                ErrorCode.WORKER_UNAVAILABLE, str(error), error.retryable
            )
            return
        await self.journal.add_asset(job.id, asset)
        produced.assets[index] = asset
        job.log.publish("asset", {"index": index, "sha256": asset.sha256, "mime": asset.mime})
