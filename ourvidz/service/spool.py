"""The jobs' folders, with their references and rendered files.

A folder is there from the job's first run until its answer is acknowledged or parked. That of a job
which is back in its queue stays, for the job may come here again.
"""

from __future__ import annotations

import contextlib
import shutil
from collections.abc import Set
from pathlib import Path
from secrets import token_hex
from typing import Final

from ourvidz.jobs import Reference

_REFERENCE: Final = "reference-"
_GONE: Final = ".gone-"


def reference_path(folder: Path, reference: Reference) -> Path:
    return folder / f"{_REFERENCE}{reference.role}"


def open_folder(folder: Path, keep: Set[str]) -> None:
    """Make the job's folder, or what is left of it ready for the next run: references and the
    files of these names stay."""
    folder.mkdir(parents=True, exist_ok=True)
    for path in list(folder.iterdir()):
        if path.name not in keep and not path.name.startswith(_REFERENCE):
            _remove(path)


def remove_folder(folder: Path) -> None:
    """Also while somebody may still write into it: it is out of everyone's reach first."""
    gone = folder.with_name(f"{_GONE}{token_hex(8)}")
    with contextlib.suppress(FileNotFoundError):
        folder.rename(gone)
    shutil.rmtree(gone, ignore_errors=True)


def folders(spool: Path) -> list[Path]:
    """The jobs' folders, the one that was last used first; others, and files, are removed."""
    if not spool.is_dir():
        return []
    found = []
    for path in spool.iterdir():
        if path.is_dir() and not path.name.startswith(_GONE):
            found.append((path.stat().st_mtime, path))
        else:
            _remove(path)
    return [path for _, path in sorted(found, reverse=True)]


def _remove(path: Path) -> None:
    if path.is_dir() and not path.is_symlink():
        shutil.rmtree(path, ignore_errors=True)
    else:
        path.unlink(missing_ok=True)
