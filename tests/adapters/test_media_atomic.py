"""Files that appear whole or not at all."""

import errno
import hashlib
import os
from pathlib import Path

import pytest

from ourvidz.adapters.atomic import make_folders, write_atomically


def test_what_is_written_is_reported(tmp_path: Path) -> None:
    written = write_atomically(tmp_path / "f", lambda path: path.write_bytes(b"abc"))
    assert (tmp_path / "f").read_bytes() == b"abc"
    assert written == (hashlib.sha256(b"abc").hexdigest(), 3)
    assert list(tmp_path.iterdir()) == [tmp_path / "f"]


def test_a_failure_keeps_the_old_file_and_nothing_else(tmp_path: Path) -> None:
    target = tmp_path / "f"
    target.write_bytes(b"old")

    def half(path: Path) -> None:
        path.write_bytes(b"ne")
        raise OSError(errno.ENOSPC, "No space left on device")

    with pytest.raises(OSError, match="No space"):
        write_atomically(target, half)
    assert target.read_bytes() == b"old"
    assert list(tmp_path.iterdir()) == [target]


def test_the_old_file_stands_until_the_new_one_is_whole(tmp_path: Path) -> None:
    target = tmp_path / "f"
    target.write_bytes(b"old")
    seen = []

    def write(path: Path) -> None:
        path.write_bytes(b"new")
        seen.append(target.read_bytes())

    write_atomically(target, write)
    assert seen == [b"old"]
    assert target.read_bytes() == b"new"


def test_data_then_name_then_folder_are_made_durable(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    order = []
    fsync, replace = os.fsync, Path.replace

    def spy_fsync(descriptor: int) -> None:
        order.append(str(Path(f"/proc/self/fd/{descriptor}").readlink()))
        fsync(descriptor)

    def spy_replace(self: Path, target: Path) -> Path:
        order.append(str(target))
        return replace(self, target)

    monkeypatch.setattr(os, "fsync", spy_fsync)
    monkeypatch.setattr(Path, "replace", spy_replace)
    write_atomically(tmp_path / "f", lambda path: path.write_bytes(b"abc"))
    data, name, folder = order
    assert Path(data).parent == tmp_path
    assert data.endswith(".tmp")
    assert (name, folder) == (str(tmp_path / "f"), str(tmp_path))


def test_long_names_fit(tmp_path: Path) -> None:
    name = "n" * 255
    write_atomically(tmp_path / name, lambda path: path.write_bytes(b""))
    assert [path.name for path in tmp_path.iterdir()] == [name]


def test_new_folders_are_made_durable_in_their_parents(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    synced = set()
    fsync = os.fsync

    def spy(descriptor: int) -> None:
        synced.add(str(Path(f"/proc/self/fd/{descriptor}").readlink()))
        fsync(descriptor)

    monkeypatch.setattr(os, "fsync", spy)
    make_folders(tmp_path / "a" / "b")
    assert synced == {str(tmp_path), str(tmp_path / "a")}
    make_folders(tmp_path / "a" / "b")
    assert len(synced) == 2
