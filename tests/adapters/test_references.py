"""References: which locations are read, from where, and how a failure is told."""

import asyncio
import errno
import io
import os
from collections.abc import Sequence
from pathlib import Path

import anyio
import httpx
import pytest
from PIL import Image

from ourvidz.adapters.references import GuardedReferences
from ourvidz.adapters.safe_http import FetchRefused, FetchUnavailable, PinnedClient
from ourvidz.adapters.store_folder import FolderStore
from ourvidz.config import settings
from ourvidz.jobs import ErrorCode, JobError, Reference
from ourvidz.ports import DiskRefused, ReferenceFailed, StoreRejected, StoreUnavailable

pytestmark = pytest.mark.anyio

STRICT = PinnedClient()  # as production makes it; once, as reading the CA bundle takes 50 ms
HOSTS = ("good.test", "*.cdn.test", "good.test:8443")
NO_KEYS = [
    "workspace-temp",
    "workspace-temp/",
    "workspace-temp//a.png",
    "workspace-temp/../user-library/a.png",
    "workspace-temp/u/../../etc/passwd",
    "workspace-temp/u/./a.png",
    "workspace-temp/u\\a.png",
    "workspace-temp/..\\a.png",
    "workspace-temp/u/a\0.png",
    "workspace-temp/u/a\n.png",
    "workspace-temp/%2e%2e/a.png",
    "workspace-temp/u%2fa.png",
    "workspace-temp/https://good.test/a.png",
    "workspace-temp/.hidden",
]
NO_URLS = [
    "",
    " ",
    "a.png",
    "other-bucket/a.png",
    "Workspace-temp/a.png",
    "/workspace-temp/a.png",
    "/etc/passwd",
    "file:///etc/passwd",
    "ftp://good.test/a.png",
    "http://good.test/a.png",
    "//good.test/a.png",
    "https:good.test/a.png",
    "https:///a.png",
    "https://",
    "https://user@good.test/a.png",
    "https://user:secret@good.test/a.png",
    "https://good.test@127.0.0.1/a.png",
    "https://good.test:443@127.0.0.1/a.png",
    "https://127.0.0.1#@good.test/a.png",
    "https://127.0.0.1?@good.test/a.png",
    "https://127.0.0.1\\@good.test/a.png",
    "https:\\\\good.test\\a.png",
    "https://good.test\\.evil.test/a.png",
    "https://good.test\t/a.png",
    "https://good\n.test/a.png",
    " https://good.test/a.png",
    "https://good.test/a b.png",
    "https://good.test/a\\..\\b.png",
    "https://good.test/\u2028a.png",
    "https://good.test./a.png",
    "https://good.test.evil.test/a.png",
    "https://evilgood.test/a.png",
    "https://a.good.test/a.png",
    "https://cdn.test/a.png",
    "https://%67ood.test/a.png",
    "https://good.test%00.evil.test/a.png",
    "https://good\u3002test@evil.test/a.png",
    "https://good.test:80/a.png",
    "https://good.test:8444/a.png",
    "https://good.test:0/a.png",
    "https://good.test:-1/a.png",
    "https://good.test:99999/a.png",
    "https://good.test:x/a.png",
    "https://good.test:443:8443/a.png",
    "https://[good.test]/a.png",
    "https://[::1/a.png",
    "https://\ud800/a.png",
    "https://xn--/a.png",
    "https://localhost./a.png",
    "https://0177.0.0.1/a.png",
    "https://127.0.0.256/a.png",
    "https://\uff11\uff12\uff17.0.0.1/a.png",
    "data:image/png;base64,iVBORw0KGgo=",
    "DATA:,x",
    "https://good.test/" + "a" * 5000,
]
# Each leads to this machine or its network; the operator is taken to have listed the very host.
PRIVATE_HOSTS = [
    "127.0.0.1",
    "127.1",
    "127.0.1",
    "2130706433",
    "0x7f.1",
    "0x7f000001",
    "0",
    "0.0.0.0",
    "localhost",
    "LOCALHOST",
    "10.0.0.1",
    "192.168.0.1",
    "169.254.169.254",
    "100.100.100.200",
    "[::1]",
    "[::]",
    "[::ffff:127.0.0.1]",
    "[::ffff:7f00:1]",
    "[::127.0.0.1]",
    "[64:ff9b::127.0.0.1]",
    "[2002:7f00:1::]",
    "[fd00:ec2::254]",
    "[fe80::1]",
    "[fec0::1]",
    "127\u30020\u30020\u30021",
]


def picture(colour: str = "red") -> bytes:
    file = io.BytesIO()
    Image.new("RGB", (8, 8), colour).save(file, "PNG")
    return file.getvalue()


class FakeClient(PinnedClient):
    """Answers every URL with one body, or raises."""

    def __init__(self, answer: bytes | Exception) -> None:
        self.answer = answer
        self.urls: list[str] = []

    async def get(self, url: httpx.URL, *, bytes_max: int, seconds_max: float) -> bytes:
        self.urls.append(str(url))
        assert (bytes_max, seconds_max) == (20 * 1024 * 1024, 10.0)
        if isinstance(self.answer, Exception):
            raise self.answer
        return self.answer


class RecordingStore(FolderStore):
    """Remembers what was asked for."""

    def __init__(self, root: Path) -> None:
        super().__init__(root)
        self.asked: list[str] = []

    async def get(self, bucket: str, key: str, path: Path, bytes_max: int) -> None:
        self.asked.append(f"{bucket}/{key}")
        await super().get(bucket, key, path, bytes_max)


class FailingStore(FolderStore):
    def __init__(self, error: Exception) -> None:
        self.error = error

    async def get(self, bucket: str, key: str, path: Path, bytes_max: int) -> None:
        raise self.error


def references(
    tmp_path: Path, client: PinnedClient | None = None, **config: object
) -> GuardedReferences:
    return GuardedReferences(
        FolderStore(tmp_path / "store"), settings.References(**config), client or STRICT
    )


async def failure(fetcher: GuardedReferences, location: str, tmp_path: Path) -> JobError:
    """The error of a fetch that must fail and leave nothing behind."""
    spool = tmp_path / "spool"
    spool.mkdir(exist_ok=True)
    with pytest.raises(ReferenceFailed) as caught:
        await fetcher.fetch(Reference("start", location), spool / "reference")
    error = caught.value.error
    assert error.code is ErrorCode.REFERENCE_FRAME
    assert error.field == "first_frame"
    assert error.message.startswith("first_frame: ")
    assert error.message.isprintable()
    assert len(error.message) < 500
    assert list(spool.iterdir()) == []
    return error


async def stored(tmp_path: Path, key: str, content: bytes) -> None:
    source = tmp_path / "source"
    source.write_bytes(content)
    bucket, _, rest = key.partition("/")
    await FolderStore(tmp_path / "store").put(bucket, rest, source, "image/png")


@pytest.mark.parametrize("bucket", ["workspace-temp", "user-library"])
async def test_a_storage_key_is_read_from_the_store(tmp_path: Path, bucket: str) -> None:
    await stored(tmp_path, f"{bucket}/u/j/0.png", picture())
    client = FakeClient(AssertionError())
    fetcher = references(tmp_path, client)
    await fetcher.fetch(Reference("image", f"{bucket}/u/j/0.png"), tmp_path / "out")
    assert (tmp_path / "out").read_bytes() == picture()
    assert client.urls == []


@pytest.mark.parametrize("location", NO_KEYS, ids=ascii)
async def test_bad_keys_reach_neither_store_nor_network(tmp_path: Path, location: str) -> None:
    client, store = FakeClient(picture()), RecordingStore(tmp_path)
    fetcher = GuardedReferences(store, settings.References(hosts=HOSTS), client)
    error = await failure(fetcher, location, tmp_path)
    assert not error.retryable
    assert (store.asked, client.urls) == ([], [])


async def test_an_absent_key_is_not_looked_for_elsewhere(tmp_path: Path) -> None:
    client, store = FakeClient(picture()), RecordingStore(tmp_path)
    fetcher = GuardedReferences(store, settings.References(hosts=HOSTS), client)
    error = await failure(fetcher, "user-library/absent.png", tmp_path)
    assert "no such file" in error.message
    assert not error.retryable
    assert (store.asked, client.urls) == (["user-library/absent.png"], [])


async def test_a_stored_file_over_the_limit_is_refused(tmp_path: Path) -> None:
    await stored(tmp_path, "workspace-temp/a.png", picture())
    fetcher = references(tmp_path, bytes_max=10)
    error = await failure(fetcher, "workspace-temp/a.png", tmp_path)
    assert "more than 10 bytes" in error.message


@pytest.mark.parametrize(
    ("raised", "retryable"),
    [(StoreUnavailable("busy"), True), (StoreRejected("no"), False), (KeyError("k"), False)],
)
async def test_the_stores_errors(tmp_path: Path, raised: Exception, *, retryable: bool) -> None:
    fetcher = GuardedReferences(FailingStore(raised), settings.References(), STRICT)
    error = await failure(fetcher, "workspace-temp/a.png", tmp_path)
    assert error.retryable is retryable


async def test_a_store_that_hangs_ends_at_the_deadline(tmp_path: Path) -> None:
    class Hanging(FolderStore):
        async def get(self, bucket: str, key: str, path: Path, bytes_max: int) -> None:
            await anyio.Path(path).write_bytes(b"half")
            await asyncio.Event().wait()

    fetcher = GuardedReferences(Hanging(tmp_path), settings.References(seconds_max=0.05))
    error = await failure(fetcher, "workspace-temp/a.png", tmp_path)
    assert error.retryable
    assert "in time" in error.message


@pytest.mark.parametrize(
    ("location", "sent"),
    [
        ("https://good.test/a.png", "https://good.test/a.png"),
        ("https://good.test/a.png?token=x", "https://good.test/a.png?token=x"),
        ("HTTPS://GOOD.test/a.png", "https://good.test/a.png"),
        ("https://good.test:443/a.png", "https://good.test/a.png"),
        ("https://good.test:8443/a.png", "https://good.test:8443/a.png"),
        ("https://img.cdn.test/a.png", "https://img.cdn.test/a.png"),
        ("https://good.test/../a.png", "https://good.test/a.png"),
        ("https://good.test/%2e%2e/a.png", "https://good.test/%2e%2e/a.png"),
        ("https://good.test/workspace-temp/a.png", "https://good.test/workspace-temp/a.png"),
        ("https://good.test/\u00e9.png", "https://good.test/%C3%A9.png"),
        ("https://good.test/a.png#@127.0.0.1", "https://good.test/a.png#@127.0.0.1"),
        ("https://good.test/@127.0.0.1/", "https://good.test/@127.0.0.1/"),
        ("https://good.test?u=https://127.0.0.1", "https://good.test?u=https://127.0.0.1"),
    ],
)
async def test_urls_of_listed_hosts_are_fetched(tmp_path: Path, location: str, sent: str) -> None:
    client = FakeClient(picture())
    fetcher = references(tmp_path, client, hosts=HOSTS)
    await fetcher.fetch(Reference("end", location), tmp_path / "out")
    assert client.urls == [sent]
    assert (tmp_path / "out").read_bytes() == picture()


@pytest.mark.parametrize("location", NO_URLS, ids=lambda u: ascii(u[:60]))
async def test_other_spellings_are_refused_unfetched(tmp_path: Path, location: str) -> None:
    client = FakeClient(picture())
    error = await failure(references(tmp_path, client, hosts=HOSTS), location, tmp_path)
    assert not error.retryable
    assert client.urls == []


@pytest.mark.parametrize("host", PRIVATE_HOSTS, ids=ascii)
async def test_private_addresses_in_any_spelling(
    tmp_path: Path, host: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """With the production client and the system's resolver; nothing may be connected to."""

    async def connect(*_args: object, **_kwargs: object) -> httpx.Response:
        pytest.fail("a connection was made")

    monkeypatch.setattr(httpx.AsyncHTTPTransport, "handle_async_request", connect)
    location = f"https://{host}/a.png"
    unlisted = await failure(references(tmp_path), location, tmp_path)
    assert "references.hosts" in unlisted.message
    listed = references(tmp_path, hosts=(host if host.isascii() else "127.0.0.1",))
    error = await failure(listed, location, tmp_path)
    assert not error.retryable
    assert "public addresses" in error.message


async def test_no_remote_host_is_allowed_by_default(tmp_path: Path) -> None:
    client = FakeClient(picture())
    error = await failure(references(tmp_path, client), "https://good.test/a.png", tmp_path)
    assert "references.hosts" in error.message
    assert client.urls == []


def test_a_wrong_host_in_the_configuration_is_told_at_once(tmp_path: Path) -> None:
    unchecked = settings.References.model_construct(hosts=("*",))
    with pytest.raises(ValueError, match=r"references\.hosts: '\*'"):
        GuardedReferences(FolderStore(tmp_path / "store"), unchecked, STRICT)


@pytest.mark.parametrize(
    ("raised", "retryable"), [(FetchUnavailable("busy"), True), (FetchRefused("no"), False)]
)
async def test_the_fetchs_errors(tmp_path: Path, raised: Exception, *, retryable: bool) -> None:
    fetcher = references(tmp_path, FakeClient(raised), hosts=HOSTS)
    error = await failure(fetcher, "https://good.test/a.png", tmp_path)
    assert error.retryable is retryable
    assert str(raised) in error.message


@pytest.mark.parametrize("content", [b"", b"<html>sign in</html>", picture()[:40]])
async def test_what_is_no_image_is_refused(tmp_path: Path, content: bytes) -> None:
    fetcher = references(tmp_path, FakeClient(content), hosts=HOSTS)
    assert not (await failure(fetcher, "https://good.test/a.png", tmp_path)).retryable


async def test_too_many_pixels_are_refused(tmp_path: Path) -> None:
    fetcher = references(tmp_path, FakeClient(picture()), hosts=HOSTS, pixels_max=63)
    error = await failure(fetcher, "https://good.test/a.png", tmp_path)
    assert "8x8 pixels; at most 63" in error.message


def breaking_disk(patch: pytest.MonkeyPatch, code: int) -> None:
    def broken(_content: bytes, path: Path, _pixels_max: int) -> None:
        raise OSError(code, os.strerror(code), str(path))

    patch.setattr("ourvidz.adapters.references.write_checked_image", broken)


async def test_a_full_spool_is_not_the_references_fault(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    breaking_disk(monkeypatch, errno.ENOSPC)
    fetcher = references(tmp_path, FakeClient(picture()), hosts=HOSTS)
    with pytest.raises(DiskRefused, match=r"^spool: ENOSPC$"):
        await fetcher.fetch(Reference("image", "https://good.test/a.png"), tmp_path / "r")


async def test_a_spool_that_breaks_is_named_without_its_path(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    breaking_disk(monkeypatch, errno.EIO)
    fetcher = references(tmp_path, FakeClient(picture()), hosts=HOSTS)
    with pytest.raises(DiskRefused, match=r"^spool: EIO$"):
        await fetcher.fetch(Reference("image", "https://good.test/a.png"), tmp_path / "r")


async def test_at_most_so_many_at_once(tmp_path: Path) -> None:
    full, gate, running, peak = asyncio.Event(), asyncio.Event(), 0, 0

    class Gated(FakeClient):
        async def get(self, url: httpx.URL, *, bytes_max: int, seconds_max: float) -> bytes:
            nonlocal running, peak
            running += 1
            peak = max(peak, running)
            if running == 2:
                full.set()
            await gate.wait()
            running -= 1
            return picture()

    fetcher = references(tmp_path, Gated(b""), hosts=HOSTS, concurrent_max=2)
    async with asyncio.TaskGroup() as tasks:
        for index in range(5):
            reference = Reference("image", f"https://good.test/{index}")
            tasks.create_task(fetcher.fetch(reference, tmp_path / f"out{index}"))
        await full.wait()
        gate.set()
    assert peak == 2
    assert [(tmp_path / f"out{index}").exists() for index in range(5)] == [True] * 5


async def test_the_real_client_is_asked_for_the_checked_name(tmp_path: Path) -> None:
    """The name that the list allows is the name that is resolved, in one form."""
    asked: list[tuple[str, int]] = []

    async def resolve(host: str, port: int) -> Sequence[str]:
        asked.append((host, port))
        return ["10.0.0.1"]

    fetcher = references(tmp_path, PinnedClient(resolve=resolve), hosts=("XN--BCHER-kva.test",))
    await failure(fetcher, "https://B\u00dcCHER.test:443/a.png", tmp_path)
    assert asked == [("xn--bcher-kva.test", 443)]
