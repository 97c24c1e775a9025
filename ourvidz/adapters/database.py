"""SQLite behind one thread: operations queue up, each batch is one durable transaction.

Group commit: whatever waits when the thread comes round shares one fsync. Each operation runs in
a savepoint of its own, so that one that fails takes no other with it. WAL with synchronous=FULL:
when ``run`` returns, the change has reached the disk.
"""

from __future__ import annotations

import asyncio
import contextlib
import copy
import fcntl
import os
import queue
import re
import sqlite3
import threading
from collections.abc import Callable
from concurrent.futures import Future
from pathlib import Path
from typing import Any, TypeVar

import anyio

from ourvidz.errors import DataDirBusy, DataDirError

T = TypeVar("T")
Operation = Callable[[sqlite3.Connection], T]

# One fsync serves at most so many operations: bounds the latency of the first in the batch.
_GROUP_MAX = 256
# SQLite's locks are not reliable there, and an fsync may not reach a disk.
_NETWORK_FILESYSTEMS = frozenset(
    {
        *("nfs", "nfs4", "cifs", "smb", "smb2", "smb3", "smbfs", "9p", "afs", "ceph", "coda"),
        *("glusterfs", "lustre", "beegfs", "gpfs", "ocfs2", "gfs2", "orangefs", "pvfs2", "panfs"),
        *("moosefs", "wekafs", "ncpfs", "fhgfs"),
        *("fuse.sshfs", "fuse.s3fs", "fuse.rclone", "fuse.gcsfuse", "fuse.glusterfs"),
        *("fuse.mfs", "fuse.juicefs", "fuse.ceph", "fuse.ceph-fuse", "fuse.goofys"),
        *("fuse.geesefs", "fuse.mount-s3", "fuse.moosefs", "fuse.nfs", "fuse.curlftpfs"),
        *("fuse.davfs2", "fuse.blobfuse", "fuse.blobfuse2", "fuse.cifs", "fuse.smbnetfs"),
    }
)
_OCTAL = re.compile(r"\\([0-7]{3})")


def filesystem_type(path: Path, mountinfo: str) -> str:
    """The type of the file system that holds ``path``, from ``/proc/self/mountinfo``'s text.

    A FUSE file system that names itself only in its source (``name#server``) is ``fuse.name``.
    Source of the format: proc(5).
    """
    best, kind = -1, "unknown"
    for line in mountinfo.split("\n"):
        left, _, right = line.partition(" - ")
        fields, described = left.split(" "), right.split(" ")
        if len(fields) < 5 or len(described) < 2:
            continue
        mount = Path(_unescape(fields[4]))
        # Of several on one mount point the last one covers the others.
        if path.is_relative_to(mount) and len(mount.parts) >= best:
            best, kind = len(mount.parts), described[0]
            name, mark, _ = _unescape(described[1]).partition("#")
            if kind == "fuse" and mark:
                kind = f"fuse.{name}"
    return kind


def _unescape(field: str) -> str:
    return _OCTAL.sub(lambda digits: chr(int(digits[1], 8)), field)


def prepare_data_dir(path: Path) -> None:
    """Make the directory and refuse a network file system. Raises ``DataDirError``."""
    try:
        path.mkdir(parents=True, exist_ok=True)
        mountinfo = Path("/proc/self/mountinfo").read_text("utf-8", "surrogateescape")
    except OSError as error:
        raise DataDirError(f"service.data_dir {path}: {error}") from error
    kind = filesystem_type(path.resolve(), mountinfo)
    if kind in _NETWORK_FILESYSTEMS:
        raise DataDirError(
            f"service.data_dir {path} lies on {kind}, a network file system; the journal needs a "
            "local disk: name another directory"
        )


class Database:
    """One SQLite file, one thread, one process: a lock file keeps a second service out."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._queue: queue.SimpleQueue[tuple[Operation[Any], Future[Any]] | None]
        self._queue = queue.SimpleQueue()
        self._thread: threading.Thread | None = None
        self._lock_fd = -1
        self._open = False

    async def open(self, *schemas: str) -> None:
        """Create the tables and start the thread. Raises ``DataDirError``, or ``DataDirBusy`` while
        another process has it open."""
        await anyio.to_thread.run_sync(prepare_data_dir, self._path.parent)
        self._lock_fd = _lock(self._path)
        ready: Future[None] = Future()
        ready.set_running_or_notify_cancel()  # whoever waits may give up; the thread need not know
        self._thread = threading.Thread(target=self._main, args=(schemas, ready), name="database")
        self._thread.start()
        try:
            await asyncio.wrap_future(ready)
        except BaseException:
            await self.aclose()
            raise
        self._open = True

    async def aclose(self) -> None:
        """Finish what is queued, close the file and end the thread."""
        self._open = False
        if self._thread is None:
            return
        thread, self._thread = self._thread, None
        self._queue.put(None)
        with anyio.CancelScope(shield=True):
            await anyio.to_thread.run_sync(thread.join)
        os.close(self._lock_fd)

    async def run(self, operation: Operation[T]) -> T:
        """Run ``operation`` in the next transaction; returns once it is durable.

        What the operation raises is raised here and undoes only this operation. A caller that is
        cancelled does not learn whether it was done.
        """
        if not self._open:
            raise RuntimeError("the database is not open")
        future: Future[T] = Future()
        self._queue.put((operation, future))
        return await asyncio.wrap_future(future)

    def _main(self, schemas: tuple[str, ...], ready: Future[None]) -> None:
        try:
            connection = _connect(self._path, schemas)
        except sqlite3.Error as error:
            ready.set_exception(DataDirError(f"{self._path}: {error}"))
            return
        ready.set_result(None)
        with contextlib.closing(connection):
            while self._run_group(connection):
                pass

    def _run_group(self, connection: sqlite3.Connection) -> bool:
        """Run one batch in one transaction; false when asked to stop."""
        first = self._queue.get()
        if first is None:
            return False
        group, stop = [first], False
        while len(group) < _GROUP_MAX and not stop:
            try:
                item = self._queue.get_nowait()
            except queue.Empty:
                break
            if item is None:
                stop = True
            else:
                group.append(item)
        group = [item for item in group if item[1].set_running_or_notify_cancel()]
        outcomes = _commit(connection, [operation for operation, _ in group])
        for (_, future), outcome in zip(group, outcomes, strict=True):
            outcome(future)
        return not stop


def _lock(path: Path) -> int:
    """Keep a second service out. Raises ``DataDirError`` or ``DataDirBusy``."""
    try:
        descriptor = os.open(f"{path}.lock", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    except OSError as error:
        raise DataDirError(f"service.data_dir {path.parent}: {error}") from error
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError as error:
        os.close(descriptor)
        raise DataDirBusy(f"{path} is in use by another service") from error
    return descriptor


def _connect(path: Path, schemas: tuple[str, ...]) -> sqlite3.Connection:
    connection = sqlite3.connect(path, isolation_level=None)
    try:
        connection.execute("PRAGMA journal_mode=WAL")
        connection.execute("PRAGMA synchronous=FULL")
        connection.execute("PRAGMA foreign_keys=ON")
        for schema in schemas:
            connection.executescript(schema)
    except sqlite3.Error:
        connection.close()
        raise
    return connection


def _commit(
    connection: sqlite3.Connection, operations: list[Operation[Any]]
) -> list[Callable[[Future[Any]], None]]:
    """Run the operations in one transaction; returns what each future is to be told."""
    try:
        connection.execute("BEGIN IMMEDIATE")
        outcomes = [_savepoint(connection, operation) for operation in operations]
        connection.execute("COMMIT")
    except sqlite3.Error as error:
        if connection.in_transaction:
            connection.execute("ROLLBACK")
        return [_raiser(copy.copy(error)) for _ in operations]
    return outcomes


def _savepoint(
    connection: sqlite3.Connection, operation: Operation[Any]
) -> Callable[[Future[Any]], None]:
    """Raises ``sqlite3.Error`` where the whole transaction is lost."""
    connection.execute("SAVEPOINT operation")
    try:
        value = operation(connection)
    except Exception as error:
        # It belongs to the caller that awaits this operation.
        if not connection.in_transaction:
            # A full disk and an I/O error undo everything, not only this operation.
            raise sqlite3.OperationalError(f"the transaction was undone: {error}") from error
        connection.execute("ROLLBACK TO operation")
        connection.execute("RELEASE operation")
        return _raiser(error)
    connection.execute("RELEASE operation")
    return lambda future: future.set_result(value)


def _raiser(error: Exception) -> Callable[[Future[Any]], None]:
    return lambda future: future.set_exception(error)
