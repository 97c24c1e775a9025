"""SQLite behind one thread: operations queue up, each batch is one durable transaction.

Group commit: whatever waits when the thread comes round shares one fsync. Each operation runs in
a savepoint of its own, so that one that fails takes no other with it. WAL with synchronous=FULL:
when ``run`` returns, the change has reached the disk.
"""

from __future__ import annotations

import asyncio
import contextlib
import fcntl
import os
import queue
import sqlite3
import threading
from collections.abc import Callable
from concurrent.futures import Future
from pathlib import Path
from typing import Any, TypeVar

import anyio

from ourvidz.errors import DataDirError

T = TypeVar("T")
Operation = Callable[[sqlite3.Connection], T]

# One fsync serves at most so many operations: bounds the latency of the first in the batch.
_GROUP_MAX = 256
# SQLite's locks are not reliable there, and an fsync may not reach a disk.
_NETWORK_FILESYSTEMS = frozenset(
    {
        *("nfs", "nfs4", "cifs", "smb", "smb2", "smb3", "smbfs", "9p", "afs", "ceph"),
        *("glusterfs", "lustre", "beegfs", "gpfs", "ocfs2", "gfs2", "orangefs", "moosefs"),
        *("fuse.sshfs", "fuse.s3fs", "fuse.rclone", "fuse.gcsfuse", "fuse.glusterfs"),
        *("fuse.mfs", "fuse.juicefs", "fuse.ceph", "fuse.goofys", "fuse.geesefs"),
        *("fuse.mount-s3", "fuse.moosefs"),
    }
)


def filesystem_type(path: Path, mountinfo: str) -> str:
    """The type of the file system that holds ``path``, from ``/proc/self/mountinfo``'s text."""
    best, kind = -1, "unknown"
    for line in mountinfo.splitlines():
        left, _, right = line.partition(" - ")
        mount = left.split()[4].encode().decode("unicode_escape")
        inside = path == Path(mount) or Path(mount) in path.parents
        if inside and len(mount) >= best:
            best, kind = len(mount), right.split()[0]
    return kind


def prepare_data_dir(path: Path) -> None:
    """Make the directory and refuse a network file system. Raises ``DataDirError``."""
    try:
        path.mkdir(parents=True, exist_ok=True)
        mountinfo = Path("/proc/self/mountinfo").read_text(encoding="utf-8")
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

    async def open(self, *schemas: str) -> None:
        """Create the tables and start the thread. Raises ``DataDirError``."""
        await anyio.to_thread.run_sync(prepare_data_dir, self._path.parent)
        self._lock_fd = os.open(f"{self._path}.lock", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        try:
            fcntl.flock(self._lock_fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError as error:
            os.close(self._lock_fd)
            raise DataDirError(f"{self._path} is in use by another service") from error
        ready: Future[None] = Future()
        self._thread = threading.Thread(target=self._main, args=(schemas, ready), name="database")
        self._thread.start()
        await asyncio.wrap_future(ready)

    async def aclose(self) -> None:
        """Finish what is queued, close the file and end the thread."""
        if self._thread is None:
            return
        self._queue.put(None)
        with anyio.CancelScope(shield=True):
            await anyio.to_thread.run_sync(self._thread.join)
        self._thread = None
        os.close(self._lock_fd)

    async def run(self, operation: Operation[T]) -> T:
        """Run ``operation`` in the next transaction; returns once it is durable.

        What the operation raises is raised here and undoes only this operation. A caller that is
        cancelled does not learn whether it was done.
        """
        if self._thread is None:
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


def _connect(path: Path, schemas: tuple[str, ...]) -> sqlite3.Connection:
    connection = sqlite3.connect(path, isolation_level=None)
    connection.execute("PRAGMA journal_mode=WAL")
    connection.execute("PRAGMA synchronous=FULL")
    connection.execute("PRAGMA foreign_keys=ON")
    for schema in schemas:
        connection.executescript(schema)
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
        return [_raiser(error)] * len(operations)
    return outcomes


def _savepoint(
    connection: sqlite3.Connection, operation: Operation[Any]
) -> Callable[[Future[Any]], None]:
    connection.execute("SAVEPOINT operation")
    try:
        value = operation(connection)
    except Exception as error:  # noqa: BLE001 - it belongs to the caller that awaits this operation
        connection.execute("ROLLBACK TO operation")
        connection.execute("RELEASE operation")
        return _raiser(error)
    connection.execute("RELEASE operation")
    return lambda future: future.set_result(value)


def _raiser(error: Exception) -> Callable[[Future[Any]], None]:
    return lambda future: future.set_exception(error)
