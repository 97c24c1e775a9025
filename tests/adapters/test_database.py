"""One thread, one file, one process: commits shared, failures kept apart, nobody left waiting."""

from __future__ import annotations

import errno
import os
import sqlite3
import subprocess
import sys
import threading
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import anyio
import pytest
from support.turns import turns

from ourvidz.adapters import database as module
from ourvidz.adapters.database import Database
from ourvidz.errors import DataDirBusy, DataDirError, DataDirUnavailable

pytestmark = pytest.mark.anyio

SCHEMA = """
CREATE TABLE IF NOT EXISTS t (id INTEGER PRIMARY KEY, value TEXT NOT NULL UNIQUE);
CREATE TABLE IF NOT EXISTS child (t INTEGER REFERENCES t (id) DEFERRABLE INITIALLY DEFERRED);
"""


@pytest.fixture
async def database(tmp_path: Path) -> AsyncIterator[Database]:
    database = Database(tmp_path / "data" / "test.db")
    await database.open(SCHEMA)
    yield database
    await database.aclose()


# Nothing here takes so long; it turns a hang into a failure.
LIMIT = 20


def insert(value: str) -> Any:
    return lambda c: c.execute("INSERT INTO t (value) VALUES (?)", (value,)).lastrowid


def values(connection: sqlite3.Connection) -> list[str]:
    return [row[0] for row in connection.execute("SELECT value FROM t ORDER BY id")]


class Blocked:
    """The database's thread stands still inside an operation until ``release``."""

    def __init__(self) -> None:
        self.began, self._go = threading.Event(), threading.Event()

    def __call__(self, connection: sqlite3.Connection) -> None:
        self.began.set()
        assert self._go.wait(20)

    def release(self) -> None:
        self._go.set()


async def test_what_was_written_outlives_the_process(tmp_path: Path) -> None:
    for expected in ([], ["a"]):
        database = Database(tmp_path / "test.db")
        await database.open(SCHEMA)
        assert await database.run(values) == expected
        if not expected:
            await database.run(insert("a"))
        await database.aclose()


async def test_every_commit_reaches_the_disk(database: Database) -> None:
    def pragma(name: str) -> Any:
        return lambda c: c.execute(f"PRAGMA {name}").fetchone()[0]

    assert await database.run(pragma("journal_mode")) == "wal"
    assert await database.run(pragma("synchronous")) == 2
    assert await database.run(pragma("foreign_keys")) == 1


async def test_what_waits_together_is_one_transaction(database: Database, tmp_path: Path) -> None:
    reader = sqlite3.connect(tmp_path / "data" / "test.db")
    version = "PRAGMA data_version"
    blocked = Blocked()
    async with anyio.create_task_group() as tasks:
        tasks.start_soon(database.run, blocked)
        await anyio.to_thread.run_sync(blocked.began.wait, 20)
        before = reader.execute(version).fetchone()[0]
        for value in "abcdef":
            tasks.start_soon(database.run, insert(value))
        await turns()
        blocked.release()
    # The reader's number grows by one for each commit of another connection.
    assert reader.execute(version).fetchone()[0] == before + 1
    assert values(reader) == list("abcdef")
    reader.close()


async def test_one_that_fails_harms_no_other_of_its_batch(database: Database) -> None:
    blocked = Blocked()
    outcomes: dict[str, object] = {}

    async def run(value: str) -> None:
        def operation(connection: sqlite3.Connection) -> int:
            row = insert(value)(connection)
            if value == "bad":
                raise KeyError("mine")
            return int(row)

        try:
            outcomes[value] = await database.run(operation)
        except (KeyError, sqlite3.IntegrityError) as error:
            outcomes[value] = error

    async with anyio.create_task_group() as tasks:
        tasks.start_soon(database.run, blocked)
        await anyio.to_thread.run_sync(blocked.began.wait, 20)
        for value in ("a", "bad", "b", "c"):
            tasks.start_soon(run, value)
        await turns()
        blocked.release()
    assert isinstance(outcomes.pop("bad"), KeyError)
    assert all(isinstance(outcome, int) for outcome in outcomes.values())
    assert await database.run(values) == ["a", "b", "c"]
    with pytest.raises(sqlite3.IntegrityError):
        await database.run(insert("a"))


async def test_a_transaction_that_is_lost_is_lost_for_every_caller(database: Database) -> None:
    """The foreign key is looked at in the commit itself."""
    blocked = Blocked()
    errors: list[BaseException] = []

    async def run(operation: Any) -> None:
        try:
            await database.run(operation)
        except sqlite3.Error as error:
            errors.append(error)

    async with anyio.create_task_group() as tasks:
        tasks.start_soon(database.run, insert("kept"))
        tasks.start_soon(run, blocked)
        await anyio.to_thread.run_sync(blocked.began.wait, 20)
        tasks.start_soon(run, insert("a"))
        tasks.start_soon(run, lambda c: c.execute("INSERT INTO child VALUES (99)"))
        tasks.start_soon(run, insert("b"))
        await turns()
        blocked.release()
    assert len(errors) == 3
    assert all(isinstance(error, sqlite3.IntegrityError) for error in errors)
    assert len({id(error) for error in errors}) == 3, "each caller has an exception of its own"
    assert await database.run(values) == ["kept"]


async def trouble(database: Database) -> str:
    with anyio.fail_after(LIMIT):
        while database.trouble is None:
            await anyio.lowlevel.checkpoint()
        return database.trouble


class Full:
    """Inserts more than the file may hold while it is ``full``."""

    def __init__(self, pages: int) -> None:
        self.full, self._pages = True, pages

    def __call__(self, connection: sqlite3.Connection) -> None:
        pages = self._pages if self.full else 1_000_000
        connection.execute(f"PRAGMA max_page_count = {pages}").fetchone()
        insert("a" * 100_000)(connection)


@pytest.mark.usefixtures("quick_retries")
async def test_a_full_disk_is_waited_for(database: Database) -> None:
    full = Full(await database.run(lambda c: c.execute("PRAGMA page_count").fetchone()[0]))
    with anyio.fail_after(LIMIT):
        async with anyio.create_task_group() as tasks:
            for operation in (insert("before"), full, insert("after")):
                tasks.start_soon(database.run, operation)
            assert "full" in await trouble(database)
            full.full = False
    assert database.trouble is None
    assert sorted(value[:9] for value in await database.run(values)) == [
        *("a" * 9, "after", "before")
    ]


@pytest.mark.usefixtures("quick_retries")
async def test_a_lock_of_somebody_else_is_waited_for(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "_BUSY_SECONDS", 0.001)
    database = Database(tmp_path / "test.db")
    await database.open(SCHEMA)
    other = sqlite3.connect(tmp_path / "test.db", isolation_level=None)
    other.execute("BEGIN IMMEDIATE")
    with anyio.fail_after(LIMIT):
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(database.run, insert("a"))
            assert "locked" in await trouble(database)
            other.execute("ROLLBACK")
    other.close()
    assert await database.run(values) == ["a"]
    await database.aclose()


@pytest.mark.usefixtures("quick_retries")
async def test_closing_does_not_wait_for_a_disk_that_is_full(tmp_path: Path) -> None:
    database = Database(tmp_path / "test.db")
    await database.open(SCHEMA)
    full = Full(await database.run(lambda c: c.execute("PRAGMA page_count").fetchone()[0]))
    errors: list[str] = []

    async def run(operation: Any) -> None:
        try:
            await database.run(operation)
        except sqlite3.OperationalError as error:
            errors.append(str(error))

    with anyio.fail_after(LIMIT):
        async with anyio.create_task_group() as tasks:
            for operation in (full, full):
                tasks.start_soon(run, operation)
            await trouble(database)
            await database.aclose()
    assert len(errors) == 2
    assert all("full" in error for error in errors)


class Failing:
    """A connection whose next commits fail with ``code``, as SQLite does."""

    def __init__(self, connection: sqlite3.Connection, undoes: bool, code: int) -> None:
        self._connection = connection
        self._undoes = undoes
        self._code = code
        self.fails = 0

    def execute(self, sql: str, *args: Any) -> Any:
        if sql == "COMMIT" and self.fails:
            self.fails -= 1
            if self._undoes:
                self._connection.execute("ROLLBACK")
            error = sqlite3.OperationalError("planted")
            error.sqlite_errorcode = self._code
            raise error
        return self._connection.execute(sql, *args)

    def __getattr__(self, name: str) -> Any:
        return getattr(self._connection, name)


@pytest.mark.usefixtures("quick_retries")
@pytest.mark.parametrize("undoes", [False, True], ids=["still open", "undone already"])
@pytest.mark.parametrize(
    ("code", "passes"),
    [
        (sqlite3.SQLITE_FULL, True),
        (sqlite3.SQLITE_IOERR_FSYNC, True),
        (sqlite3.SQLITE_CORRUPT, False),
    ],
)
async def test_a_commit_that_fails(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, undoes: bool, code: int, passes: bool
) -> None:
    made: list[Failing] = []
    connect = module._connect

    def failing(*args: Any) -> Any:
        made.append(Failing(connect(*args), undoes, code))
        return made[0]

    monkeypatch.setattr(module, "_connect", failing)
    database = Database(tmp_path / "test.db")
    await database.open(SCHEMA)
    made[0].fails = 2
    for _ in range(0 if passes else 2):
        with pytest.raises(sqlite3.OperationalError, match="planted"):
            await database.run(insert("a"))
    await database.run(insert("a"))
    assert made[0].fails == 0
    assert await database.run(values) == ["a"]
    await database.aclose()


async def test_an_error_that_undoes_the_transaction_is_told_as_it_is(database: Database) -> None:
    def operation(connection: sqlite3.Connection) -> None:
        connection.execute("ROLLBACK")  # as SQLite does by itself when the disk is full
        raise sqlite3.OperationalError("database or disk is full")

    with pytest.raises(sqlite3.OperationalError, match="database or disk is full"):
        await database.run(operation)
    await database.run(insert("a"))


async def test_a_caller_that_gives_up_in_time_does_not_happen(database: Database) -> None:
    blocked = Blocked()
    async with anyio.create_task_group() as tasks:
        tasks.start_soon(database.run, blocked)
        await anyio.to_thread.run_sync(blocked.began.wait, 20)
        async with anyio.create_task_group() as waiting:
            waiting.start_soon(database.run, insert("given up"))
            await turns()
            waiting.cancel_scope.cancel()
        tasks.start_soon(database.run, insert("kept"))
        blocked.release()
    assert await database.run(values) == ["kept"]


async def test_a_caller_that_gives_up_too_late_leaves_the_thread_well(database: Database) -> None:
    blocked = Blocked()
    async with anyio.create_task_group() as tasks:
        tasks.start_soon(database.run, blocked)
        await anyio.to_thread.run_sync(blocked.began.wait, 20)
        tasks.cancel_scope.cancel()
    blocked.release()
    await database.run(insert("a"))
    assert await database.run(values) == ["a"]


async def test_closing_finishes_what_is_queued(tmp_path: Path) -> None:
    database = Database(tmp_path / "test.db")
    await database.open(SCHEMA)
    blocked = Blocked()
    done: list[int] = []

    async def run(value: str) -> None:
        done.append(await database.run(insert(value)))

    async with anyio.create_task_group() as tasks:
        tasks.start_soon(database.run, blocked)
        await anyio.to_thread.run_sync(blocked.began.wait, 20)
        for number in range(600):  # more than one group
            tasks.start_soon(run, str(number))
        await turns()
        tasks.start_soon(database.aclose)
        await turns()
        with pytest.raises(RuntimeError, match="not open"):
            await database.run(insert("too late"))
        blocked.release()
    assert done == list(range(1, 601))
    await database.aclose()
    with pytest.raises(RuntimeError, match="not open"):
        await database.run(insert("much too late"))


async def test_more_than_a_group_is_done_in_order(database: Database) -> None:
    async with anyio.create_task_group() as tasks:
        for number in range(1000):
            tasks.start_soon(database.run, insert(f"{number:04}"))
    assert await database.run(values) == [f"{number:04}" for number in range(1000)]


async def test_a_second_service_is_kept_out(database: Database, tmp_path: Path) -> None:
    with pytest.raises(DataDirBusy, match="another service"):
        await Database(tmp_path / "data" / "test.db").open(SCHEMA)
    script = (
        "import asyncio, sys; from pathlib import Path\n"
        "from ourvidz.adapters.database import Database\n"
        "from ourvidz.errors import DataDirBusy\n"
        "try: asyncio.run(Database(Path(sys.argv[1])).open(''))\n"
        "except DataDirBusy: sys.exit(7)\n"
    )
    path = str(tmp_path / "data" / "test.db")
    ended = await anyio.to_thread.run_sync(
        lambda: subprocess.run([sys.executable, "-c", script, path], check=False, timeout=60)
    )
    assert ended.returncode == 7
    await database.run(insert("still well"))


async def test_a_closed_one_makes_way(tmp_path: Path) -> None:
    first = Database(tmp_path / "test.db")
    await first.open(SCHEMA)
    await first.aclose()
    second = Database(tmp_path / "test.db")
    await second.open(SCHEMA)
    await second.aclose()


@pytest.mark.parametrize(
    ("code", "kind"),
    [
        (sqlite3.SQLITE_FULL, DataDirUnavailable),
        (sqlite3.SQLITE_IOERR_WRITE, DataDirUnavailable),
        (sqlite3.SQLITE_CANTOPEN, DataDirError),
        (sqlite3.SQLITE_CORRUPT, DataDirError),
    ],
)
async def test_a_disk_that_is_full_at_the_start_may_not_be_later(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, code: int, kind: type[DataDirError]
) -> None:
    def connect(*_: Any) -> Any:
        error = sqlite3.OperationalError("planted")
        error.sqlite_errorcode = code
        raise error

    monkeypatch.setattr(module, "_connect", connect)
    with pytest.raises(DataDirError, match="planted") as caught:
        await Database(tmp_path / "test.db").open(SCHEMA)
    assert type(caught.value) is kind
    assert caught.value.retryable == (kind is DataDirUnavailable)


@pytest.mark.parametrize(("code", "retryable"), [(errno.ENOSPC, True), (errno.EACCES, False)])
async def test_a_directory_that_cannot_be_made(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, code: int, retryable: bool
) -> None:
    def mkdir(*_: Any, **__: Any) -> Any:
        raise OSError(code, os.strerror(code))

    monkeypatch.setattr(Path, "mkdir", mkdir)
    with pytest.raises(DataDirError) as caught:
        await Database(tmp_path / "data" / "test.db").open(SCHEMA)
    assert caught.value.retryable == retryable


async def test_what_is_no_database_is_said_so_and_lets_go(tmp_path: Path) -> None:
    path = tmp_path / "test.db"
    path.write_bytes(b"no database at all, but long enough to be looked at" * 100)
    database = Database(path)
    with pytest.raises(DataDirError, match=r"test\.db"):
        await database.open(SCHEMA)
    assert not [t for t in threading.enumerate() if t.name == "database"]
    path.unlink()
    again = Database(path)
    await again.open(SCHEMA)
    await again.aclose()


@pytest.mark.filterwarnings("error::pytest.PytestUnhandledThreadExceptionWarning")
async def test_an_opening_that_is_cancelled_leaves_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    began, go_on, connect = threading.Event(), threading.Event(), module._connect

    def slow(*args: Any) -> Any:
        began.set()
        assert go_on.wait(20)
        return connect(*args)

    monkeypatch.setattr(module, "_connect", slow)
    async with anyio.create_task_group() as tasks:
        tasks.start_soon(Database(tmp_path / "test.db").open, SCHEMA)
        await anyio.to_thread.run_sync(began.wait, 20)
        tasks.cancel_scope.cancel()
        with anyio.CancelScope(shield=True):
            await turns()
        go_on.set()
    assert not [t for t in threading.enumerate() if t.name == "database"]
    again = Database(tmp_path / "test.db")
    await again.open(SCHEMA)
    await again.aclose()
