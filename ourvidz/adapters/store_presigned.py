"""An asset store for a machine that holds no key of the storage: each URL is signed elsewhere.

Whoever signs is asked by ``POST`` with a JSON body, signed like a callback (``signatures.py``)::

    {"method": "PUT", "bucket": ..., "key": ..., "content_type": ..., "size": bytes}
    {"method": "GET", "bucket": ..., "key": ...}

and answers 200 with ``{"url": ..., "headers": {...}}``: where the file is to be put or to be had,
and what must be sent beside it, which may be left out. A file that is there is to be replaced.
"""

from __future__ import annotations

import contextlib
import secrets
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import anyio
import anyio.to_thread
import httpx
import orjson
import structlog

from ourvidz import __version__
from ourvidz.adapters.http_answers import auth_headers, retry_after
from ourvidz.adapters.signatures import CallbackSigner
from ourvidz.adapters.signing_clock import REFUSALS, SigningClock
from ourvidz.adapters.store_files import (
    CHUNK_BYTES,
    Piece,
    bare_etag,
    check_name,
    contradicts,
    etag,
    not_compared,
    open_piece,
    pieces,
    same_bytes,
    save,
    status_error,
)
from ourvidz.config import settings
from ourvidz.ports import Clock, StoreRejected, StoreUnavailable

log = structlog.get_logger()

_ANSWER_BYTES_MAX = 64 * 1024
_WHOLE = 1 << 62  # a URL is signed for one request: the file goes in one piece
# What Supabase and S3 answer to a URL that has expired; they answer so to other faults, too.
_EXPIRED = frozenset({400, 403})


@dataclass(frozen=True, slots=True)
class _Answer:
    status: int
    etag: str
    said: str
    retry_after_seconds: float | None
    date: str | None

    @property
    def good(self) -> bool:
        return 200 <= self.status < 300


@dataclass(frozen=True, slots=True)
class _Signed:
    url: httpx.URL
    headers: Mapping[str, str]


class PresignedStore:
    """``ports.AssetStore``. The caller closes ``client``, which must follow no redirects."""

    def __init__(
        self,
        config: settings.Store,
        secret: str,
        anon_key: str | None,
        client: httpx.AsyncClient,
        clock: Clock,
    ) -> None:
        self._config = config
        self._signer = CallbackSigner(secret)
        self._auth = auth_headers(anon_key)
        self._client = client
        self._clock = clock
        self._signing = SigningClock(clock.wall)
        self._slots = anyio.CapacityLimiter(config.concurrent_max)

    async def put(self, bucket: str, key: str, path: Path, mime: str) -> None:
        check_name(bucket, key)
        (piece,) = await pieces(path, _WHOLE, _WHOLE)
        question = {
            "method": "PUT",
            "bucket": bucket,
            "key": key,
            "content_type": mime,
            "size": piece.size,
        }

        async def send(signed: _Signed) -> _Answer:
            return await self._send(piece, mime, signed)

        async with self._slots:
            answer = await self._signed(question, send)
            if not answer.good:
                raise _error(answer, "the store")
            if contradicts(answer.etag, etag([piece])):
                await self._read_back(bucket, key, piece)

    async def get(self, bucket: str, key: str, path: Path, bytes_max: int) -> None:
        check_name(bucket, key)

        async def fetch(signed: _Signed) -> _Answer:
            request = self._request("GET", signed.url, signed.headers)
            async with self._answer(request, self._config.timeout_seconds) as response:
                if response.is_success:
                    await save(_bounded(response, bytes_max), path, bytes_max)
                return await self._read(response)

        answer = await self._signed({"method": "GET", "bucket": bucket, "key": key}, fetch)
        if answer.status == 404:
            raise KeyError(f"{bucket}/{key}")
        if not answer.good:
            raise _error(answer, "the store")

    async def _read_back(self, bucket: str, key: str, piece: Piece) -> None:
        """Raises ``StoreUnavailable`` unless the store gives back what was sent."""
        same = False

        async def compare(signed: _Signed) -> _Answer:
            nonlocal same
            request = self._request("GET", signed.url, signed.headers)
            async with self._answer(request, self._seconds(piece)) as response:
                if response.is_success:
                    same = await same_bytes(response.aiter_raw(CHUNK_BYTES), [piece])
                return await self._read(response)

        try:
            answer = await self._signed({"method": "GET", "bucket": bucket, "key": key}, compare)
            if not answer.good:
                raise _error(answer, "the store")
        except (StoreRejected, StoreUnavailable) as error:
            raise not_compared(error) from error
        if not same:
            raise StoreUnavailable("the store holds other bytes than were sent")
        log.info("upload_read_back", key=key, reason="the store's ETag is not its MD5")

    async def _signed(
        self, question: Mapping[str, Any], use: Callable[[_Signed], Awaitable[_Answer]]
    ) -> _Answer:
        """Use a URL; one that may have expired is asked for anew, once."""
        answer = await use(await self._ask(question))
        if answer.status in _EXPIRED:
            answer = await use(await self._ask(question))
        return answer

    async def _ask(self, question: Mapping[str, Any]) -> _Signed:
        body = orjson.dumps(question)
        answer = await self._ask_once(body)
        if answer.status in REFUSALS and self._signing.refused(answer.date):
            answer = await self._ask_once(body)
        if not answer.good:
            raise _error(answer, "store.presign_url")
        signed = _parse(answer.said)
        if signed is None:
            raise StoreUnavailable("store.presign_url answered without a usable URL")
        return signed

    async def _ask_once(self, body: bytes) -> _Answer:
        signature = self._signer.headers(secrets.token_hex(16), body, self._signing.now())
        headers = {**self._auth, **signature, "Content-Type": "application/json"}
        url = httpx.URL(self._config.presign_url)
        request = self._request("POST", url, headers, body)
        async with self._answer(request, self._config.timeout_seconds) as response:
            return await self._read(response)

    async def _send(self, piece: Piece, mime: str, signed: _Signed) -> _Answer:
        headers = {
            "Content-Type": mime,
            "Cache-Control": self._config.cache_control,
            **signed.headers,
            "Content-Length": str(piece.size),
        }
        request = self._request("PUT", signed.url, headers, _chunks(piece))
        async with self._answer(request, self._seconds(piece)) as response:
            return await self._read(response)

    def _seconds(self, piece: Piece) -> float:
        """One request carries the whole file, which gets the time of as many smaller ones."""
        shares = max(1, -(-piece.size // self._config.multipart_bytes))
        return self._config.timeout_seconds * shares

    def _request(
        self,
        method: str,
        url: httpx.URL,
        headers: Mapping[str, str],
        content: bytes | AsyncIterator[bytes] | None = None,
    ) -> httpx.Request:
        own = {"User-Agent": f"ourvidz/{__version__}", "Accept-Encoding": "identity"}
        return self._client.build_request(
            method,
            url,
            content=content,
            headers={**own, **headers},
            timeout=self._config.timeout_seconds,
        )

    @contextlib.asynccontextmanager
    async def _answer(
        self, request: httpx.Request, seconds: float
    ) -> AsyncIterator[httpx.Response]:
        """Raises ``StoreUnavailable``, also for what happens to the answer inside the block. No
        message names the URL: it is as good as a key."""
        try:
            with anyio.fail_after(seconds):
                response = await self._client.send(request, stream=True)
                try:
                    yield response
                finally:
                    await response.aclose()
        except TimeoutError as error:
            raise StoreUnavailable(f"no answer within {seconds:g} s") from error
        except httpx.RequestError as error:
            raise StoreUnavailable(f"no answer: {type(error).__name__}") from error

    async def _read(self, response: httpx.Response) -> _Answer:
        said = bytearray()
        if not response.is_stream_consumed:
            async for chunk in response.aiter_raw():
                said += chunk
                if len(said) >= _ANSWER_BYTES_MAX:
                    break
        return _Answer(
            response.status_code,
            bare_etag(response.headers.get("ETag")),
            said[:_ANSWER_BYTES_MAX].decode("utf-8", "replace"),
            retry_after(response.headers.get("Retry-After"), self._clock.wall()),
            response.headers.get("Date"),
        )


def _error(answer: _Answer, who: str) -> Exception:
    return status_error(answer.status, who, answer.said, answer.retry_after_seconds)


def _parse(text: str) -> _Signed | None:
    """The URL and headers of an answer, if they are such."""
    try:
        answer = orjson.loads(text)
        url = httpx.URL(answer["url"])
        headers = dict(answer.get("headers") or {})
        httpx.Headers(headers)
    except (ValueError, TypeError, KeyError, AttributeError, httpx.InvalidURL):
        return None
    lines = [text for item in headers.items() for text in item]
    printable = all(isinstance(t, str) and t.isascii() and t.isprintable() for t in lines)
    usable = url.scheme in {"http", "https"} and bool(url.host) and printable
    return _Signed(url, headers) if usable else None


async def _chunks(piece: Piece) -> AsyncIterator[bytes]:
    with open_piece(piece) as file:
        while chunk := await anyio.to_thread.run_sync(file.read, CHUNK_BYTES):
            yield chunk


async def _bounded(response: httpx.Response, bytes_max: int) -> AsyncIterator[bytes]:
    length = response.headers.get("Content-Length", "")
    if length.isdecimal() and int(length) > bytes_max:
        raise StoreRejected(f"more than {bytes_max} bytes")
    async for chunk in response.aiter_raw(CHUNK_BYTES):
        yield chunk
