"""Files that appear whole or not at all, also after a power cut."""

from __future__ import annotations

import errno
import hashlib
import os
import secrets
from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple


class Written(NamedTuple):
    """What a finished file holds: its hex SHA-256 and its size."""

    sha256: str
    size_bytes: int


def write_atomically(path: Path, write: Callable[[Path], object]) -> Written:
    """Let ``write`` fill a temporary file beside ``path``, then move it into place durably.

    ``write`` gets a path that does not exist yet and must leave a regular file there. A failure
    leaves ``path`` as it was and no temporary file. The folder must exist. Raises what ``write``
    raises, and ``OSError``.
    """
    temporary = path.with_name(f".{secrets.token_hex(8)}.tmp")
    try:
        write(temporary)
        with temporary.open("rb") as file:
            digest = hashlib.file_digest(file, "sha256").hexdigest()
            os.fsync(file.fileno())
            size = os.fstat(file.fileno()).st_size
        temporary.replace(path)
    except BaseException:
        temporary.unlink(missing_ok=True)
        raise
    sync_folder(path.parent)
    return Written(digest, size)


def make_folders(folder: Path) -> None:
    """Create ``folder`` and its missing parents so that they outlive a power cut."""
    missing = [p for p in (folder, *folder.parents) if not p.exists()]
    folder.mkdir(parents=True, exist_ok=True)
    for made in missing:
        sync_folder(made.parent)


def errno_name(error: OSError) -> str:
    """``ENOSPC`` and the like: an ``OSError`` for people, without the paths in its message."""
    return errno.errorcode.get(error.errno or 0, type(error).__name__)


def sync_folder(folder: Path) -> None:
    """Make the folder's entries durable."""
    descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
