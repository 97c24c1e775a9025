"""The S3 store over rclone: what is kept beside the bytes; wrong keys, clocks and buckets."""

from __future__ import annotations

import time
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import AbstractAsyncContextManager
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any

import botocore.auth
import pytest
from pydantic import SecretStr
from structlog.testing import capture_logs
from support.rclone import BUCKET, KEY_ID, SECRETS, Rclone, rclone

from ourvidz.adapters.clock import SystemClock
from ourvidz.adapters.store_s3 import S3Store, open_s3_store
from ourvidz.config import settings
from ourvidz.ports import StoreDenied, StoreUnavailable

pytestmark = [pytest.mark.anyio, pytest.mark.slow]

OpenStore = Callable[..., AbstractAsyncContextManager[S3Store]]
MIB = 1024 * 1024


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Rclone]:
    with rclone(tmp_path_factory.mktemp("rclone")) as running:
        yield running


@pytest.fixture(scope="module")
async def store(server: Rclone, anyio_backend: str) -> AsyncIterator[S3Store]:
    async with open_s3_store(server.config(), SECRETS, SystemClock()) as opened:
        yield opened


def secrets(key: str = KEY_ID, secret: str = "wrong") -> settings.Secrets:
    return settings.Secrets(s3_access_key_id=SecretStr(key), s3_secret_access_key=SecretStr(secret))


@pytest.mark.parametrize("size", [7, 6 * MIB], ids=["whole", "in parts"])
async def test_type_and_cache_control_are_kept(server: Rclone, tmp_path: Path, size: int) -> None:
    path = tmp_path / "video"
    path.write_bytes(b"v" * size)
    config = server.config(
        multipart_bytes=5 * MIB, part_bytes=5 * MIB, cache_control="private, max-age=60"
    )
    async with open_s3_store(config, SECRETS, SystemClock()) as store:
        await store.put(BUCKET, "u/j/0.mp4", path, "video/mp4")
        head = await store._client.head_object(Bucket=BUCKET, Key="u/j/0.mp4")
    assert (head["ContentType"], head["CacheControl"]) == ("video/mp4", "private, max-age=60")
    assert head["ContentLength"] == size


@pytest.mark.parametrize("wrong", [secrets(), secrets(key="nobody")], ids=["secret", "key"])
async def test_a_wrong_key_denies_everything(
    server: Rclone, picture: Path, tmp_path: Path, wrong: settings.Secrets
) -> None:
    async with open_s3_store(server.config(), wrong, SystemClock()) as store:
        with pytest.raises(StoreDenied, match="the store answered 403: "):
            await store.put(BUCKET, "k", picture, "image/png")
        with pytest.raises(StoreDenied, match="the store answered 403: "):
            await store.get(BUCKET, "k", tmp_path / "copy", 100)


async def test_a_bucket_that_is_gone_and_comes_back(
    server: Rclone, store: S3Store, picture: Path
) -> None:
    with pytest.raises(StoreDenied, match=r"404: NoSuchBucket"):
        await store.put("gone", "k", picture, "image/png")
    await store._client.create_bucket(Bucket="gone")
    await store.put("gone", "k", picture, "image/png")
    assert (server.root / "gone" / "k").read_bytes() == b"picture"


@pytest.mark.parametrize("hours", [-1, 1])
async def test_a_clock_that_is_wrong_is_told_and_passes(
    store: S3Store, picture: Path, monkeypatch: pytest.MonkeyPatch, hours: int
) -> None:
    real = botocore.auth.get_current_datetime

    def skewed(*args: Any) -> datetime:
        return real(*args) + timedelta(hours=hours)

    with monkeypatch.context() as patch:
        patch.setattr("botocore.auth.get_current_datetime", skewed)
        skewed_clock = SystemClock()
        patch.setattr(skewed_clock, "wall", lambda: time.time() + 3600 * hours)
        patch.setattr(store, "_clock", skewed_clock)
        with pytest.raises(StoreDenied, match=rf"clock is \{'+' if hours > 0 else '-'}3[56]\d\d s"):
            await store.put(BUCKET, "skewed", picture, "image/png")
    await store.put(BUCKET, "skewed", picture, "image/png")


async def test_five_minutes_are_no_matter(
    store: S3Store, picture: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    real = botocore.auth.get_current_datetime
    monkeypatch.setattr(
        "botocore.auth.get_current_datetime", lambda *args: real(*args) + timedelta(minutes=5)
    )
    await store.put(BUCKET, "k", picture, "image/png")


@pytest.mark.parametrize("size", [7, 11 * MIB], ids=["whole", "in parts"])
async def test_a_file_whose_etag_contradicts_is_read_back(
    server: Rclone, tmp_path: Path, size: int
) -> None:
    path = tmp_path / "video"
    path.write_bytes(bytes(range(256)) * (size // 256) + b"v" * (size % 256))
    stored = server.root / BUCKET / "doubtful"

    def other(parsed: dict[str, Any], **_: Any) -> None:
        digest, dash, number = parsed["ETag"].strip('"').partition("-")
        parsed["ETag"] = f'"{"0" * len(digest)}{dash}{number}"'

    def spoilt(**_: Any) -> None:
        content = stored.read_bytes()
        stored.write_bytes(content[:-1] + b"x")

    config = server.config(multipart_bytes=5 * MIB, part_bytes=5 * MIB)
    operation = "PutObject" if size < MIB else "CompleteMultipartUpload"
    async with open_s3_store(config, SECRETS, SystemClock()) as store:
        events = store._client.meta.events
        events.register(f"after-call.s3.{operation}", other)
        with capture_logs() as logged:
            await store.put(BUCKET, "doubtful", path, "video/mp4")
        assert [line["event"] for line in logged] == ["upload_read_back"]
        events.register(f"after-call.s3.{operation}", spoilt)
        with pytest.raises(StoreUnavailable, match="other bytes"):
            await store.put(BUCKET, "doubtful", path, "video/mp4")


async def test_nobody_listens(picture: Path) -> None:
    config = settings.Store(kind="s3", endpoint="http://127.0.0.1:9")
    async with open_s3_store(config, SECRETS, SystemClock()) as store:
        with pytest.raises(StoreUnavailable, match="did not answer: EndpointConnectionError"):
            await store.put(BUCKET, "k", picture, "image/png")


async def test_this_machines_own_set_up_for_aws_is_not_read(
    server: Rclone, picture: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name, value in {
        "AWS_PROFILE": "absent",
        "AWS_CONFIG_FILE": str(picture),
        "AWS_ACCESS_KEY_ID": "other",
        "AWS_REQUEST_CHECKSUM_CALCULATION": "when_supported",
        "AWS_ENDPOINT_URL": "http://127.0.0.1:9",
        "HTTP_PROXY": "http://127.0.0.1:9",
        "http_proxy": "http://127.0.0.1:9",
    }.items():
        monkeypatch.setenv(name, value)
    async with open_s3_store(server.config(), SECRETS, SystemClock()) as store:
        await store.put(BUCKET, "k", picture, "image/png")
