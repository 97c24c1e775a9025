"""Callbacks: what is sent, how an answer is taken, and what is tried again."""

import asyncio
import base64
import hashlib
import hmac
import time
from collections.abc import AsyncIterator, Callable
from email.utils import formatdate

import httpx
import orjson
import pytest
from standardwebhooks import Webhook

from ourvidz import __version__
from ourvidz.adapters.http_answers import plain_client
from ourvidz.adapters.notify_http import (
    ANSWER_BYTES_MAX,
    HttpNotifier,
)
from ourvidz.adapters.receiver import Receiver
from ourvidz.adapters.signatures import CallbackSigner
from ourvidz.ports import Delivered, NotifyRejected, NotifyUnavailable

pytestmark = pytest.mark.anyio

SECRET = "not base64: \u00fcber-secret!"
EVENT = "0d4a9f9e-0d5c-4b0e-8f60-ff7f5b1f0f7d.completed"
BODY = orjson.dumps({"job_id": "0d4a9f9e", "status": "completed", "text": "\u732b"})
NOW = 1_790_000_000.7
Handler = Callable[[httpx.Request], httpx.Response]


@pytest.fixture
async def client() -> AsyncIterator[httpx.AsyncClient]:
    async with plain_client() as client:
        yield client


class Body(httpx.AsyncByteStream):
    """A body as the network brings it: read once, in pieces."""

    def __init__(self, content: bytes) -> None:
        self.content = content
        self.given = 0

    async def __aiter__(self) -> AsyncIterator[bytes]:
        for at in range(0, len(self.content), 1000):
            self.given += 1
            yield self.content[at : at + 1000]


def respond(
    status: int, content: bytes = b"", headers: dict[str, str] | None = None
) -> httpx.Response:
    return httpx.Response(status, headers=headers, stream=Body(content))


def notifier(client: httpx.AsyncClient, url: str, **options: object) -> HttpNotifier:
    options = {"timeout_seconds": 10.0, "service_key": None, **options}
    return HttpNotifier(url, SECRET, client=client, **options)


async def against(handler: Handler, **options: object) -> Delivered:
    """One notify against a handler in place of the network."""
    async with httpx.AsyncClient(transport=httpx.MockTransport(handler)) as client:
        options = {"wall": lambda: NOW, **options}
        return await notifier(client, "http://127.0.0.1/cb", **options).notify(EVENT, BODY)


def answering(*answers: httpx.Response | Exception) -> tuple[Handler, list[httpx.Request]]:
    """A handler that gives the answers in order, and the requests it got."""
    waiting, requests = list(answers), []

    def handler(request: httpx.Request) -> httpx.Response:
        requests.append(request)
        answer = waiting.pop(0)
        if isinstance(answer, Exception):
            raise answer
        return answer

    return handler, requests


async def test_the_receiver_takes_what_the_notifier_signs(client: httpx.AsyncClient) -> None:
    async with Receiver(SECRET) as receiver:
        delivered = await notifier(client, receiver.url).notify(EVENT, BODY)
    assert delivered == Delivered(skipped=False)
    (callback,) = receiver.callbacks
    assert callback.signature_valid
    assert (callback.status, callback.answered) == ("completed", 200)
    assert callback.raw == BODY
    assert callback.body == orjson.loads(BODY)


async def test_headers_and_signatures_by_hand() -> None:
    handler, requests = answering(respond(200))
    await against(handler, service_key="eyJhbGci.payload.sig")
    (request,) = requests
    assert (request.method, str(request.url)) == ("POST", "http://127.0.0.1/cb")
    assert request.content == BODY
    key = SECRET.encode()
    digest = hmac.new(key, BODY, hashlib.sha256).hexdigest()
    signed = f"{EVENT}.1790000000.".encode() + BODY
    webhook = base64.b64encode(hmac.new(key, signed, hashlib.sha256).digest()).decode()
    expected = {
        "X-Callback-Signature": f"sha256={digest}",
        "webhook-id": EVENT,
        "webhook-timestamp": "1790000000",
        "webhook-signature": f"v1,{webhook}",
        "apikey": "eyJhbGci.payload.sig",
        "Authorization": "Bearer eyJhbGci.payload.sig",
        "Content-Type": "application/json",
        "User-Agent": f"ourvidz/{__version__}",
        "Content-Length": str(len(BODY)),
    }
    assert {name: request.headers.get(name) for name in expected} == expected


def test_a_whsec_secret_is_base64_for_standard_webhooks_only() -> None:
    raw = b"0123456789abcdef01234567"
    secret = f"whsec_{base64.b64encode(raw).decode()}"
    headers = CallbackSigner(secret).headers(EVENT, BODY, 1_790_000_000)
    digest = hmac.new(secret.encode(), BODY, hashlib.sha256).hexdigest()
    assert headers["X-Callback-Signature"] == f"sha256={digest}"
    signed = f"{EVENT}.1790000000.".encode() + BODY
    expected = base64.b64encode(hmac.new(raw, signed, hashlib.sha256).digest()).decode()
    assert headers["webhook-signature"] == f"v1,{expected}"


async def test_a_receiver_that_takes_encoded_keys_only_can_verify(
    client: httpx.AsyncClient,
) -> None:
    async with Receiver(SECRET) as receiver:
        await notifier(client, receiver.url).notify(EVENT, BODY)
    encoded = f"whsec_{base64.b64encode(SECRET.encode()).decode()}"
    (callback,) = receiver.callbacks
    Webhook(encoded).verify(callback.raw, dict(callback.headers))


@pytest.mark.parametrize("secret", ["", "  ", "whsec_", "whsec_a", "whsec_\u00e9"])
def test_unusable_secrets_are_refused(secret: str) -> None:
    with pytest.raises(ValueError, match="callback secret"):
        CallbackSigner(secret)


@pytest.mark.parametrize("url", ["", "functions/v1/job-callback", "ftp://x/", "http://", "http:"])
def test_unusable_urls_are_refused(url: str) -> None:
    with pytest.raises(ValueError, match=r"callback\.url"):
        notifier(httpx.AsyncClient(), url)


@pytest.mark.parametrize(
    ("body", "skipped"),
    [
        (b'{"success":true,"skipped":true}', True),
        (b'{"skipped":false}', False),
        (b'{"skipped":"true"}', False),
        (b'{"skipped":1}', False),
        (b'{"other":{"skipped":true}}', False),
        (b'[{"skipped":true}]', False),
        (b"true", False),
        (b"", False),
        (b"OK", False),
        (b"\xff\xfe", False),
        (b"[" * 50_000, False),
        (b'{"skipped":true}' + b" " * ANSWER_BYTES_MAX, True),
        (b'{"pad":"' + b"x" * ANSWER_BYTES_MAX + b'","skipped":true}', False),
    ],
    ids=lambda value: str(value)[:30],
)
@pytest.mark.parametrize("status", [200, 201, 202])
async def test_a_2xx_is_delivered(status: int, body: bytes, *, skipped: bool) -> None:
    handler, requests = answering(respond(status, body))
    assert await against(handler) == Delivered(skipped=skipped)
    assert len(requests) == 1


async def test_a_long_answer_is_not_read_to_its_end() -> None:
    body = Body(b" " * 10_000_000)
    handler, _ = answering(httpx.Response(200, stream=body))
    assert await against(handler) == Delivered(skipped=False)
    assert body.given == -(-ANSWER_BYTES_MAX // 1000)


async def test_204_is_delivered() -> None:
    handler, _ = answering(respond(204))
    assert await against(handler) == Delivered(skipped=False)


@pytest.mark.parametrize(
    "status", [300, 301, 302, 303, 304, 307, 308, 400, 401, 403, 404, 409, 410, 413, 415, 422, 451]
)
async def test_other_answers_are_final(status: int) -> None:
    handler, requests = answering(
        respond(status, b"no such job", {"Location": "/x", "Retry-After": "1"})
    )
    with pytest.raises(NotifyRejected, match=f"answered {status}: 'no such job'"):
        await against(handler)
    assert len(requests) == 1


@pytest.mark.parametrize("status", [408, 425, 429])
async def test_a_receiver_that_asks_for_patience_gets_it(status: int) -> None:
    handler, requests = answering(respond(status))
    with pytest.raises(NotifyUnavailable, match=str(status)) as caught:
        await against(handler)
    assert caught.value.retry_after_seconds is None
    assert len(requests) == 1


@pytest.mark.parametrize("status", [408, 425, 429, 500, 503, 504])
async def test_retry_after_is_handed_on_and_not_pre_empted(status: int) -> None:
    handler, requests = answering(respond(status, headers={"Retry-After": "17"}))
    with pytest.raises(NotifyUnavailable) as caught:
        await against(handler)
    assert caught.value.retry_after_seconds == 17
    assert len(requests) == 1


@pytest.mark.parametrize("status", [500, 502, 503, 504, 520, 546, 599])
async def test_a_server_error_is_left_to_the_caller(status: int) -> None:
    handler, requests = answering(respond(status, b"oops"))
    with pytest.raises(NotifyUnavailable, match=f"{status}: 'oops'") as caught:
        await against(handler)
    assert caught.value.retry_after_seconds is None
    assert [request.headers["webhook-id"] for request in requests] == [EVENT]


@pytest.mark.parametrize(
    "error",
    [
        httpx.ConnectError("refused"),
        httpx.ConnectTimeout("slow"),
        httpx.ReadTimeout("slow"),
        httpx.ReadError("reset"),
        httpx.RemoteProtocolError("nonsense"),
    ],
    ids=lambda error: type(error).__name__,
)
async def test_a_network_error_is_left_to_the_caller(error: Exception) -> None:
    handler, requests = answering(error)
    with pytest.raises(NotifyUnavailable, match=type(error).__name__):
        await against(handler)
    assert len(requests) == 1


async def test_a_retry_is_signed_anew_under_the_same_id() -> None:
    handler, requests = answering(respond(200), respond(200))
    for wall in (1000.0, 2000.0):
        await against(handler, wall=lambda wall=wall: wall)
    first, second = (request.headers for request in requests)
    assert first["webhook-id"] == second["webhook-id"] == EVENT
    assert first["webhook-timestamp"] < second["webhook-timestamp"]
    assert first["webhook-signature"] != second["webhook-signature"]


async def test_odd_ids_are_delivered_and_verified(client: httpx.AsyncClient) -> None:
    odd = ["a\r\nX-Evil: y.failed", "\u732b", "\ud800", "x" * 100_000]
    async with Receiver(SECRET) as receiver:
        for event_id in odd:
            await notifier(client, receiver.url).notify(event_id, BODY)
    assert [c.signature_valid for c in receiver.callbacks] == [True] * 4
    assert not any("x-evil" in c.headers for c in receiver.callbacks)


async def test_redirects_are_not_followed_even_by_a_client_that_would() -> None:
    handler, requests = answering(respond(307, headers={"Location": "/x"}))
    transport = httpx.MockTransport(handler)
    async with httpx.AsyncClient(transport=transport, follow_redirects=True) as client:
        with pytest.raises(NotifyRejected):
            await notifier(client, "http://127.0.0.1/cb").notify(EVENT, BODY)
    assert len(requests) == 1


async def test_proxies_of_the_environment_are_not_used(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("HTTP_PROXY", "http_proxy", "ALL_PROXY", "all_proxy"):
        monkeypatch.setenv(name, "http://127.0.0.1:9")
    async with plain_client() as client, Receiver(SECRET) as receiver:
        await notifier(client, receiver.url).notify(EVENT, BODY)
    assert len(receiver.callbacks) == 1


async def test_nobody_listening_is_unavailable(client: httpx.AsyncClient) -> None:
    async with Receiver(SECRET) as receiver:
        url = receiver.url
    with pytest.raises(NotifyUnavailable, match="ConnectError"):
        await notifier(client, url).notify(EVENT, BODY)


async def test_a_receiver_that_never_answers_is_unavailable() -> None:
    async def silent(_request: httpx.Request) -> httpx.Response:
        await asyncio.Event().wait()
        raise AssertionError

    async with httpx.AsyncClient(transport=httpx.MockTransport(silent)) as client:
        sender = notifier(client, "http://127.0.0.1/cb", timeout_seconds=0.05)
        with pytest.raises(NotifyUnavailable, match=r"no answer within 0\.05 s"):
            await sender.notify(EVENT, BODY)


@pytest.mark.parametrize(
    "tail", [b"Content-Length: 100\r\n\r\n{", b"Transfer-Encoding: chunked\r\n\r\nnonsense"]
)
async def test_an_answer_that_breaks_off_after_its_status_counts(
    client: httpx.AsyncClient, tail: bytes
) -> None:
    """The receiver has accepted: sending the callback again would announce the job twice."""
    posts = 0

    async def broken(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        nonlocal posts
        posts += 1
        await reader.readuntil(b"\r\n\r\n")
        await reader.readexactly(len(BODY))
        writer.write(b"HTTP/1.1 200 OK\r\n" + tail)
        await writer.drain()
        writer.close()

    server = await asyncio.start_server(broken, "127.0.0.1", 0)
    async with server:
        url = f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}/"
        assert await notifier(client, url).notify(EVENT, BODY) == Delivered(skipped=False)
    assert posts == 1


class Dripping(httpx.AsyncByteStream):
    """An answer's body that begins and never ends."""

    async def __aiter__(self) -> AsyncIterator[bytes]:
        yield b"{"
        await asyncio.Event().wait()


async def test_an_answer_whose_body_outlasts_the_time_counts(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Its head came in time: the callback is accepted, whatever the rest of the answer does."""
    monkeypatch.setattr("ourvidz.adapters.notify_http.ANSWER_SECONDS_MAX", 0.2)
    handler, _ = answering(httpx.Response(200, stream=Dripping()))
    assert await against(handler) == Delivered(skipped=False)


@pytest.mark.parametrize("seconds", [-400, 400, 86_400 * 365])
async def test_a_clock_that_is_wrong_signs_by_the_receivers(
    client: httpx.AsyncClient, seconds: float
) -> None:
    async with Receiver(SECRET) as receiver:
        sender = notifier(client, receiver.url, wall=lambda: time.time() + seconds)
        for _ in range(2):
            assert await sender.notify(EVENT, BODY) == Delivered(skipped=False)
        assert [c.signature_valid for c in receiver.callbacks] == [False, True, True]


@pytest.mark.parametrize("date", [None, "nonsense", formatdate(NOW, usegmt=True)])
async def test_a_refusal_that_the_clock_does_not_explain_is_one(date: str | None) -> None:
    handler, requests = answering(respond(401, headers={} if date is None else {"Date": date}))
    with pytest.raises(NotifyRejected, match="401"):
        await against(handler)
    assert len(requests) == 1


async def test_a_refusal_at_the_receivers_own_time_is_one() -> None:
    early = {"Date": formatdate(NOW + 1000, usegmt=True)}
    handler, requests = answering(respond(401, headers=early), respond(401, headers=early))
    with pytest.raises(NotifyRejected, match="401"):
        await against(handler)
    assert [int(r.headers["webhook-timestamp"]) for r in requests] == [int(NOW), int(NOW + 1000)]
