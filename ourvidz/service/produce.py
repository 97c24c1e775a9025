"""What a job's runs yield, turned into spooled files and journal rows while the device goes on."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from uuid import UUID

import anyio
import structlog

from ourvidz.jobs import (
    Asset,
    ErrorCode,
    JobError,
    JobResult,
    TextResult,
    TextWork,
    pictures_of,
)
from ourvidz.ports import (
    Clock,
    DiskRefused,
    ImageProduced,
    Journal,
    Part,
    Picture,
    Renderer,
    RenderFailed,
    RunNotice,
    RunSink,
    StateSaved,
    TextChunk,
    TextDone,
    VideoProduced,
)
from ourvidz.service.active import ActiveJob
from ourvidz.service.disk import Disk
from ourvidz.service.earlier import Earlier
from ourvidz.service.health import STATE_NOT_SAVED, Alarms
from ourvidz.service.signal import Signal
from scheduler.messages import StepReached

log = structlog.get_logger()


@dataclass(slots=True)
class Produced:
    """What one job has yielded so far.

    ``pictures`` wait to be rendered, by index: as many at most as one job may ask for. ``seen`` are
    the indices that have come; a run that is repeated after an out-of-memory error yields the same
    pictures once more. ``closed`` when nothing more will come, ``dropped`` if nobody wants it any
    more. ``unwritten``: why a picture that is good has no file.
    """

    started: float
    clock: Clock
    assets: dict[int, Asset] = field(default_factory=dict)
    failed: dict[int, JobError] = field(default_factory=dict)
    text: TextResult | None = None
    final_prompt: str | None = None
    warnings: list[str] = field(default_factory=list)
    part: Part | None = None
    pictures: dict[int, Picture] = field(default_factory=dict)
    seen: set[int] = field(default_factory=set)
    closed: bool = False
    dropped: bool = False
    unwritten: JobError | None = None
    changed: Signal = field(default_factory=Signal)

    def take(self, picture: Picture) -> None:
        """One more picture to render."""
        index = picture.index if isinstance(picture, ImageProduced) else 0
        if index not in self.seen and not self.closed:
            self.seen.add(index)
            self.pictures[index] = picture
            self.changed.notify()

    def close(self, *, drop: bool) -> None:
        """Nothing more will come; ``drop`` what is not rendered yet."""
        self.closed, self.dropped = True, drop
        if drop:
            self.pictures.clear()
        self.changed.notify()

    def result(self, job: ActiveJob) -> JobResult:
        """The job's result once every part has finished and every file is written."""
        work = job.spec.final
        error: JobError | None = None
        if isinstance(work, TextWork):
            error = None if self.text is not None else _missing("no text")
        else:
            for index in range(pictures_of(work)):
                if index not in self.assets and index not in self.failed:
                    self.failed[index] = _missing(f"no image {index}")
            error = None if self.assets else next(iter(self.failed.values()))
            error = self.unwritten or error
        return JobResult(
            status="completed" if error is None else "failed",
            assets=tuple(asset for _, asset in sorted(self.assets.items())),
            text=self.text if isinstance(work, TextWork) else None,
            error=error,
            final_prompt=self.final_prompt,
            warnings=(*job.spec.warnings, *self.warnings),
            failed=dict(sorted(self.failed.items())),
            generation_seconds=round(self.clock.monotonic() - self.started, 3),
        )


@dataclass(slots=True)
class Production:
    """One for the service; ``collect`` opens one job's collection. ``on_asset`` is told of every
    file once it is in the journal."""

    renderer: Renderer
    journal: Journal
    clock: Clock
    disk: Disk
    on_step: Callable[[StepReached], None]
    on_asset: Callable[[UUID, Asset], None]
    alarms: Alarms
    _open: dict[UUID, Produced] = field(default_factory=dict)

    @asynccontextmanager
    async def collect(self, job: ActiveJob, earlier: Earlier) -> AsyncIterator[Produced]:
        """Render what the job's runs yield; every file is in the journal when the block is left.
        What earlier runs have left counts as yielded by this one.

        After an error in the block what is not rendered yet is dropped.
        """
        produced = Produced(self.clock.monotonic(), self.clock)
        self._open[job.id] = produced
        for asset in earlier.assets.values():
            produced.seen.add(asset.index)
            self._is_there(job, produced, asset)
        failure: Exception | None = None
        try:
            async with anyio.create_task_group() as tasks:
                tasks.start_soon(self._render_all, job, produced)
                try:
                    yield produced
                except Exception as error:  # noqa: BLE001 - re-raised below, not in a group
                    failure = error
                finally:
                    produced.close(drop=failure is not None)
        finally:
            del self._open[job.id]
        if failure is not None:
            raise failure

    def begin(self, job: ActiveJob, part: Part, warnings: tuple[str, ...]) -> None:
        """A part is about to run."""
        produced = self._open[job.id]
        produced.part = part
        produced.warnings += warnings
        if not isinstance(part.work, TextWork):
            produced.final_prompt = part.work.prompt

    def sink(self, job: ActiveJob) -> RunSink:
        """Where the executor reports; called on the loop's thread, never blocks."""
        produced = self._open[job.id]

        def notice(notice: RunNotice) -> None:
            match notice:
                case StepReached():
                    job.reach(notice.lease.phase, notice.step)
                    self.on_step(notice)
                case ImageProduced() | VideoProduced():
                    produced.take(notice)
                case TextChunk():
                    job.log.publish("delta", {"part": job.part, "text": notice.text})
                case TextDone():
                    produced.text = TextResult(
                        notice.text, notice.prompt_tokens, notice.tokens, notice.finish_reason
                    )
                case StateSaved():
                    self._saved(notice)

        return notice

    def _saved(self, notice: StateSaved) -> None:
        if notice.error is None:
            self.alarms.silence(STATE_NOT_SAVED)
        else:
            log.error("state_not_saved", part=notice.part, reason=notice.error)
            self.alarms.ring(STATE_NOT_SAVED)

    async def _render_all(self, job: ActiveJob, produced: Produced) -> None:
        while True:
            changed = produced.changed.ticket
            if produced.pictures:
                index = next(iter(produced.pictures))
                await self._render(job, produced, index, produced.pictures.pop(index))
            elif produced.closed:
                return
            else:
                await changed.wait()

    async def _render(
        self, job: ActiveJob, produced: Produced, index: int, picture: Picture
    ) -> None:
        part = produced.part
        assert part is not None, "a run yields only after its part began"
        try:
            asset = await self._written(job, produced, part, picture)
            await self.journal.add_asset(job.id, asset)
        except DiskRefused as full:
            produced.unwritten = JobError(ErrorCode.WORKER_UNAVAILABLE, str(full), retryable=True)
        except RenderFailed as error:
            log.warning("asset_failed", index=index, reason=str(error))
            produced.failed[index] = JobError(ErrorCode.WORKER_UNAVAILABLE, str(error))
        except Exception as error:
            # Whatever an encoder or the disk does to one image, the others go on.
            log.exception("asset_broke", index=index)
            reason = f"the image could not be written ({type(error).__name__})"
            produced.failed[index] = JobError(ErrorCode.WORKER_UNAVAILABLE, reason, retryable=True)
        else:
            self._is_there(job, produced, asset)

    def _is_there(self, job: ActiveJob, produced: Produced, asset: Asset) -> None:
        """The file is in spool and journal."""
        produced.assets[asset.index] = asset
        if job.stop is None:
            self.on_asset(job.id, asset)
        told = {"index": asset.index, "sha256": asset.sha256, "mime": asset.mime}
        job.log.publish("asset", told)

    async def _written(
        self, job: ActiveJob, produced: Produced, part: Part, picture: Picture
    ) -> Asset:
        """The picture's file, for which the disk is waited for as long as somebody wants the job
        here. Raises ``RenderFailed``, ``DiskRefused``."""

        async def write() -> Asset:
            if isinstance(picture, ImageProduced):
                return await self.renderer.image(part, picture)
            return await self.renderer.video(part, picture)

        return await self.disk.keep(write, lambda: job.stop is None and not produced.dropped)


def _missing(what: str) -> JobError:
    return JobError(ErrorCode.WORKER_UNAVAILABLE, f"the run gave {what}", retryable=True)
