"""Callbacks by HTTP POST."""

from __future__ import annotations

import contextlib
import hashlib
import time
from collections.abc import Callable
from urllib.parse import quote

import anyio
import httpx
import orjson

from ourvidz import __version__
from ourvidz.adapters.http_answers import auth_headers, may_pass, retry_after
from ourvidz.adapters.signatures import CallbackSigner
from ourvidz.adapters.signing_clock import REFUSALS, SigningClock
from ourvidz.ports import Delivered, NotifyRejected, NotifyUnavailable

ANSWER_BYTES_MAX = 64 * 1024
ANSWER_SECONDS_MAX = 5.0
EVENT_ID_CHARACTERS_MAX = 200
_SHOWN_CHARACTERS = 200
_VISIBLE = "".join(map(chr, range(0x21, 0x7F))).replace("%", "")


class HttpNotifier:
    """Posts signed callbacks to ``url``, each once, within ``timeout_seconds``; once more where
    only the time in its signature was refused.

    Retries belong to the caller, who has a journal. The caller closes ``client``.
    """

    def __init__(
        self,
        url: str,
        secret: str,
        service_key: str | None,
        timeout_seconds: float,
        client: httpx.AsyncClient,
        *,
        wall: Callable[[], float] = time.time,
    ) -> None:
        self._url = httpx.URL(url)
        if self._url.scheme not in {"http", "https"} or not self._url.host:
            raise ValueError(f"callback.url: {url!r} is no http or https URL")
        self._signer = CallbackSigner(secret)
        self._timeout_seconds = timeout_seconds
        self._client = client
        self._wall = wall
        self._signing = SigningClock(wall)
        self._headers = {
            **auth_headers(service_key),
            "Accept-Encoding": "identity",
            "Content-Type": "application/json",
            "User-Agent": f"ourvidz/{__version__}",
        }

    async def notify(self, event_id: str, body: bytes) -> Delivered:
        """Post ``body`` (UTF-8 JSON). A 2xx answer is delivered, with ``skipped`` if it says so."""
        response, answer = await self._exchange(event_id, body)
        if response.status_code in REFUSALS and self._signing.refused(response.headers.get("Date")):
            response, answer = await self._exchange(event_id, body)
        return self._judge(response, answer)

    async def _exchange(self, event_id: str, body: bytes) -> tuple[httpx.Response, bytes]:
        try:
            # The time is the answer's head's: from there on the callback is accepted or is not.
            with anyio.fail_after(self._timeout_seconds):
                response = await self._post(event_id, body)
        except TimeoutError as error:
            raise NotifyUnavailable(f"no answer within {self._timeout_seconds:g} s") from error
        try:
            return response, await _read(response)
        finally:
            await response.aclose()

    async def _post(self, event_id: str, body: bytes) -> httpx.Response:
        headers = self._signer.headers(header_id(event_id), body, self._signing.now())
        request = self._client.build_request(
            "POST",
            self._url,
            content=body,
            headers={**self._headers, **headers},
            timeout=self._timeout_seconds,
        )
        try:
            return await self._client.send(request, stream=True, follow_redirects=False)
        except httpx.RequestError as error:
            message = f"{type(error).__name__}: {error}"
            raise NotifyUnavailable(message[:_SHOWN_CHARACTERS]) from error

    def _judge(self, response: httpx.Response, answer: bytes) -> Delivered:
        status = response.status_code
        if response.is_success:
            return Delivered(skipped=_says_skipped(answer))
        shown = answer[:_SHOWN_CHARACTERS].decode("utf-8", "replace")
        message = f"the receiver answered {status}: {shown!r}"
        if may_pass(status):
            seconds = retry_after(response.headers.get("Retry-After"), self._wall())
            raise NotifyUnavailable(message, seconds)
        raise NotifyRejected(message)


def header_id(event_id: str) -> str:
    """``event_id`` as a header can carry it: others than visible ASCII percent-encoded, and a
    digest in place of what is too long. The ids of valid jobs come out unchanged."""
    encoded = quote(event_id, safe=_VISIBLE, errors="replace")
    if len(encoded) <= EVENT_ID_CHARACTERS_MAX:
        return encoded
    return hashlib.sha256(encoded.encode()).hexdigest()


def _says_skipped(answer: bytes) -> bool:
    try:
        parsed = orjson.loads(answer)
    except orjson.JSONDecodeError:
        return False
    return isinstance(parsed, dict) and parsed.get("skipped") is True


async def _read(response: httpx.Response) -> bytes:
    """What can be had of the answer. Its status has decided already: a body that is long, slow or
    breaks off must not send a callback again that was accepted."""
    answer = bytearray()
    with anyio.move_on_after(ANSWER_SECONDS_MAX), contextlib.suppress(httpx.RequestError):
        async for chunk in response.aiter_raw():
            answer += chunk
            if len(answer) >= ANSWER_BYTES_MAX:
                break
    return bytes(answer[:ANSWER_BYTES_MAX])
