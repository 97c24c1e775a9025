"""SQLite behind one thread: operations queue up, each batch is one durable transaction.

Group commit: whatever waits when the thread comes round shares one fsync. Each operation runs in
a savepoint of its own, so that one that fails takes no other with it. WAL with synchronous=FULL:
when ``run`` returns, the change has reached the disk. A disk that is full, read-only or failing, or
a lock that somebody else holds, is waited for: a batch is repeated until it is durable.
"""

from __future__ import annotations

import asyncio
import contextlib
import copy
import errno
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
import structlog

from ourvidz.errors import DataDirBusy, DataDirError, DataDirUnavailable

T = TypeVar("T")
Operation = Callable[[sqlite3.Connection], T]

log = structlog.get_logger()

# What a disk is the cause of, or whoever else has the file open, and not the operation.
_PASSING = frozenset(
    {
        *(sqlite3.SQLITE_FULL, sqlite3.SQLITE_IOERR, sqlite3.SQLITE_READONLY),
        *(sqlite3.SQLITE_CANTOPEN, sqlite3.SQLITE_BUSY, sqlite3.SQLITE_LOCKED),
    }
)
# Not so a file that cannot be opened or written, before it ever was: that is a wrong directory.
_PASSING_AT_START = _PASSING - {sqlite3.SQLITE_CANTOPEN, sqlite3.SQLITE_READONLY}
_RETRY_SECONDS = 0.5
# How long a lock is waited for before that counts as trouble.
_BUSY_SECONDS = 5.0
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
        raise _dir_error(path, error) from error
    kind = filesystem_type(path.resolve(), mountinfo)
    if kind in _NETWORK_FILESYSTEMS:
        raise DataDirError(
            f"service.data_dir {path} lies on {kind}, a network file system; the journal needs a "
            "local disk: name another directory"
        )


def _dir_error(path: Path, error: OSError) -> DataDirError:
    full = error.errno in (errno.ENOSPC, errno.EDQUOT)
    return (DataDirUnavailable if full else DataDirError)(f"service.data_dir {path}: {error}")


class Database:
    """One SQLite file, one thread, one process: a lock file keeps a second service out."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._queue: queue.SimpleQueue[tuple[Operation[Any], Future[Any]] | None]
        self._queue = queue.SimpleQueue()
        self._thread: threading.Thread | None = None
        self._lock_fd = -1
        self._open = False
        self._closing = threading.Event()
        self._trouble: str | None = None

    @property
    def trouble(self) -> str | None:
        """Why nothing can be written for now, if so."""
        return self._trouble

    async def open(self, *schemas: str) -> None:
        """Create the tables and start the thread. Raises ``DataDirError``: ``DataDirBusy`` while
        another process has it open, ``DataDirUnavailable`` where the disk is full."""
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
        """Finish what is queued, unless the disk does not take it, close the file and end the
        thread."""
        self._open = False
        self._closing.set()
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
        cancelled does not learn whether it was done. An operation may be repeated, its first
        attempt undone.
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
            kind = DataDirUnavailable if _passes(error, _PASSING_AT_START) else DataDirError
            ready.set_exception(kind(f"{self._path}: {error}"))
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
        outcomes = self._commit(connection, [operation for operation, _ in group])
        for (_, future), outcome in zip(group, outcomes, strict=True):
            outcome(future)
        return not stop

    def _commit(
        self, connection: sqlite3.Connection, operations: list[Operation[Any]]
    ) -> list[Callable[[Future[Any]], None]]:
        """Until it is durable, or the database closes; returns what each future is to be told."""
        while True:
            try:
                outcomes = _transaction(connection, operations)
            except sqlite3.Error as error:
                if not _passes(error) or self._closing.is_set():
                    return [_raiser(copy.copy(error)) for _ in operations]
                if self._trouble is None:
                    log.error("database_waits", reason=str(error))
                self._trouble = str(error)
                self._closing.wait(_RETRY_SECONDS)
            else:
                if self._trouble is not None:
                    log.info("database_goes_on")
                self._trouble = None
                return outcomes


def _lock(path: Path) -> int:
    """Keep a second service out. Raises ``DataDirError`` or ``DataDirBusy``."""
    try:
        descriptor = os.open(f"{path}.lock", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    except OSError as error:
        raise _dir_error(path.parent, error) from error
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError as error:
        os.close(descriptor)
        raise DataDirBusy(f"{path} is in use by another service") from error
    return descriptor


def _connect(path: Path, schemas: tuple[str, ...]) -> sqlite3.Connection:
    connection = sqlite3.connect(path, isolation_level=None, timeout=_BUSY_SECONDS)
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


def _transaction(
    connection: sqlite3.Connection, operations: list[Operation[Any]]
) -> list[Callable[[Future[Any]], None]]:
    """Run the operations in one transaction; returns what each future is to be told. Raises
    ``sqlite3.Error`` where all of it is undone."""
    try:
        connection.execute("BEGIN IMMEDIATE")
        outcomes = [_savepoint(connection, operation) for operation in operations]
        connection.execute("COMMIT")
    except sqlite3.Error:
        if connection.in_transaction:
            connection.execute("ROLLBACK")
        raise
    return outcomes


def _passes(error: Exception, passing: frozenset[int] = _PASSING) -> bool:
    """Whether the same transaction may succeed later. Extended codes hold their kind below."""
    code = getattr(error, "sqlite_errorcode", None)
    return code is not None and code & 0xFF in passing


def _savepoint(
    connection: sqlite3.Connection, operation: Operation[Any]
) -> Callable[[Future[Any]], None]:
    """Raises ``sqlite3.Error`` where the whole transaction is lost."""
    connection.execute("SAVEPOINT operation")
    try:
        value = operation(connection)
    except Exception as error:
        if _passes(error):
            raise
        # It belongs to the caller that awaits this operation.
        if not connection.in_transaction:
            raise sqlite3.OperationalError(f"the transaction was undone: {error}") from error
        connection.execute("ROLLBACK TO operation")
        connection.execute("RELEASE operation")
        return _raiser(error)
    connection.execute("RELEASE operation")
    return lambda future: future.set_result(value)


def _raiser(error: Exception) -> Callable[[Future[Any]], None]:
    return lambda future: future.set_exception(error)
