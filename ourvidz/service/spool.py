"""The jobs' folders, with their references and rendered files.

A folder is there from the job's first run until its answer is acknowledged or parked. That of a job
which is back in its queue stays, for the job may come here again; of those there are so many, and
the ones that have waited longest go.
"""

from __future__ import annotations

import hashlib
import shutil
from collections.abc import Awaitable, Callable, Set
from dataclasses import dataclass, field
from pathlib import Path
from secrets import token_hex
from typing import Final

import anyio
import structlog

from ourvidz.jobs import Asset, Reference
from ourvidz.ports import STATE_FOLDER

log = structlog.get_logger()

_REFERENCE: Final = "reference-"
_GONE: Final = ".gone-"
# As many jobs can be cut off, or lose their leases, at a time as are begun: far fewer than these.
_WAITING_MAX: Final = 100


@dataclass(slots=True)
class Spool:
    """Every folder of one service, by job id. ``root`` need not be there. ``_waiting`` are those of
    jobs that are not here, the longest first."""

    root: Path
    _waiting: dict[str, None] = field(default_factory=dict)

    def folder(self, job_id: str) -> Path:
        return self.root / job_id

    def taken(self, job_id: str) -> None:
        """The job is here again."""
        self._waiting.pop(job_id, None)

    async def left(self, job_id: str) -> None:
        """The job is back in its queue."""
        self._waiting[job_id] = None
        if len(self._waiting) > _WAITING_MAX:
            await self.remove(next(iter(self._waiting)))

    async def remove(self, job_id: str) -> None:
        """Also while somebody may still write into the folder, and while its job may come again: it
        is out of everyone's reach at once."""
        self._waiting.pop(job_id, None)
        await self._remove(self.folder(job_id))

    async def rendered(self, job_id: str) -> None:
        """All files of the job are there: nobody needs to go on with its run."""
        await self._remove(self.folder(job_id) / STATE_FOLDER)

    async def _remove(self, folder: Path) -> None:
        gone = self.root / f"{_GONE}{token_hex(8)}"
        if not _renamed(folder, gone):
            return
        with anyio.CancelScope(shield=True):
            await anyio.to_thread.run_sync(shutil.rmtree, gone, True)

    async def sweep(self, waits: Callable[[str], Awaitable[bool | None]]) -> None:
        """At the start: drop the folders that nobody will ask for, as a crash kept their jobs from
        doing so. ``waits`` tells of a job whether it is in its queue, and nothing where it has
        ended."""
        for name in await anyio.to_thread.run_sync(_folders, self.root):
            found = await waits(name)
            if found:
                await self.left(name)
            elif found is None:
                await self.remove(name)


def reference_path(folder: Path, reference: Reference) -> Path:
    return folder / f"{_REFERENCE}{reference.role}"


def is_whole(asset: Asset) -> bool:
    """Whether the file is as it was when it was written; reads all of it."""
    path = Path(asset.path)
    try:
        if path.stat().st_size != asset.size_bytes:
            return False
        with path.open("rb") as file:
            return hashlib.file_digest(file, "sha256").hexdigest() == asset.sha256
    except OSError:
        return False


def open_folder(folder: Path, keep: Set[str]) -> None:
    """Make the job's folder, or what is left of it ready for the next run: references, the
    executor's state and the files of these names stay."""
    folder.mkdir(parents=True, exist_ok=True)
    for path in list(folder.iterdir()):
        kept = path.name in keep or path.name == STATE_FOLDER
        if not kept and not path.name.startswith(_REFERENCE):
            _remove(path)


def _renamed(folder: Path, new: Path) -> bool:
    """Not in a thread, so that nothing else happens meanwhile; false if there is none, or it cannot
    be moved: what is left is a matter of the next start, not of the job."""
    try:
        folder.rename(new)
    except FileNotFoundError:
        return False
    except OSError as error:
        log.warning("folder_left", folder=str(folder), reason=str(error))
        return False
    return True


def _folders(spool: Path) -> list[str]:
    """The jobs' folders, the one that was used longest ago first; what is none is removed."""
    if not spool.is_dir():
        return []
    found = []
    for path in spool.iterdir():
        if path.is_dir() and not path.name.startswith(_GONE):
            found.append((path.stat().st_mtime, path.name))
        else:
            _remove(path)
    return [name for _, name in sorted(found)]


def _remove(path: Path) -> None:
    if path.is_dir() and not path.is_symlink():
        shutil.rmtree(path, ignore_errors=True)
    else:
        path.unlink(missing_ok=True)
