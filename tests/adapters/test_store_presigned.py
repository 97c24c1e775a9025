"""The store without a key: what whoever signs is asked, and what becomes of the URLs."""

from __future__ import annotations

from collections.abc import AsyncIterator, Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path

import anyio
import orjson
import pytest
from structlog.testing import capture_logs
from support.raw_http import Reply, Request, raw_http
from support.rclone import BUCKET, Rclone, rclone
from support.stage import Hold
from support.stored import CONTENT, KEY, NAME, as_usual, put
from support.supabase_storage import SupabaseStorage, error
from support.url_signer import SECRET, UrlSigner

from ourvidz.adapters.clock import SystemClock
from ourvidz.adapters.http_answers import plain_client
from ourvidz.adapters.store_presigned import PresignedStore
from ourvidz.ports import StoreDenied, StoreRejected, StoreUnavailable

pytestmark = [pytest.mark.anyio, pytest.mark.slow]

ANON = "eyJhbGciOi.anon"


@pytest.fixture(scope="module")
def running() -> SupabaseStorage:
    return SupabaseStorage()


@pytest.fixture
def storage(running: SupabaseStorage) -> SupabaseStorage:
    running.reset()
    return running


@pytest.fixture(scope="module")
async def signing(running: SupabaseStorage, anyio_backend: str) -> AsyncIterator[UrlSigner]:
    async with raw_http(running.answer) as url:
        yield UrlSigner(f"{url}{running.prefix}")


@pytest.fixture
def signer(signing: UrlSigner) -> UrlSigner:
    signing.planned.clear()
    signing.questions.clear()
    signing.requests.clear()
    return signing


@pytest.fixture
async def store(storage: SupabaseStorage, signer: UrlSigner) -> AsyncIterator[PresignedStore]:
    async with raw_http(signer.answer) as url, plain_client() as client:
        yield PresignedStore(signer.config(url), SECRET, ANON, client, SystemClock())


async def test_what_is_asked_and_what_is_sent(
    storage: SupabaseStorage, signer: UrlSigner, store: PresignedStore, picture: Path
) -> None:
    await put(store, picture)
    assert signer.questions == [
        {
            "method": "PUT",
            "bucket": BUCKET,
            "key": KEY,
            "content_type": "image/png",
            "size": len(CONTENT),
        }
    ]
    (asked,) = signer.requests
    assert asked.headers["apikey"] == ANON
    assert asked.headers["authorization"] == f"Bearer {ANON}"
    assert asked.headers["user-agent"].startswith("ourvidz/")
    (request,) = storage.requests
    assert (request.method, request.body) == ("PUT", CONTENT)
    sent = request.headers
    assert (sent["content-type"], sent["cache-control"]) == ("image/png", "max-age=3600")
    assert sent["x-upsert"] == "true", "what the answer says is sent"
    assert not {"authorization", "apikey", "x-callback-signature"} & set(sent)


async def test_a_get_is_asked_for_too(
    storage: SupabaseStorage,
    signer: UrlSigner,
    store: PresignedStore,
    picture: Path,
    tmp_path: Path,
) -> None:
    await put(store, picture)
    await store.get(BUCKET, KEY, tmp_path / "copy", 100)
    assert signer.questions[1] == {"method": "GET", "bucket": BUCKET, "key": KEY}
    assert (tmp_path / "copy").stat().st_size == len(CONTENT)


@pytest.mark.parametrize("method", ["PUT", "GET"])
async def test_a_url_that_has_expired_is_asked_for_anew_once(
    storage: SupabaseStorage,
    signer: UrlSigner,
    store: PresignedStore,
    picture: Path,
    tmp_path: Path,
    method: str,
) -> None:
    await put(store, picture)
    signer.questions.clear()
    storage.now = datetime.now(UTC) + timedelta(hours=1)

    async def in_time_again(request: Request) -> Reply:
        reply = storage.usual(request)
        assert reply.status == 400
        storage.now = None
        return reply

    storage.planned.append(in_time_again)
    if method == "PUT":
        await put(store, picture)
    else:
        await store.get(BUCKET, KEY, tmp_path / "copy", 100)
    assert [question["method"] for question in signer.questions] == [method] * 2
    storage.now = datetime.now(UTC) + timedelta(hours=1)
    with pytest.raises(StoreRejected, match="400"):
        await put(store, picture)
    assert len(signer.questions) == 4, "not for ever"


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Rclone]:
    with rclone(tmp_path_factory.mktemp("rclone")) as listening:
        yield listening


async def test_a_real_url_that_has_expired(server: Rclone, picture: Path) -> None:
    """Signed for the past, as a worker that was asleep would find it; then for now."""
    signer = UrlSigner(server.url)
    signed = signer._signed({"method": "PUT", "bucket": BUCKET, "key": KEY, "content_type": "a/b"})
    date = datetime.now(UTC).strftime("%Y%m%d")
    old = signed["url"].replace(f"X-Amz-Date={date}T", "X-Amz-Date=20200101T")
    signer.planned.append(Reply(200, {}, orjson.dumps({"url": old})))
    async with raw_http(signer.answer) as url, plain_client() as client:
        store = PresignedStore(signer.config(url), SECRET, None, client, SystemClock())
        await put(store, picture)
    assert len(signer.questions) == 2
    assert (server.root / BUCKET / KEY).exists()


@pytest.mark.parametrize(
    ("reply", "kind"),
    [
        (Reply(401), StoreDenied),
        (Reply(403), StoreDenied),
        (Reply(404), StoreDenied),
        (Reply(302, {"Location": "http://127.0.0.1:9/"}), StoreDenied),
        (Reply(413), StoreRejected),
        (Reply(422), StoreRejected),
        (Reply(429, {"Retry-After": "7"}), StoreUnavailable),
        (Reply(500), StoreUnavailable),
        (Reply(503, {}, b"<html>"), StoreUnavailable),
        (Reply(reset=True), StoreUnavailable),
        (Reply(200, {}, b'{"url": "http://127.0.0.1/x"}', cut=5), StoreUnavailable),
        (Reply(200, {}, b""), StoreUnavailable),
        (Reply(200, {}, b"<html>"), StoreUnavailable),
        (Reply(200, {}, b"[]"), StoreUnavailable),
        (Reply(200, {}, b"null"), StoreUnavailable),
        (Reply(200, {}, b'{"url": 1}'), StoreUnavailable),
        (Reply(200, {}, b'{"url": "ftp://h/x"}'), StoreUnavailable),
        (Reply(200, {}, b'{"url": "http://h:bad/x"}'), StoreUnavailable),
        (Reply(200, {}, b'{"url": "/relative"}'), StoreUnavailable),
        (Reply(200, {}, b'{"url": "http://h/", "headers": {"a": 1}}'), StoreUnavailable),
        (Reply(200, {}, b'{"url": "http://h/", "headers": {"a\\n": "b"}}'), StoreUnavailable),
        (Reply(200, {}, b'{"url": "http://h/", "headers": [1]}'), StoreUnavailable),
    ],
)
async def test_odd_answers_of_whoever_signs(
    storage: SupabaseStorage,
    signer: UrlSigner,
    store: PresignedStore,
    picture: Path,
    reply: Reply,
    kind: type[Exception],
) -> None:
    signer.planned.append(reply)
    with pytest.raises(kind) as caught:
        await put(store, picture)
    assert type(caught.value) is kind
    assert getattr(caught.value, "retry_after_seconds", None) == (
        7 if reply.status == 429 else None
    )
    assert (len(signer.questions), storage.requests) == (1, [])


@pytest.mark.parametrize(
    ("reply", "kind", "asked"),
    [
        (error(400, "InvalidKey", "Invalid key"), StoreRejected, 2),
        (error(403, "AccessDenied", "no"), StoreDenied, 2),
        (error(404, "NoSuchBucket", "gone"), StoreDenied, 1),
        (error(413, "EntityTooLarge", "too large"), StoreRejected, 1),
        (error(415, "InvalidMimeType", "no"), StoreRejected, 1),
        (error(544, "DatabaseTimeout", "later"), StoreUnavailable, 1),
        (Reply(503, {"Retry-After": "7"}), StoreUnavailable, 1),
        (Reply(307, {"Location": "http://127.0.0.1:9/"}), StoreDenied, 1),
        (Reply(reset=True), StoreUnavailable, 1),
        (Reply(200, {}, b"x" * 999, cut=500), StoreUnavailable, 1),
    ],
)
async def test_odd_answers_of_the_store(
    storage: SupabaseStorage,
    signer: UrlSigner,
    store: PresignedStore,
    picture: Path,
    reply: Reply,
    kind: type[Exception],
    asked: int,
) -> None:
    storage.planned.extend([reply] * asked)
    with pytest.raises(kind) as caught:
        await put(store, picture)
    assert type(caught.value) is kind
    assert len(signer.questions) == asked
    assert "X-Amz" not in str(caught.value), "a URL is as good as a key"
    assert storage.planned == type(storage.planned)()
    await put(store, picture)
    assert storage.files[NAME].body == CONTENT


NOT_COMPARED = "is not the MD5 of what was sent, and the bytes could not be compared: "


async def test_a_store_whose_etags_are_no_md5s_holds_files_all_the_same(
    storage: SupabaseStorage,
    signer: UrlSigner,
    store: PresignedStore,
    picture: Path,
    tmp_path: Path,
) -> None:
    storage.salt = b"a key of the service"
    empty = tmp_path / "empty"
    empty.touch()
    for path in (picture, empty):
        signer.questions.clear()
        with capture_logs() as logged:
            await put(store, path)
        assert signer.questions[1:] == [{"method": "GET", "bucket": BUCKET, "key": KEY}]
        (line,) = logged
        assert (line["event"], line["log_level"], line["key"]) == ("upload_read_back", "info", KEY)
    assert storage.asked == ["PUT", "GET"] * 2


@pytest.mark.parametrize("held", [b"", CONTENT[:-1], CONTENT + b"x", CONTENT * 2, b"pictura"])
async def test_other_bytes_than_were_sent_are_found_out(
    storage: SupabaseStorage, store: PresignedStore, picture: Path, held: bytes
) -> None:
    storage.salt = b"a key of the service"
    storage.planned.extend([as_usual, Reply(200, {}, held)])
    with pytest.raises(StoreUnavailable, match=r"^the store holds other bytes than were sent$"):
        await put(store, picture)
    await put(store, picture)


@pytest.mark.parametrize(
    ("reply", "says", "seconds"),
    [
        (Reply(401), "401", None),
        (Reply(404), "404", None),
        (Reply(422), "422", None),
        (Reply(429, {"Retry-After": "7"}), "429", 7),
        (Reply(200, {}, b"<html>"), "without a usable URL", None),
        (Reply(reset=True), "no answer", None),
    ],
)
async def test_a_doubt_stands_where_nobody_signs_for_reading_back(
    storage: SupabaseStorage,
    signer: UrlSigner,
    store: PresignedStore,
    picture: Path,
    reply: Reply,
    says: str,
    seconds: float | None,
) -> None:
    storage.salt = b"a key of the service"
    signer.planned.extend([None, reply])
    with pytest.raises(StoreUnavailable, match=f"{NOT_COMPARED}.*{says}") as caught:
        await put(store, picture)
    assert caught.value.retry_after_seconds == seconds
    assert storage.asked == ["PUT"]


@pytest.mark.parametrize(
    ("replies", "says", "seconds"),
    [
        ([error(400, "InvalidKey", "no")] * 2, "400: .*InvalidKey", None),
        ([error(403, "AccessDenied", "no")] * 2, "403: .*AccessDenied", None),
        ([error(404, "NoSuchKey", "gone")], "404: .*NoSuchKey", None),
        ([Reply(503, {"Retry-After": "7"})], "503", 7),
        ([Reply(200, {}, CONTENT, cut=2)], "no answer", None),
        ([Reply(reset=True)], "no answer", None),
    ],
)
async def test_a_doubt_stands_where_the_file_cannot_be_read_back(
    storage: SupabaseStorage,
    store: PresignedStore,
    picture: Path,
    replies: list[Reply],
    says: str,
    seconds: float | None,
) -> None:
    storage.salt = b"a key of the service"
    storage.planned.extend([as_usual, *replies])
    with pytest.raises(StoreUnavailable, match=f"{NOT_COMPARED}.*{says}") as caught:
        await put(store, picture)
    assert caught.value.retry_after_seconds == seconds
    assert "X-Amz" not in str(caught.value), "a URL is as good as a key"
    assert storage.asked == ["PUT", *["GET"] * len(replies)]


async def test_a_url_for_reading_back_that_has_expired_is_asked_for_anew(
    storage: SupabaseStorage, signer: UrlSigner, store: PresignedStore, picture: Path
) -> None:
    storage.salt = b"a key of the service"
    storage.planned.extend([as_usual, error(400, "ExpiredToken", "over")])
    await put(store, picture)
    assert [question["method"] for question in signer.questions] == ["PUT", "GET", "GET"]


async def test_nobody_listens_where_the_url_leads(
    signer: UrlSigner, store: PresignedStore, picture: Path
) -> None:
    signer.planned.append(Reply(200, {}, b'{"url": "http://127.0.0.1:9/secret-path?token=t"}'))
    with pytest.raises(StoreUnavailable) as caught:
        await put(store, picture)
    assert str(caught.value) == "no answer: ConnectError"


async def test_a_wrong_secret_is_denied(signer: UrlSigner, picture: Path) -> None:
    async with raw_http(signer.answer) as url, plain_client() as client:
        store = PresignedStore(signer.config(url), "other", None, client, SystemClock())
        with pytest.raises(StoreDenied, match=r"store\.presign_url answered 401"):
            await put(store, picture)


async def test_a_store_that_never_answers(
    storage: SupabaseStorage, signer: UrlSigner, picture: Path
) -> None:
    hold = Hold()

    async def silent(request: Request) -> Reply:
        await hold.wait()
        return Reply(500)

    storage.planned.append(silent)
    async with raw_http(signer.answer) as url, plain_client() as client:
        config = signer.config(url, timeout_seconds=0.1)
        store = PresignedStore(config, SECRET, None, client, SystemClock())
        with pytest.raises(StoreUnavailable, match="no answer"):
            await put(store, picture)
    hold.release()


@pytest.mark.parametrize("read_back", [False, True])
async def test_no_more_at_once_than_allowed(
    storage: SupabaseStorage, signer: UrlSigner, picture: Path, read_back: bool
) -> None:
    if read_back:
        storage.salt = b"a key of the service"
    holds = [Hold(), Hold()]
    waiting = iter(holds)

    async def held(request: Request) -> None:
        if request.method == ("GET" if read_back else "PUT"):
            await next(waiting, holds[0]).wait()

    storage.planned.extend([held] * 8)
    async with raw_http(signer.answer) as url, plain_client() as client:
        config = signer.config(url, concurrent_max=2)
        store = PresignedStore(config, SECRET, None, client, SystemClock())
        async with anyio.create_task_group() as tasks:
            for name in "abcd":
                tasks.start_soon(store.put, BUCKET, name, picture, "image/png")
            for hold in holds:
                await hold.reached()
            for _ in range(100):
                await anyio.lowlevel.checkpoint()
            methods = sorted(question["method"] for question in signer.questions)
            expected = ["GET", "GET", "PUT", "PUT"] if read_back else ["PUT", "PUT"]
            assert methods == expected, "a URL is asked for when it can be used"
            for hold in holds:
                hold.release()
    assert set(storage.files) == {f"{BUCKET}/{name}" for name in "abcd"}
