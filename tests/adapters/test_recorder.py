"""Recordings on the disk: what is in them, how large they grow, and disks that do not take them."""

from __future__ import annotations

import errno
import threading
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import asynccontextmanager
from io import FileIO
from pathlib import Path
from typing import Any

import anyio
import orjson
import pytest
from support.recordings import busy, demand, header, whole, written

from ourvidz.adapters import recorder as module
from ourvidz.adapters.recorder import FileRecorder
from ourvidz.adapters.recording_files import open_new
from ourvidz.adapters.recording_lines import RecordingUnusable
from ourvidz.adapters.recording_reader import RecordingReader
from ourvidz.config.settings import Recorder
from scheduler import messages as m
from scheduler.recording import Turn
from scheduler.replay import Replay, scheduler_of

pytestmark = pytest.mark.anyio

LIMIT = 20
TURNS = busy(header())


class Alarm:
    """Notes how often the recorder said that it has stopped."""

    def __init__(self) -> None:
        self.rung = 0
        self.heard = anyio.Event()

    def ring(self) -> None:
        self.rung += 1
        self.heard.set()


@asynccontextmanager
async def recording(
    folder: Path, alarm: Alarm | None = None, keep_users: bool = True, **options: Any
) -> AsyncIterator[FileRecorder]:
    bounds = {name: options.pop(name) for name in ("bytes_max", "files_max") if name in options}
    made = header(wall=options.pop("wall", header().wall))
    settings = Recorder(path=folder, hash_users=not keep_users, **bounds)
    recorder = FileRecorder(folder, settings, **options)
    recorder.begin(made, (alarm or Alarm()).ring)
    try:
        yield recorder
    finally:
        await recorder.aclose()


def files_in(folder: Path, pattern: str = "*") -> list[Path]:
    return sorted(folder.glob(pattern))


async def record(folder: Path, turns: Sequence[Turn] = TURNS, **options: Any) -> list[Path]:
    """The files of a recording of these turns, in order."""
    async with recording(folder, **options) as recorder:
        for turn in turns:
            recorder.turn(turn)
    return files_in(folder)


def read(path: Path) -> tuple[list[Turn], str]:
    reader = RecordingReader(path)
    return list(reader.turns()), reader.ending


def replays(reader: RecordingReader) -> int:
    """How many turns decide as they did: all that are read."""
    again = Replay(scheduler_of(reader.header))
    assert not list(filter(None, map(again.feed, reader.turns())))
    return again.turns


async def test_what_was_recorded_can_be_read_and_replayed(tmp_path: Path) -> None:
    (file,) = await record(tmp_path / "deep" / "er")
    assert read(file) == (TURNS, "the service ended")
    reader = RecordingReader(file.parent)
    assert (reader.header, reader.first) == (header(), (file, 1))
    assert replays(reader) == len(TURNS)
    assert file.name.startswith("20270115T080000.000Z-")
    assert file.name.endswith("-000001.jsonl")
    assert file.stat().st_mode & 0o777 == 0o600, "it says who asked for how much"


async def test_a_service_without_a_turn_leaves_a_header(tmp_path: Path) -> None:
    (file,) = await record(tmp_path, [])
    assert read(file) == ([], "the service ended")


async def test_a_recorder_that_never_began_is_closed_at_once(tmp_path: Path) -> None:
    recorder = FileRecorder(tmp_path, Recorder(path=tmp_path))
    await recorder.aclose()
    assert files_in(tmp_path) == []


async def test_turns_after_the_end_are_not_recorded(tmp_path: Path) -> None:
    async with recording(tmp_path) as recorder:
        recorder.turn(TURNS[0])
    recorder.turn(TURNS[1])
    assert read(tmp_path) == (TURNS[:1], "the service ended")


async def test_users_are_hashed_alike_within_a_recording_and_otherwise_in_the_next(
    tmp_path: Path,
) -> None:
    arrivals = [m.JobArrived(demand(str(n), "sdxl.unet", user=f"anna-{n % 2}")) for n in range(4)]
    turns = [Turn(100.0, tuple(arrivals), ())]
    names = []
    for folder in (tmp_path / "a", tmp_path / "b"):
        (file,) = await record(folder, turns, keep_users=False)
        assert b"anna" not in file.read_bytes()
        (turn,), _ = read(file)
        names.append([event.demand.user for event in turn.events])  # type: ignore[union-attr]
        assert [event.demand.job for event in turn.events] == list("0123")
    for users in names:
        assert users[:2] == users[2:]
        assert users[0] != users[1]
    assert set(names[0]).isdisjoint(names[1])
    (file,) = await record(tmp_path / "c", turns)
    assert b"anna-0" in file.read_bytes()


async def test_files_follow_each_other_and_are_read_in_order(tmp_path: Path) -> None:
    files = await record(tmp_path, TURNS * 10, bytes_max=10_000, files_max=1000)
    assert len(files) > 5
    assert max(file.stat().st_size for file in files) <= 10_000
    assert min(file.stat().st_size for file in files[:-1]) > 8_000
    for path in (tmp_path, files[0], files[3]):
        turns, ending = read(path)
        assert turns == TURNS * 10
        assert ending == "the service ended"
    for number, file in enumerate(files, start=1):
        first, *_ = file.read_bytes().splitlines()
        assert orjson.loads(first)["file"] == number


async def test_the_oldest_files_go_first(tmp_path: Path) -> None:
    old = await record(tmp_path, TURNS * 10, bytes_max=10_000, files_max=1000)
    (tmp_path / "notes.txt").write_text("not ours")
    await record(tmp_path, TURNS * 10, bytes_max=10_000, files_max=4, wall=header().wall + 0.001)
    assert (tmp_path / "notes.txt").exists()
    kept = files_in(tmp_path, "*.jsonl")
    assert len(kept) == 4
    assert not set(kept) & set(old)
    reader = RecordingReader(tmp_path)
    assert reader.first[0] == kept[0]
    assert reader.first[1] > 1
    turns = list(reader.turns())
    assert turns == (TURNS * 10)[-len(turns) :], "the newest are whole"


async def test_files_of_an_earlier_recording_stay_while_there_is_room(tmp_path: Path) -> None:
    (old,) = await record(tmp_path, TURNS[:3], files_max=2)
    await record(tmp_path, TURNS[:1], files_max=2)
    assert len(files_in(tmp_path)) == 2
    assert read(old)[0] == TURNS[:3]


async def test_a_turn_longer_than_a_file_has_one_of_its_own(tmp_path: Path) -> None:
    long = Turn(1.0, tuple(m.CancelRequested("x" * 100) for _ in range(100)), ())
    files = await record(tmp_path, [long, long, TURNS[0]], bytes_max=10_000)
    assert len(files) == 4
    assert read(tmp_path)[0] == [long, long, TURNS[0]]


async def test_a_file_that_is_missing_in_between_is_told(tmp_path: Path) -> None:
    files = await record(tmp_path, TURNS * 10, bytes_max=10_000, files_max=1000)
    files[2].unlink()
    with pytest.raises(RecordingUnusable, match=f"{files[1].name}: the file after it is missing"):
        RecordingReader(tmp_path)


class Full(FileIO):
    """A file on a disk that has ``room`` for so many bytes more."""

    room = 0

    def write(self, data: Any) -> int:
        if self.room == 0:
            raise OSError(errno.ENOSPC, "No space left on device")
        count = min(len(data), self.room)
        type(self).room -= count
        return super().write(bytes(data[:count])) or 0

    def truncate(self, size: int | None = None) -> int:
        before = self.seek(0, 2)
        found = super().truncate(size)
        type(self).room += before - found
        return found


def on_full(room: int) -> Callable[[Path], FileIO]:
    kind = type("FullDisk", (Full,), {"room": room})
    return lambda path: kind(path, "x+")


LAST_LINE = b'{"end":"ENOSPC"}\n'


@pytest.mark.parametrize("spare", [0, 1, 16, 17, 50])
async def test_a_full_disk_ends_the_recording_with_a_last_line(tmp_path: Path, spare: int) -> None:
    """It takes the place of another line where there is no room."""
    (file,) = await record(tmp_path / "whole")
    room = sum(map(len, file.read_bytes().splitlines(keepends=True)[:6])) + spare
    alarm = Alarm()
    async with recording(tmp_path / "full", alarm, open_file=on_full(room)) as recorder:
        for turn in TURNS:
            recorder.turn(turn)
        with anyio.fail_after(LIMIT):
            await alarm.heard.wait()
        recorder.turn(TURNS[0])
    fitted = 5 if spare >= len(LAST_LINE) else 4
    assert read(tmp_path / "full") == (TURNS[:fitted], "it ends: ENOSPC")
    assert replays(RecordingReader(tmp_path / "full")) == fitted
    (full,) = files_in(tmp_path / "full")
    assert full.read_bytes().endswith(LAST_LINE)
    assert alarm.rung == 1


class Faulty(FileIO):
    """A disk that fails once in the middle of a line, and has room."""

    fails = 2

    def write(self, data: Any) -> int:
        type(self).fails -= 1
        if self.fails == 0:
            raise OSError(errno.EIO, "Input/output error")
        return super().write(bytes(data[:-10] if self.fails == 1 else data)) or 0


async def test_a_line_that_was_half_written_is_taken_back(tmp_path: Path) -> None:
    alarm, kind = Alarm(), type("FaultyDisk", (Faulty,), {"fails": 3})
    async with recording(tmp_path, alarm, open_file=lambda path: kind(path, "x+")) as recorder:
        recorder.turn(TURNS[0])
        with anyio.fail_after(LIMIT):
            await alarm.heard.wait()
    assert read(tmp_path) == ([], "it ends: EIO")


async def test_a_disk_without_room_for_another_file(tmp_path: Path) -> None:
    def open_first(path: Path) -> FileIO:
        if path.name.endswith("-000002.jsonl"):
            raise OSError(errno.ENOSPC, "No space left on device")
        return open_new(path)

    alarm = Alarm()
    async with recording(tmp_path, alarm, open_file=open_first, bytes_max=10_000) as recorder:
        for turn in TURNS * 10:
            recorder.turn(turn)
        with anyio.fail_after(LIMIT):
            await alarm.heard.wait()
    turns, ending = read(tmp_path)
    assert ending == "it ends: ENOSPC"
    assert turns == (TURNS * 10)[: len(turns)]


@pytest.mark.parametrize("room", [0, 100])
async def test_a_disk_without_room_for_a_header(tmp_path: Path, room: int) -> None:
    alarm = Alarm()
    async with recording(tmp_path, alarm, open_file=on_full(room)) as recorder:
        with anyio.fail_after(LIMIT):
            await alarm.heard.wait()
        recorder.turn(TURNS[0])
    with pytest.raises(RecordingUnusable):
        RecordingReader(tmp_path)
    assert alarm.rung == 1


async def test_a_folder_that_cannot_be_made_is_an_alarm(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    alarm = Alarm()
    async with recording(tmp_path / "file" / "folder", alarm):
        with anyio.fail_after(LIMIT):
            await alarm.heard.wait()


async def test_a_defect_ends_the_recording_alone(tmp_path: Path) -> None:
    alarm = Alarm()
    async with recording(tmp_path, alarm) as recorder:
        recorder.turn(TURNS[0])
        recorder.turn(Turn(1.0, (m.CancelRequested("\ud800"),), ()))  # no UTF-8 stands for it
        with anyio.fail_after(LIMIT):
            await alarm.heard.wait()
    assert read(tmp_path)[1].startswith("it ends: ")


class Slow(FileIO):
    """A disk that writes nothing until it is told to."""

    go: threading.Event

    def write(self, data: Any) -> int:
        self.go.wait(LIMIT)
        return super().write(data) or 0


async def test_a_slow_disk_ends_the_recording_and_gets_what_waited(tmp_path: Path) -> None:
    alarm, kind = Alarm(), type("SlowDisk", (Slow,), {"go": threading.Event()})
    options: dict[str, Any] = {"turns_max": 3, "open_file": lambda path: kind(path, "x+")}
    async with recording(tmp_path, alarm, **options) as recorder:
        for turn in TURNS[:3]:
            recorder.turn(turn)
        assert alarm.rung == 0
        recorder.turn(TURNS[3])
        recorder.turn(TURNS[4])
        assert alarm.rung == 1, "the loop knows at once"
        kind.go.set()  # type: ignore[attr-defined]
    assert read(tmp_path) == (TURNS[:3], "it ends: the disk is too slow: 3 turns wait for it")


async def test_a_disk_that_hangs_is_not_waited_for(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "_CLOSE_SECONDS", 0.01)
    kind = type("SlowDisk", (Slow,), {"go": threading.Event()})
    with anyio.fail_after(LIMIT):
        async with recording(tmp_path, open_file=lambda path: kind(path, "x+")) as recorder:
            recorder.turn(TURNS[0])
    kind.go.set()  # type: ignore[attr-defined]


async def test_the_file_is_never_one_that_exists(tmp_path: Path) -> None:
    open_new(tmp_path / "a").close()
    with pytest.raises(FileExistsError):
        open_new(tmp_path / "a")


async def test_a_recording_cut_at_any_byte_goes_as_far_as_its_last_whole_line(
    tmp_path: Path,
) -> None:
    file = written(tmp_path / "r.jsonl", whole(header(), TURNS[:3]))
    data = file.read_bytes()
    ends = [n + 1 for n, byte in enumerate(data) if byte == ord("\n")]
    cut = tmp_path / "cut.jsonl"
    for size in range(ends[0] - 1, len(data) + 1):
        cut.write_bytes(data[:size])
        lines = sum(end - 1 <= size for end in ends)  # a line is whole without its line feed
        turns, ending = read(cut)
        assert turns == TURNS[: min(3, lines - 1)], size
        if lines == len(ends):
            assert ending == "the service ended"
        elif size in ends or size + 1 in ends:
            assert ending.startswith("it has no last line"), size
        else:
            assert ending.startswith("its last line is cut off"), size
        if size % 50 == 0:
            assert replays(RecordingReader(cut)) == len(turns)


@pytest.mark.parametrize("size", [0, 1, 100])
async def test_a_recording_cut_in_its_header_is_none(tmp_path: Path, size: int) -> None:
    file = written(tmp_path / "r.jsonl", whole(header(), TURNS))
    file.write_bytes(file.read_bytes()[:size])
    with pytest.raises(RecordingUnusable, match=r"r\.jsonl: line 1"):
        RecordingReader(file)


@pytest.mark.parametrize("garbage", [b"\0" * 500, b'{"at": 1}\n', b"\xff\xfe\n", b"[]\n"])
async def test_a_last_line_that_says_nothing_is_left_out(tmp_path: Path, garbage: bytes) -> None:
    file = written(tmp_path / "r.jsonl", whole(header(), TURNS)[:-1])
    with file.open("ab") as opened:
        opened.write(garbage)
    turns, ending = read(file)
    assert turns == TURNS
    assert ending.startswith("its last line is cut off")


async def test_damage_before_the_last_line_is_told(tmp_path: Path) -> None:
    file = written(tmp_path / "r.jsonl", whole(header(), TURNS))
    lines = file.read_bytes().splitlines(keepends=True)
    file.write_bytes(b"".join([*lines[:4], b"x", *lines[4:]]))
    with pytest.raises(RecordingUnusable, match="line 5: Invalid JSON"):
        read(file)


@pytest.mark.parametrize(
    ("change", "said"),
    [
        (lambda lines: lines[:4] + lines[5:], "line 5 is turn 5, not turn 4"),
        (lambda lines: lines[:5] + lines[4:], "line 6 is turn 4, not turn 5"),
        (lambda lines: [lines[0], *lines[2:]], "line 2 is turn 2, not turn 1"),
        (lambda lines: [*lines[:3], lines[4], lines[3], *lines[5:]], "line 4 is turn 4, not tu"),
        (lambda lines: [*lines[:4], lines[-1]], f"line 5 ends after {len(TURNS)} turns, not 3"),
    ],
    ids=["deleted", "doubled", "first", "exchanged", "last"],
)
async def test_lines_that_are_not_as_they_were_written_are_damage(
    tmp_path: Path, change: Callable[[list[bytes]], list[bytes]], said: str
) -> None:
    file = written(tmp_path / "r.jsonl", whole(header(), TURNS))
    file.write_bytes(b"".join(change(file.read_bytes().splitlines(keepends=True))))
    with pytest.raises(RecordingUnusable, match=said):
        read(file)


async def test_a_line_that_a_file_has_lost_is_missed_in_the_next(tmp_path: Path) -> None:
    files = await record(tmp_path, TURNS * 10, bytes_max=10_000, files_max=1000)
    files[1].write_bytes(b"".join(files[1].read_bytes().splitlines(keepends=True)[:-1]))
    with pytest.raises(RecordingUnusable, match=f"{files[2].name}: line 2 is turn "):
        read(tmp_path)


async def test_a_file_cut_off_before_the_next_one_is_damage(tmp_path: Path) -> None:
    files = await record(tmp_path, TURNS * 10, bytes_max=10_000, files_max=1000)
    files[1].write_bytes(files[1].read_bytes()[:-5])
    with pytest.raises(RecordingUnusable, match=f"{files[1].name}: line .*: Invalid JSON"):
        read(tmp_path)


async def test_the_last_file_may_have_been_begun_and_no_more(tmp_path: Path) -> None:
    files = await record(tmp_path, TURNS * 10, bytes_max=10_000, files_max=1000)
    files[-1].write_bytes(b"")
    turns, ending = read(tmp_path)
    assert turns == (TURNS * 10)[: len(turns)]
    assert ending.startswith("it has no last line")


async def test_a_line_beyond_all_bounds_is_not_read(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("ourvidz.adapters.recording_reader._LINE_BYTES_MAX", 1000)
    file = written(tmp_path / "r.jsonl", whole(header(), TURNS))
    with file.open("ab") as opened:
        opened.write(b'{"end": "' + b"x" * 2000 + b'"}\n')
    with pytest.raises(RecordingUnusable, match="Invalid JSON"):
        read(file)


async def test_paths_that_are_no_recording(tmp_path: Path) -> None:
    with pytest.raises(RecordingUnusable, match="holds no recording"):
        RecordingReader(tmp_path)
    with pytest.raises(RecordingUnusable, match="nowhere cannot be read: No such file"):
        RecordingReader(tmp_path / "nowhere")
    (tmp_path / "turn.jsonl").write_bytes(b'{"end": "x"}\n')
    with pytest.raises(RecordingUnusable, match="line 1 is no recording's header"):
        RecordingReader(tmp_path / "turn.jsonl")


async def test_of_several_recordings_the_newest_is_read(tmp_path: Path) -> None:
    (old,) = await record(tmp_path, TURNS[:2])
    await record(tmp_path, TURNS[:5], wall=header().wall + 0.001)
    assert read(tmp_path)[0] == TURNS[:5]
    assert read(old)[0] == TURNS[:2]
