"""The receiver of the demo and of tests: it verifies, answers as told and keeps what came."""

from collections.abc import AsyncIterator

import httpx
import orjson
import pytest

from ourvidz.adapters.http_answers import plain_client
from ourvidz.adapters.notify_http import HttpNotifier
from ourvidz.adapters.receiver import Answer, Receiver
from ourvidz.ports import NotifyRejected, NotifyUnavailable

pytestmark = pytest.mark.anyio

SECRET = "a secret"
EVENT = "0d4a9f9e-0d5c-4b0e-8f60-ff7f5b1f0f7d.completed"
BODY = orjson.dumps({"job_id": "0d4a9f9e", "status": "completed"})


@pytest.fixture
async def client() -> AsyncIterator[httpx.AsyncClient]:
    async with plain_client() as client:
        yield client


def notifier(client: httpx.AsyncClient, url: str) -> HttpNotifier:
    return HttpNotifier(url, SECRET, None, 10.0, client)


async def test_the_receivers_programme(client: httpx.AsyncClient) -> None:
    answers = [
        Answer(status=503),
        Answer(skipped=True),
        Answer(status=429, headers={"Retry-After": "9"}),
        Answer(status=400, body=b"bad"),
        Answer(body=b"not json", delay_seconds=0.001),
    ]
    async with Receiver(SECRET, answers) as receiver:
        sender = notifier(client, receiver.url)
        with pytest.raises(NotifyUnavailable, match="503"):
            await sender.notify(EVENT, BODY)
        assert (await sender.notify(EVENT, BODY)).skipped
        with pytest.raises(NotifyUnavailable) as caught:
            await sender.notify(EVENT, BODY)
        assert caught.value.retry_after_seconds == 9
        with pytest.raises(NotifyRejected, match="400: 'bad'"):
            await sender.notify(EVENT, BODY)
        assert not (await sender.notify(EVENT, BODY)).skipped
        assert not (await sender.notify(EVENT, BODY)).skipped
        await receiver.until(lambda callbacks: len(callbacks) == 6)
    assert [c.answered for c in receiver.callbacks] == [503, 200, 429, 400, 200, 200]
    assert all(c.signature_valid for c in receiver.callbacks)


SPOILED: list[dict[str, str | None]] = [
    {"x-callback-signature": None},
    {"x-callback-signature": "sha256=" + "0" * 64},
    {"x-callback-signature": "\u00e9"},
    {"webhook-signature": None},
    {"webhook-signature": "v1,AAAA"},
    {"webhook-signature": "nonsense"},
    {"webhook-id": "other"},
    {"webhook-timestamp": "1000000000"},
    {"webhook-timestamp": "x"},
]


async def test_the_receiver_refuses_a_wrong_signature(client: httpx.AsyncClient) -> None:
    async with Receiver(SECRET) as receiver:
        await notifier(client, receiver.url).notify(EVENT, BODY)
        names = ("x-callback-signature", "webhook-id", "webhook-timestamp", "webhook-signature")
        good = {name: receiver.callbacks[0].headers[name] for name in names}
        answers = []
        for change in ({}, *SPOILED):
            changed = {**good, **change}
            headers = {n: v.encode("latin-1") for n, v in changed.items() if v is not None}
            response = await client.post(receiver.url, content=BODY, headers=headers)
            answers.append(response.status_code)
    assert answers == [200, *[401] * len(SPOILED)]
    assert [c.signature_valid for c in receiver.callbacks[1:]] == [True] + [False] * len(SPOILED)


async def test_the_receiver_survives_odd_requests(client: httpx.AsyncClient) -> None:
    async with Receiver(SECRET) as receiver:
        base = receiver.url.removesuffix("/functions/v1/job-callback")
        assert (await client.get(receiver.url)).status_code == 404
        assert (await client.post(f"{base}/other")).status_code == 404
        assert (await client.post(receiver.url, content=b"\xff")).status_code == 401
        assert (await client.post(receiver.url, content=b"[]")).status_code == 401
        large = b"x" * (16 * 1024 * 1024 + 1)
        assert (await client.post(receiver.url, content=large)).status_code == 413
    assert [c.body for c in receiver.callbacks] == [None, []]
