"""A whole service that delivers to S3 with real signatures, with keys of its own and without."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator
from typing import Any

import anyio
import pytest
from support.house import LIMIT_SECONDS, House, OpenHouse, job_id, payload
from support.raw_http import raw_http
from support.rclone import BUCKET, ENVIRON, Rclone, rclone
from support.turns import turns
from support.url_signer import UrlSigner

from ourvidz.adapters.store_s3 import S3Store

pytestmark = [pytest.mark.anyio, pytest.mark.slow]

QUIET = {"callback.progress": False}


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Rclone]:
    with rclone(tmp_path_factory.mktemp("rclone")) as running:
        yield running


def to_s3(server: Rclone, **secrets: str) -> dict[str, Any]:
    """The configuration of a service that stores its files there."""
    return {
        **QUIET,
        "store.kind": "s3",
        "store.endpoint": server.url,
        "environ": {**ENVIRON, **secrets},
    }


async def delivers(house: House, server: Rclone, name: str) -> None:
    """Images, then a video from the first of them: all of it is there, byte for byte."""
    body = await house.run(name, batch_size=3, seed=3)
    assert body["status"] == "completed"
    reference = f"{BUCKET}/{body['assets'][0]['url']}"
    video = await house.run(
        f"{name}-video", "wan_generate", reference_mode="start", start_reference_url=reference
    )
    assert video["status"] == "completed"
    await house.quiet()
    for job in (name, f"{name}-video"):
        found = await house.job(job)
        assert found is not None
        for asset in found["output"]["assets"]:
            stored = (server.root / BUCKET / asset["url"]).read_bytes()
            assert hashlib.sha256(stored).hexdigest() == asset["sha256"]
            assert (server.root / BUCKET / asset["thumbnail_url"]).exists()


async def test_images_and_videos_reach_s3(open_house: OpenHouse, server: Rclone) -> None:
    async with open_house(**to_s3(server)) as house:
        await delivers(house, server, "a")


async def test_images_and_videos_reach_s3_without_a_key(
    open_house: OpenHouse, server: Rclone
) -> None:
    signer = UrlSigner(server.url)
    async with raw_http(signer.answer) as url:
        config = {"store.kind": "presigned", "store.presign_url": f"{url}/functions/v1/presign"}
        async with open_house(**QUIET, **config) as house:
            await delivers(house, server, "a")
    methods = [question["method"] for question in signer.questions]
    assert (methods.count("PUT"), methods.count("GET")) == (8, 1)


async def test_a_bucket_that_is_gone_and_comes_back(open_house: OpenHouse, server: Rclone) -> None:
    async with open_house(**to_s3(server), **{"store.bucket": "later"}) as house:
        await house.push("sdxl_queue", payload("a", batch_size=2))
        await house.rendered("a")
        await alarm(house, "store_denied")
        assert house.terminal(job_id("a")) == []
        store = house.service.delivery.uploads.store
        assert isinstance(store, S3Store)
        await store._client.create_bucket(Bucket="later")
        assert (await house.ended("a"))["status"] == "completed"
        await house.quiet()
        assert house.service.health()["alarms"] == []
        assert house.starts("a") == 3
        assert len(list((server.root / "later").rglob("*.png"))) == 2


async def test_a_wrong_key_is_mended_by_a_restart(open_house: OpenHouse, server: Rclone) -> None:
    async with open_house(**to_s3(server, S3_SECRET_ACCESS_KEY="wrong")) as house:
        await house.push("sdxl_queue", payload("a"))
        await house.rendered("a")
        await alarm(house, "store_denied")
        house.kill()
    async with open_house(**to_s3(server)) as house:
        assert (await house.ended("a"))["status"] == "completed"
        await house.quiet()
        assert house.starts("a") == 0


async def alarm(house: House, name: str) -> None:
    with anyio.fail_after(LIMIT_SECONDS):
        while house.service.health()["alarms"] != [name]:
            await turns()
