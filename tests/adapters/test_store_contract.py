"""What every asset store does: a folder, S3 with real signatures, URLs signed elsewhere."""

from __future__ import annotations

import errno
import os
from collections.abc import AsyncIterator, Iterator
from contextlib import AsyncExitStack
from pathlib import Path

import anyio
import pytest
from support.raw_http import raw_http
from support.rclone import BUCKET, SECRETS, Rclone, rclone
from support.turns import turns
from support.url_signer import SECRET, UrlSigner

from ourvidz.adapters.clock import SystemClock
from ourvidz.adapters.http_answers import plain_client
from ourvidz.adapters.store_folder import FolderStore
from ourvidz.adapters.store_presigned import PresignedStore
from ourvidz.adapters.store_s3 import open_s3_store
from ourvidz.ports import AssetStore, DiskRefused, StoreRejected

pytestmark = [pytest.mark.anyio, pytest.mark.slow]

KEY = "2b1f6f4e-98b0-4b53-9b0a-0d9e6f2f7a11/0d4a9f9e-0d5c-4b0e-8f60-ff7f5b1f0f7d/0.png"
MIB = 1024 * 1024
SMALL = {"multipart_bytes": 5 * MIB, "part_bytes": 5 * MIB}


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Rclone]:
    with rclone(tmp_path_factory.mktemp("rclone")) as running:
        yield running


@pytest.fixture(scope="module", params=["folder", "s3", "presigned"])
async def store(
    request: pytest.FixtureRequest,
    server: Rclone,
    anyio_backend: str,
    tmp_path_factory: pytest.TempPathFactory,
) -> AsyncIterator[AssetStore]:
    clock = SystemClock()
    async with AsyncExitStack() as stack:
        if request.param == "folder":
            yield FolderStore(tmp_path_factory.mktemp("store"))
        elif request.param == "s3":
            config = server.config(**SMALL)
            yield await stack.enter_async_context(open_s3_store(config, SECRETS, clock))
        else:
            signer = UrlSigner(server.url)
            url = await stack.enter_async_context(raw_http(signer.answer))
            client = await stack.enter_async_context(plain_client())
            yield PresignedStore(signer.config(url, **SMALL), SECRET, None, client, clock)


def file(folder: Path, content: bytes, name: str = "source") -> Path:
    path = folder / name
    path.write_bytes(content)
    return path


def files(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir())


async def copy(store: AssetStore, key: str, folder: Path, bytes_max: int = 100 * MIB) -> bytes:
    target = folder / "copies" / "copy"
    target.parent.mkdir(exist_ok=True)
    target.unlink(missing_ok=True)
    await store.get(BUCKET, key, target, bytes_max)
    assert files(target.parent) == ["copy"]
    return target.read_bytes()


@pytest.mark.parametrize(
    "size", [0, 1, 70_000, 5 * MIB, 5 * MIB + 1, 12 * MIB], ids=lambda n: f"{n} bytes"
)
async def test_what_is_put_can_be_got(store: AssetStore, tmp_path: Path, size: int) -> None:
    content = bytes(range(256)) * (size // 256 + 1)
    await store.put(BUCKET, KEY, file(tmp_path, content[:size]), "image/png")
    assert await copy(store, KEY, tmp_path) == content[:size]
    await store.put(BUCKET, KEY, file(tmp_path, b"another one, after it"), "image/png")
    assert await copy(store, KEY, tmp_path) == b"another one, after it"


@pytest.mark.parametrize("key", ["a b+c/ü,(1).png", "a&b=c/#x?y.png", "one"])
async def test_odd_keys_are_kept_as_they_are(store: AssetStore, tmp_path: Path, key: str) -> None:
    await store.put(BUCKET, key, file(tmp_path, key.encode()), "image/png")
    assert await copy(store, key, tmp_path) == key.encode()


async def test_what_is_not_there_is_a_key_error(store: AssetStore, tmp_path: Path) -> None:
    for bucket, key in ((BUCKET, "absent"), ("no-such-bucket", "k")):
        with pytest.raises(KeyError, match=f"{bucket}/{key}"):
            await store.get(bucket, key, tmp_path / "copy", 100)
    assert files(tmp_path) == []


async def test_a_copy_over_the_limit_is_rejected_and_not_left(
    store: AssetStore, tmp_path: Path
) -> None:
    await store.put(BUCKET, KEY, file(tmp_path, b"picture"), "image/png")
    assert await copy(store, KEY, tmp_path, 7) == b"picture"
    with pytest.raises(StoreRejected, match="more than 6 bytes"):
        await copy(store, KEY, tmp_path, 6)
    assert files(tmp_path / "copies") == []


@pytest.mark.parametrize("key", ["", "..", "../x", "a/../b", "a//b", "/a", "a/%2e%2e/b", "a\\b"])
async def test_bad_names_are_rejected_both_ways(
    store: AssetStore, tmp_path: Path, key: str
) -> None:
    for bucket, name in ((BUCKET, key), (key, "k"), ("a/b", "k")):
        with pytest.raises(StoreRejected):
            await store.put(bucket, name, file(tmp_path, b"x"), "image/png")
        with pytest.raises(StoreRejected):
            await store.get(bucket, name, tmp_path / "copy", 100)


async def test_a_file_that_is_gone_is_rejected(store: AssetStore, tmp_path: Path) -> None:
    with pytest.raises(StoreRejected, match="ENOENT"):
        await store.put(BUCKET, KEY, tmp_path / "gone", "image/png")


async def test_many_at_once(store: AssetStore, tmp_path: Path) -> None:
    names = [f"many/{n}.png" for n in range(12)]
    async with anyio.create_task_group() as tasks:
        for number, name in enumerate(names):
            content = bytes([number]) * (6 * MIB if number % 6 == 0 else 1000)
            path = file(tmp_path, content, f"source-{number}")
            tasks.start_soon(store.put, BUCKET, name, path, "image/png")
    for number, name in enumerate(names):
        assert set(await copy(store, name, tmp_path)) == {number}


@pytest.mark.parametrize("rounds", [1, 3, 10, 30])
async def test_a_put_that_is_called_off_leaves_the_old_file_or_the_new_one(
    store: AssetStore, tmp_path: Path, rounds: int
) -> None:
    old, new = b"old" * 100, b"new" * (4 * MIB)
    await store.put(BUCKET, KEY, file(tmp_path, old, "old"), "image/png")
    async with anyio.create_task_group() as tasks:
        tasks.start_soon(store.put, BUCKET, KEY, file(tmp_path, new, "new"), "image/png")
        for _ in range(rounds):
            await turns(3)
        tasks.cancel_scope.cancel()
    assert await copy(store, KEY, tmp_path) in (old, new)
    await store.put(BUCKET, KEY, file(tmp_path, new, "new"), "image/png")
    assert await copy(store, KEY, tmp_path) == new


async def test_a_copy_that_the_disk_has_no_room_for(
    store: AssetStore, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(path: Path, _: object) -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), str(path))

    await store.put(BUCKET, KEY, file(tmp_path, b"content"), "image/png")
    monkeypatch.setattr(Path, "replace", full)
    with pytest.raises(DiskRefused, match=r"^spool: ENOSPC$"):
        await store.get(BUCKET, KEY, tmp_path / "copy", 1000)
    assert os.listdir(tmp_path) == ["source"]  # noqa: PTH208 - names alone
