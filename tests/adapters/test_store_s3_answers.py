"""The S3 store against a service with Supabase's manners, and every odd answer there is."""

from __future__ import annotations

import base64
import hashlib
from collections.abc import AsyncIterator
from pathlib import Path

import anyio
import pytest
from pydantic import SecretStr
from support.raw_http import Reply, Request, raw_http
from support.rclone import BUCKET, SECRETS
from support.stage import Hold
from support.stored import CONTENT, KEY, NAME, PART_BYTES, SMALL, VIDEO, as_usual, put
from support.supabase_storage import SupabaseStorage, error

from ourvidz.adapters.clock import SystemClock
from ourvidz.adapters.store_s3 import S3Store, open_s3_store
from ourvidz.config import settings
from ourvidz.ports import StoreDenied, StoreRejected, StoreUnavailable

pytestmark = [pytest.mark.anyio, pytest.mark.slow]

MD5 = hashlib.md5(CONTENT).hexdigest()


@pytest.fixture(scope="module")
def running() -> SupabaseStorage:
    return SupabaseStorage()


@pytest.fixture
def storage(running: SupabaseStorage) -> SupabaseStorage:
    running.reset()
    return running


@pytest.fixture(scope="module")
async def url(running: SupabaseStorage, anyio_backend: str) -> AsyncIterator[str]:
    async with raw_http(running.answer) as listening:
        yield listening


@pytest.fixture(scope="module")
async def store(running: SupabaseStorage, url: str) -> AsyncIterator[S3Store]:
    config = running.config(url, concurrent_max=2).model_copy(update=SMALL)
    async with open_s3_store(config, SECRETS, SystemClock()) as opened:
        yield opened


def files(folder: Path) -> list[str]:
    return [path.name for path in folder.iterdir()]


async def test_what_a_put_sends(storage: SupabaseStorage, store: S3Store, picture: Path) -> None:
    await put(store, picture)
    (request,) = storage.requests
    assert (request.method, request.path) == ("PUT", f"{storage.prefix}/{NAME}")
    assert request.body == CONTENT
    sent = request.headers
    assert sent["content-type"] == "image/png"
    assert sent["cache-control"] == "max-age=3600"
    assert sent["content-md5"] == base64.b64encode(hashlib.md5(CONTENT).digest()).decode()
    assert sent["x-amz-content-sha256"] == "UNSIGNED-PAYLOAD"
    assert "/us-east-1/s3/aws4_request" in sent["authorization"]
    assert "x-amz-security-token" not in sent
    assert not [name for name in sent if "checksum" in name or "trailer" in name]


async def test_the_form_with_a_session(storage: SupabaseStorage, url: str, picture: Path) -> None:
    session = settings.Secrets(
        s3_access_key_id=SecretStr("project"),
        s3_secret_access_key=SecretStr("anon"),
        s3_session_token=SecretStr("user-jwt"),
    )
    config = storage.config(url, region="eu-central-1")
    async with open_s3_store(config, session, SystemClock()) as store:
        await put(store, picture)
    (request,) = storage.requests
    assert request.headers["x-amz-security-token"] == "user-jwt"
    assert "Credential=project/" in request.headers["authorization"]
    assert "/eu-central-1/s3/" in request.headers["authorization"]


async def test_a_400_may_be_the_end_of_a_session(
    storage: SupabaseStorage, url: str, picture: Path, video: Path, tmp_path: Path
) -> None:
    session = SECRETS.model_copy(update={"s3_session_token": SecretStr("user-jwt")})
    small = {"multipart_bytes": PART_BYTES, "part_bytes": PART_BYTES}
    config = storage.config(url).model_copy(update=small)
    ended = error(400, "ExpiredToken", "The provided token has expired.")
    async with open_s3_store(config, session, SystemClock()) as store:
        for before, path in ((0, picture), (0, video), (1, video), (4, video)):
            storage.planned.extend([*[as_usual] * before, ended])
            with pytest.raises(StoreDenied, match=r"400: ExpiredToken.*session token may have"):
                await put(store, path)
        storage.planned.append(ended)
        with pytest.raises(StoreDenied, match="session token may have ended"):
            await store.get(BUCKET, KEY, tmp_path / "copy", 100)
        for status in (409, 413, 415, 422):
            storage.planned.append(error(status, "EntityTooLarge", "no"))
            with pytest.raises(StoreRejected, match=f"answered {status}") as caught:
                await put(store, picture)
            assert not isinstance(caught.value, StoreDenied)


@pytest.mark.parametrize("status", [408, 429, 500, 502, 503, 504, 520, 544])
async def test_what_may_pass_is_unavailable_and_asked_once(
    storage: SupabaseStorage, store: S3Store, picture: Path, tmp_path: Path, status: int
) -> None:
    storage.planned.extend([error(status, "Busy", "later")] * 2)
    with pytest.raises(StoreUnavailable, match=f"answered {status}: Busy: later") as caught:
        await put(store, picture)
    assert caught.value.retry_after_seconds is None
    with pytest.raises(StoreUnavailable, match=f"answered {status}"):
        await store.get(BUCKET, KEY, tmp_path / "copy", 100)
    assert storage.asked == ["PUT", "GET"], "attempts are counted by the delivery alone"
    await put(store, picture)
    assert storage.files[NAME].body == CONTENT


@pytest.mark.parametrize("status", [400, 409, 411, 413, 415, 416, 422])
async def test_what_is_wrong_with_the_file_is_rejected(
    storage: SupabaseStorage, store: S3Store, picture: Path, status: int
) -> None:
    storage.planned.append(error(status, "InvalidKey", "Invalid key: u/j"))
    with pytest.raises(
        StoreRejected, match=f"answered {status}: InvalidKey: Invalid key"
    ) as caught:
        await put(store, picture)
    assert not isinstance(caught.value, StoreDenied)
    assert storage.asked == ["PUT"]


@pytest.mark.parametrize("status", [301, 401, 403, 404, 405])
async def test_what_is_no_files_fault_is_denied(
    storage: SupabaseStorage, store: S3Store, picture: Path, status: int
) -> None:
    storage.planned.append(error(status, "AccessDenied", "Access Denied"))
    with pytest.raises(StoreDenied, match=f"answered {status}: AccessDenied"):
        await put(store, picture)
    assert storage.asked.count("PUT") == 1


@pytest.mark.parametrize(
    "body",
    [b"", b"<html>Bad gateway</html>", b'{"error":"x"}', b"<Error><Code>Half", b"\xff\0", b"<a/>"],
)
@pytest.mark.parametrize(("status", "kind"), [(503, StoreUnavailable), (415, StoreRejected)])
async def test_the_status_decides_whatever_the_body_is(
    storage: SupabaseStorage,
    store: S3Store,
    picture: Path,
    body: bytes,
    status: int,
    kind: type[Exception],
) -> None:
    storage.planned.append(Reply(status, {}, body))
    with pytest.raises(kind, match=f"the store answered {status}"):
        await put(store, picture)


async def test_the_limits_of_a_bucket(
    storage: SupabaseStorage, store: S3Store, picture: Path
) -> None:
    storage.bytes_max = 3
    with pytest.raises(StoreRejected, match="413: EntityTooLarge"):
        await put(store, picture)
    storage.mimes = frozenset({"video/mp4"})
    with pytest.raises(StoreRejected, match="415: InvalidMimeType"):
        await put(store, picture)


@pytest.mark.parametrize(("asked", "seconds"), [("7", 7), ("0", 0), ("soon", None)])
async def test_the_time_that_a_store_names_is_passed_on(
    storage: SupabaseStorage, store: S3Store, picture: Path, asked: str, seconds: float | None
) -> None:
    storage.planned.append(Reply(429, {"Retry-After": asked}))
    with pytest.raises(StoreUnavailable) as caught:
        await put(store, picture)
    assert caught.value.retry_after_seconds == seconds


@pytest.mark.parametrize("reply", [Reply(reset=True), Reply(503, {}, b"x" * 999, cut=500)])
async def test_a_connection_that_breaks_off_is_unavailable(
    storage: SupabaseStorage, store: S3Store, picture: Path, reply: Reply
) -> None:
    # aiohttp sends once more what it sent over a kept connection that turns out to be dead.
    storage.planned.extend([reply] * 2)
    with pytest.raises(StoreUnavailable, match="did not answer"):
        await put(store, picture)
    storage.planned.clear()
    await put(store, picture)


async def test_a_reply_that_is_lost_does_no_harm(
    storage: SupabaseStorage, store: S3Store, picture: Path
) -> None:
    async def lost(request: Request) -> Reply:
        storage.usual(request)
        return Reply(reset=True)

    storage.planned.extend([lost, lost])
    with pytest.raises(StoreUnavailable):
        await put(store, picture)
    storage.planned.clear()
    await put(store, picture)
    assert storage.files[NAME].body == CONTENT


async def test_a_store_that_never_answers(
    storage: SupabaseStorage, url: str, picture: Path
) -> None:
    hold = Hold()

    async def silent(request: Request) -> Reply:
        await hold.wait()
        return Reply(500)

    storage.planned.append(silent)
    config = storage.config(url, timeout_seconds=0.1)
    async with open_s3_store(config, SECRETS, SystemClock()) as store:
        with pytest.raises(StoreUnavailable, match="no answer in time"):
            await put(store, picture)
    hold.release()


@pytest.mark.parametrize(
    ("etag", "asked"),
    [
        (f'"{MD5}"', ["PUT"]),
        (f"W/{MD5.upper()}", ["PUT"]),
        (None, ["PUT", "HEAD"]),
        (f'"{"0" * 32}-3"', ["PUT", "HEAD"]),
        ('"opaque"', ["PUT", "HEAD"]),
    ],
)
async def test_an_etag_that_says_nothing_is_made_good_by_the_length(
    storage: SupabaseStorage, store: S3Store, picture: Path, etag: str | None, asked: list[str]
) -> None:
    async def odd(request: Request) -> Reply:
        storage.usual(request)
        return Reply(200, {} if etag is None else {"ETag": etag})

    storage.planned.append(odd)
    await put(store, picture)
    assert storage.asked == asked
    storage.planned.extend([Reply(200), Reply(200, {}, b"short")])
    with pytest.raises(StoreUnavailable, match="holds 5 bytes of 7"):
        await put(store, picture)
    storage.planned.extend([Reply(200), Reply(404)])
    with pytest.raises(StoreUnavailable, match="not there"):
        await put(store, picture)
    storage.planned.extend([Reply(200), Reply(403)])
    await put(store, picture)


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("x-amz-server-side-encryption", "aws:kms"),
        ("x-amz-server-side-encryption-customer-algorithm", "AES256"),
    ],
)
async def test_a_sealed_file_has_no_md5(
    storage: SupabaseStorage, store: S3Store, picture: Path, name: str, value: str
) -> None:
    sealed = {"ETag": f'"{"0" * 32}"', name: value}
    storage.planned.extend([Reply(200, sealed), Reply(200, {}, CONTENT)])
    await put(store, picture)
    assert storage.asked == ["PUT", "HEAD"]


@pytest.mark.parametrize("reply", [Reply(200, {}, b"x" * 999, cut=500), Reply(reset=True)])
async def test_a_copy_that_breaks_off_is_not_left(
    storage: SupabaseStorage, store: S3Store, tmp_path: Path, reply: Reply
) -> None:
    storage.planned.extend([reply] * 2)
    with pytest.raises(StoreUnavailable):
        await store.get(BUCKET, KEY, tmp_path / "copy", 1000)
    assert files(tmp_path) == []


async def test_what_is_not_there_is_known_by_its_status(
    storage: SupabaseStorage, store: S3Store, tmp_path: Path
) -> None:
    storage.planned.append(Reply(404, {}, b"<html>"))
    for _ in range(2):
        with pytest.raises(KeyError):
            await store.get(BUCKET, KEY, tmp_path / "copy", 100)


async def test_a_large_file_goes_in_parts(
    storage: SupabaseStorage, store: S3Store, video: Path
) -> None:
    await put(store, video)
    stored = storage.files[NAME]
    assert stored.body == VIDEO
    assert (stored.mime, stored.cache_control) == ("image/png", "max-age=3600")
    assert storage.asked == ["POST", "PUT", "PUT", "PUT", "POST"]
    assert all("content-md5" in r.headers for r in storage.requests if r.method == "PUT")
    assert storage.uploads == {}


async def test_no_more_parts_at_once_than_allowed(
    storage: SupabaseStorage, store: S3Store, video: Path, picture: Path
) -> None:
    holds = [Hold(), Hold()]
    for hold in holds:

        async def held(request: Request, hold: Hold = hold) -> None:
            await hold.wait()

        storage.planned.append(held)
    storage.planned.appendleft(as_usual)
    async with anyio.create_task_group() as tasks:
        tasks.start_soon(put, store, video)
        for hold in holds:
            await hold.reached()
        tasks.start_soon(store.put, BUCKET, "other", picture, "image/png")
        for _ in range(100):
            await anyio.lowlevel.checkpoint()
        assert storage.asked == ["POST", "PUT", "PUT"]
        for hold in holds:
            hold.release()
    assert set(storage.files) == {NAME, f"{BUCKET}/other"}


@pytest.mark.parametrize("at", [1, 2, 3, 4], ids=["first", "second", "third", "completion"])
@pytest.mark.parametrize(
    ("reply", "kind"),
    [
        (Reply(503), StoreUnavailable),
        (error(413, "EntityTooLarge", "too large"), StoreRejected),
        (error(403, "AccessDenied", "no"), StoreDenied),
        (error(404, "NoSuchUpload", "forgotten"), StoreUnavailable),
    ],
    ids=["503", "413", "403", "404"],
)
async def test_a_file_in_parts_that_fails_is_dropped_at_the_store(
    storage: SupabaseStorage,
    store: S3Store,
    video: Path,
    at: int,
    reply: Reply,
    kind: type[Exception],
) -> None:
    storage.planned.extend([*[as_usual] * at, reply])
    with pytest.raises(kind):
        await put(store, video)
    storage.planned.clear()
    assert storage.uploads == {}
    assert storage.asked[-1] == "DELETE"
    await put(store, video)
    assert storage.files[NAME].body == VIDEO


@pytest.mark.parametrize(
    ("at", "reply", "says"),
    [
        (0, Reply(200, {}, b"<Result/>"), "began no upload"),
        (0, Reply(200, {}, b"<Result><UploadId>half"), "answered 500"),
        (4, Reply(200, {}, b"<Result><ETag>half"), "answered 500"),
        (4, error(200, "InternalError", "it took too long"), "put the parts together"),
    ],
)
async def test_odd_answers_to_a_file_in_parts(
    storage: SupabaseStorage, store: S3Store, video: Path, at: int, reply: Reply, says: str
) -> None:
    storage.planned.extend([*[as_usual] * at, reply])
    with pytest.raises(StoreUnavailable, match=says):
        await put(store, video)
    storage.planned.clear()
    await put(store, video)
    assert storage.files[NAME].body == VIDEO


@pytest.mark.parametrize("at", [1, 2, 4], ids=["first", "second", "completion"])
async def test_a_file_in_parts_that_is_called_off_is_dropped_at_the_store(
    storage: SupabaseStorage, store: S3Store, video: Path, at: int
) -> None:
    hold = Hold()

    async def held(request: Request) -> None:
        await hold.wait()

    storage.planned.extend([*[as_usual] * at, held])
    async with anyio.create_task_group() as tasks:
        tasks.start_soon(put, store, video)
        await hold.reached()
        tasks.cancel_scope.cancel()
    assert storage.uploads == {}
    assert NAME not in storage.files
    hold.release()
    await put(store, video)
    assert storage.files[NAME].body == VIDEO
