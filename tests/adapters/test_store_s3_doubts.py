"""The S3 store where an ETag contradicts: the file is read back, since not every ETag is an MD5."""

from __future__ import annotations

import hashlib
from collections.abc import AsyncIterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import anyio
import pytest
from structlog.testing import capture_logs
from support.raw_http import Reply, Request, raw_http
from support.rclone import SECRETS
from support.stage import Hold
from support.stored import CONTENT, KEY, NAME, PART_BYTES, SMALL, VIDEO, as_usual, put
from support.supabase_storage import SupabaseStorage, error

from ourvidz.adapters.clock import SystemClock
from ourvidz.adapters.store_s3 import S3Store, open_s3_store
from ourvidz.config import settings
from ourvidz.ports import StoreUnavailable

pytestmark = [pytest.mark.anyio, pytest.mark.slow]

WRONG = f'"{"0" * 32}"'
NOT_COMPARED = "is not the MD5 of what was sent, and the bytes could not be compared: the store "


@pytest.fixture
async def storage(anyio_backend: str) -> SupabaseStorage:
    return SupabaseStorage(salt=b"a key of the service")


@pytest.fixture
async def store(storage: SupabaseStorage) -> AsyncIterator[S3Store]:
    async with raw_http(storage.answer) as url:
        config = storage.config(url, concurrent_max=2).model_copy(update=SMALL)
        async with open_s3_store(config, SECRETS, SystemClock()) as opened:
            yield opened


def changed(content: bytes, at: int) -> bytes:
    return content[:at] + bytes([content[at] ^ 1]) + content[at + 1 :]


async def test_a_service_whose_etags_are_no_md5s_holds_files_all_the_same(
    storage: SupabaseStorage, store: S3Store, picture: Path, video: Path, tmp_path: Path
) -> None:
    empty = tmp_path / "empty"
    empty.touch()
    in_parts = ["POST", "PUT", "PUT", "PUT", "POST", "GET"]
    for path, asked in ((picture, ["PUT", "GET"]), (empty, ["PUT", "GET"]), (video, in_parts)):
        storage.requests.clear()
        with capture_logs() as logged:
            await put(store, path)
        assert storage.asked == asked
        assert storage.files[NAME].body == path.read_bytes()
        (line,) = logged
        assert (line["event"], line["log_level"], line["key"]) == ("upload_read_back", "info", KEY)


@pytest.mark.parametrize("part", [1, 2, 3])
async def test_a_doubt_about_one_part_is_enough(
    storage: SupabaseStorage, store: S3Store, video: Path, part: int
) -> None:
    storage.salt = b""
    digest = hashlib.md5(VIDEO[(part - 1) * PART_BYTES : part * PART_BYTES]).hexdigest()

    async def sent(request: Request) -> Reply:
        reply = storage.usual(request)
        return Reply(200, {"ETag": WRONG}) if request.query["partNumber"] == str(part) else reply

    async def completed(request: Request) -> Reply:
        body = request.body.replace(b"0" * 32, digest.encode())
        return storage.usual(replace(request, body=body))

    storage.planned.extend([as_usual, sent, sent, sent, completed])
    await put(store, video)
    assert storage.asked[-2:] == ["POST", "GET"]
    assert storage.files[NAME].body == VIDEO


@pytest.mark.parametrize(
    "held", [b"", CONTENT[:-1], CONTENT + b"x", CONTENT * 2, changed(CONTENT, 3)]
)
async def test_other_bytes_than_were_sent_are_found_out(
    storage: SupabaseStorage, store: S3Store, picture: Path, held: bytes
) -> None:
    storage.planned.extend([as_usual, Reply(200, {}, held)])
    with pytest.raises(StoreUnavailable, match=r"^the store holds other bytes than were sent$"):
        await put(store, picture)
    assert storage.asked == ["PUT", "GET"]
    await put(store, picture)


@pytest.mark.parametrize(
    "held",
    [
        VIDEO[:-1],
        VIDEO + b"x",
        VIDEO[:PART_BYTES],
        *(changed(VIDEO, at) for at in (0, PART_BYTES, 2 * PART_BYTES - 1, len(VIDEO) - 1)),
    ],
    ids=["short", "long", "one part", "first", "second", "end of second", "last"],
)
async def test_other_bytes_of_a_file_in_parts_are_found_out(
    storage: SupabaseStorage, store: S3Store, video: Path, held: bytes
) -> None:
    storage.planned.extend([*[as_usual] * 5, Reply(200, {}, held)])
    with pytest.raises(StoreUnavailable, match="holds other bytes"):
        await put(store, video)


@pytest.mark.parametrize("path", ["picture", "video"])
@pytest.mark.parametrize(
    ("reply", "says", "seconds"),
    [
        (error(401, "AccessDenied", "no"), "answered 401: AccessDenied", None),
        (error(403, "AccessDenied", "no"), "answered 403: AccessDenied", None),
        (error(404, "NoSuchKey", "gone"), "answered 404: NoSuchKey", None),
        (error(400, "ExpiredToken", "over"), "answered 400: ExpiredToken", None),
        (Reply(503, {"Retry-After": "7"}), "answered 503", 7),
        (Reply(reset=True), "did not answer", None),
        (Reply(200, {}, CONTENT, cut=2), "did not answer: ClientPayloadError", None),
    ],
    ids=["401", "403", "404", "400", "503", "reset", "cut"],
)
async def test_a_doubt_stands_where_the_file_cannot_be_read_back(
    storage: SupabaseStorage,
    store: S3Store,
    request: pytest.FixtureRequest,
    path: str,
    reply: Reply,
    says: str,
    seconds: float | None,
) -> None:
    before = {"picture": 1, "video": 5}[path]
    # aiohttp sends once more what it sent over a kept connection that turns out to be dead.
    storage.planned.extend([*[as_usual] * before, reply, reply])
    with pytest.raises(StoreUnavailable, match=f"{NOT_COMPARED}{says}") as caught:
        await put(store, request.getfixturevalue(path))
    assert caught.value.retry_after_seconds == seconds
    assert storage.asked[before] == "GET"
    assert "DELETE" not in storage.asked, "the file in parts was finished"


async def test_reading_back_takes_a_slot_like_sending(
    storage: SupabaseStorage, store: S3Store, picture: Path
) -> None:
    hold = Hold()

    async def held(request: Request) -> None:
        await hold.wait()

    storage.planned.extend([as_usual, held])
    async with anyio.create_task_group() as tasks:
        tasks.start_soon(put, store, picture)
        await hold.reached()
        assert (storage.asked, store._slots.borrowed_tokens) == (["PUT", "GET"], 1)
        hold.release()
    assert store._slots.borrowed_tokens == 0


class Dripping:
    """A client whose service says every byte on its own, each of them in time."""

    def __init__(self, content: bytes) -> None:
        self.rest = content

    async def put_object(self, **_: Any) -> dict[str, Any]:
        return {"ETag": WRONG}

    async def get_object(self, **_: Any) -> dict[str, Any]:
        return {"Body": self}

    async def __aenter__(self) -> None:
        pass

    async def __aexit__(self, *_: object) -> None:
        pass

    async def read(self, _: int) -> bytes:
        await anyio.lowlevel.checkpoint()
        byte, self.rest = self.rest[:1], self.rest[1:]
        return byte


async def test_a_file_that_drips_is_not_read_back_for_ever(video: Path) -> None:
    config = settings.Store(kind="s3", endpoint="http://127.0.0.1:9", timeout_seconds=0.1)
    store = S3Store(Dripping(VIDEO), config, SystemClock(), in_session=False)
    with pytest.raises(StoreUnavailable, match=f"{NOT_COMPARED}did not answer: no answer in time"):
        await put(store, video)
