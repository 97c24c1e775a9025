"""What earlier runs of a job have left, so that no run makes it once more.

The journal tells what was finished: each text that another part builds on, each rendered file with
its digest. A disk may have forgotten the files (an ephemeral one does), so each is read before it
counts; what is not as the journal says is made again.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import anyio
import structlog

from ourvidz.jobs import Asset, JobSpec, TextResult, TextWork, pictures_of
from ourvidz.ports import Journal
from ourvidz.service.spool import is_whole, open_folder

log = structlog.get_logger()


@dataclass(frozen=True, slots=True)
class Earlier:
    """``texts`` by part, ``assets`` by index: whole, and in the journal."""

    texts: Mapping[int, TextResult]
    assets: Mapping[int, Asset]

    def missing(self, spec: JobSpec, part: int) -> bool:
        """Whether the part has to run."""
        work = spec.works[part]
        if isinstance(work, TextWork):
            return part not in self.texts
        return bool(self.wanted(spec, part))

    def wanted(self, spec: JobSpec, part: int) -> tuple[int, ...]:
        """The pictures that the part is still to yield."""
        count = pictures_of(spec.works[part])
        return tuple(index for index in range(count) if index not in self.assets)


async def find_earlier(journal: Journal, spec: JobSpec, folder: Path, *, new: bool) -> Earlier:
    """Look at what is left of the job, and leave nothing else in its folder, which is made if it
    is not there. A new job is not asked for."""
    if new:
        await anyio.to_thread.run_sync(open_folder, folder, frozenset())
        return Earlier({}, {})
    texts = await journal.texts(spec.id)
    assets = await journal.assets(spec.id)
    if len(texts) < len(spec.works) - 1:
        assets = ()  # Nobody knows any more of which prompt they are.
    whole = await anyio.to_thread.run_sync(_whole, folder, assets)
    if texts or assets:
        lost = len(assets) - len(whole)
        log.info("job_goes_on", texts=len(texts), files=len(whole), files_lost=lost)
    return Earlier(texts, {asset.index: asset for asset in whole})


def _whole(folder: Path, assets: Sequence[Asset]) -> list[Asset]:
    whole = [asset for asset in assets if is_whole(asset)]
    paths = [path for asset in whole for path in (asset.path, asset.thumbnail_path) if path]
    open_folder(folder, keep={Path(path).name for path in paths})
    return whole
