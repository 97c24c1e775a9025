"""The folder as asset store: whole files under their keys, and no way out of the folder."""

import errno
import os
import shutil
from pathlib import Path

import pytest

from ourvidz.adapters.store_folder import FolderStore
from ourvidz.ports import StoreRejected, StoreUnavailable

pytestmark = pytest.mark.anyio

KEY = "2b1f6f4e-98b0-4b53-9b0a-0d9e6f2f7a11/0d4a9f9e-0d5c-4b0e-8f60-ff7f5b1f0f7d/0.png"
BAD_KEYS = [
    "",
    "/",
    "/etc/passwd",
    "..",
    "../x",
    "a/../../x",
    "a/..",
    "a/./b",
    ".",
    "a//b",
    "a/",
    "a\\..\\b",
    "a/\0b",
    "a/\nb",
    "a/%2e%2e/b",
    "a/%2Fb",
    ".hidden",
    "a/.1234.tmp",
    "a/" + "n" * 256,
    "/".join(["n" * 200] * 6),
    "a/\ud800",
]


@pytest.fixture
def source(tmp_path: Path) -> Path:
    path = tmp_path / "source"
    path.write_bytes(b"picture")
    return path


@pytest.fixture
def store(tmp_path: Path) -> FolderStore:
    return FolderStore(tmp_path / "store")


def files(folder: Path) -> list[str]:
    return sorted(str(p.relative_to(folder)) for p in folder.rglob("*") if not p.is_dir())


async def test_a_put_can_be_got(store: FolderStore, source: Path, tmp_path: Path) -> None:
    await store.put("workspace-temp", KEY, source, "image/png")
    assert files(tmp_path / "store") == [f"workspace-temp/{KEY}"]
    await store.get("workspace-temp", KEY, tmp_path / "copy", 7)
    assert (tmp_path / "copy").read_bytes() == b"picture"
    assert files(tmp_path) == ["copy", "source", f"store/workspace-temp/{KEY}"]


async def test_a_put_replaces(store: FolderStore, source: Path, tmp_path: Path) -> None:
    other = tmp_path / "other"
    other.write_bytes(b"other, longer")
    await store.put("b0", "k", source, "image/png")
    await store.put("b0", "k", other, "image/png")
    assert (tmp_path / "store/b0/k").read_bytes() == b"other, longer"
    assert files(tmp_path / "store") == ["b0/k"]


@pytest.mark.parametrize("key", ["absent", "folder", "folder/absent", "file/below"])
async def test_what_is_not_there_is_a_key_error(
    store: FolderStore, source: Path, tmp_path: Path, key: str
) -> None:
    await store.put("b0", "folder/present", source, "image/png")
    await store.put("b0", "file", source, "image/png")
    with pytest.raises(KeyError, match=f"b0/{key}"):
        await store.get("b0", key, tmp_path / "copy", 100)
    assert not (tmp_path / "copy").exists()


async def test_a_file_over_the_limit_is_rejected_and_not_left(
    store: FolderStore, source: Path, tmp_path: Path
) -> None:
    await store.put("b0", "k", source, "image/png")
    target = tmp_path / "there"
    target.mkdir()
    with pytest.raises(StoreRejected, match="more than 6 bytes"):
        await store.get("b0", "k", target / "copy", 6)
    assert list(target.iterdir()) == []


@pytest.mark.parametrize("key", BAD_KEYS, ids=ascii)
async def test_bad_keys_are_rejected_both_ways(
    store: FolderStore, source: Path, tmp_path: Path, key: str
) -> None:
    with pytest.raises(StoreRejected):
        await store.put("b0", key, source, "image/png")
    with pytest.raises(StoreRejected):
        await store.get("b0", key, tmp_path / "copy", 100)
    assert files(tmp_path) == ["source"]


@pytest.mark.parametrize("bucket", ["", "..", ".", "a/b", "/", "a\\b", "a\0"], ids=ascii)
async def test_bad_buckets_are_rejected(store: FolderStore, source: Path, bucket: str) -> None:
    with pytest.raises(StoreRejected):
        await store.put(bucket, "k", source, "image/png")


async def test_links_do_not_lead_out(store: FolderStore, source: Path, tmp_path: Path) -> None:
    outside = tmp_path / "outside"
    outside.mkdir()
    (outside / "secret").write_bytes(b"secret")
    (tmp_path / "store/b0").mkdir(parents=True)
    (tmp_path / "store/b0/out").symlink_to(outside)
    (tmp_path / "store/b0/direct").symlink_to(outside / "secret")
    (tmp_path / "store/b0/loop").symlink_to(tmp_path / "store/b0/loop")
    for key in ("out/secret", "direct"):
        with pytest.raises(StoreRejected, match="leads out"):
            await store.get("b0", key, tmp_path / "copy", 100)
        with pytest.raises(StoreRejected, match="leads out"):
            await store.put("b0", key, source, "image/png")
    with pytest.raises(StoreRejected):
        await store.put("b0", "loop/k", source, "image/png")
    assert files(outside) == ["secret"]
    assert (outside / "secret").read_bytes() == b"secret"


async def test_a_root_behind_a_link_is_fine(source: Path, tmp_path: Path) -> None:
    (tmp_path / "real").mkdir()
    (tmp_path / "link").symlink_to(tmp_path / "real")
    await FolderStore(tmp_path / "link").put("b0", "k", source, "image/png")
    assert files(tmp_path / "real") == ["b0/k"]


@pytest.mark.parametrize("code", [errno.ENOSPC, errno.EDQUOT, errno.EIO, errno.EMFILE])
async def test_a_full_or_failing_disk_is_unavailable(
    store: FolderStore,
    source: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    code: int,
) -> None:
    def fail(_source: Path, target: Path) -> None:
        target.write_bytes(b"half")
        raise OSError(code, os.strerror(code), str(target))

    monkeypatch.setattr(shutil, "copyfile", fail)
    with pytest.raises(StoreUnavailable, match=errno.errorcode[code]) as caught:
        await store.put("b0", "k", source, "image/png")
    assert str(tmp_path) not in str(caught.value)
    assert files(tmp_path / "store") == []


async def test_what_can_never_be_written_is_rejected(
    store: FolderStore, source: Path, tmp_path: Path
) -> None:
    await store.put("b0", "a/b", source, "image/png")
    with pytest.raises(StoreRejected):
        await store.put("b0", "a", source, "image/png")
    with pytest.raises(StoreRejected):
        await store.put("b0", "a/b/c", source, "image/png")
    with pytest.raises(StoreRejected, match="ENOENT"):
        await store.put("b0", "c", tmp_path / "absent", "image/png")
    assert files(tmp_path / "store") == ["b0/a/b"]
