"""A service that speaks the S3 protocol as asset store: path style, Signature Version 4.

Answers are judged by their status alone: the XML of errors differs between services. One attempt
each, the library's own retries are off. A service need not check what it receives, so every upload
is compared with our own MD5s by its ETag, where that says nothing by its length, and where it
contradicts by reading the file back: not every service's ETag is an MD5.
"""

from __future__ import annotations

import base64
import functools
import os
from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import aioboto3
import aiohttp
import anyio
import structlog
from aiobotocore.session import AioSession
from botocore.config import Config
from botocore.exceptions import BotoCoreError, ClientError, ConnectTimeoutError, ReadTimeoutError
from botocore.parsers import ResponseParserError

from ourvidz.adapters.http_answers import retry_after
from ourvidz.adapters.store_files import (
    CHUNK_BYTES,
    Piece,
    StoreError,
    bare_etag,
    check_name,
    clock_skew,
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
from ourvidz.ports import Clock, StoreDenied, StoreRejected, StoreUnavailable

log = structlog.get_logger()

# A file in parts that will not be finished is worth so long; the service drops it some day itself.
_ABORT_SECONDS = 10.0
_TIMEOUTS = (TimeoutError, ConnectTimeoutError, ReadTimeoutError)
_NETWORK = (BotoCoreError, ResponseParserError, aiohttp.ClientError, TimeoutError)
# Nothing of this machine's own set-up for AWS is read: what holds stands in the configuration.
_ALONE = {
    "profile": (None, None, None, None),
    "config_file": (None, None, os.devnull, None),
    "credentials_file": (None, None, os.devnull, None),
}
# Answers to what was sent, each with its pieces; the last one is that to the whole file.
_Replies = list[tuple[Mapping[str, Any], Sequence[Piece]]]


class _Answered(Exception):
    """The service answered with an error."""

    def __init__(self, status: int, error: StoreError) -> None:
        super().__init__(str(error))
        self.status = status
        self.error = error


@asynccontextmanager
async def open_s3_store(
    config: settings.Store, secrets: settings.Secrets, clock: Clock
) -> AsyncIterator[S3Store]:
    """A store with connections of its own. Nothing is sent before the first call."""
    key, secret, token = (
        None if given is None else given.get_secret_value()
        for given in (
            secrets.s3_access_key_id,
            secrets.s3_secret_access_key,
            secrets.s3_session_token,
        )
    )
    session = aioboto3.Session(
        aws_access_key_id=key,
        aws_secret_access_key=secret,
        aws_session_token=token,
        botocore_session=AioSession(session_vars=_ALONE),
    )
    client_config = Config(
        signature_version="s3v4",
        # Content-MD5 vouches for the bytes; their SHA-256 would be taken in the event loop.
        s3={"addressing_style": "path", "payload_signing_enabled": False},
        request_checksum_calculation="when_required",
        response_checksum_validation="when_required",
        retries={"total_max_attempts": 1},
        proxies={},
        connect_timeout=config.timeout_seconds,
        read_timeout=config.timeout_seconds,
        # Uploads, and as many copies of references beside them.
        max_pool_connections=2 * config.concurrent_max,
    )
    async with session.client(
        "s3", endpoint_url=config.endpoint, region_name=config.region, config=client_config
    ) as client:
        client.meta.events.register("before-sign.s3", _expect_nothing)
        yield S3Store(client, config, clock, in_session=bool(token))


class S3Store:
    """``ports.AssetStore``. At most ``concurrent_max`` files or parts are sent at once.
    ``in_session``: the key comes with a token that ends some day."""

    def __init__(
        self, client: Any, config: settings.Store, clock: Clock, *, in_session: bool
    ) -> None:
        self._client = client
        self._config = config
        self._clock = clock
        self._in_session = in_session
        self._slots = anyio.CapacityLimiter(config.concurrent_max)

    async def put(self, bucket: str, key: str, path: Path, mime: str) -> None:
        check_name(bucket, key)
        parts = await pieces(path, self._config.multipart_bytes, self._config.part_bytes)
        place = {"Bucket": bucket, "Key": key}
        kept = {"ContentType": mime, "CacheControl": self._config.cache_control}
        try:
            if len(parts) == 1:
                reply = await self._send("put_object", parts[0], **place, **kept)
                replies: _Replies = [(reply, parts)]
            else:
                replies = await self._put_parts(parts, place, kept)
            await self._verify(replies, place)
        except _Answered as answered:
            raise answered.error from answered

    async def get(self, bucket: str, key: str, path: Path, bytes_max: int) -> None:
        check_name(bucket, key)
        try:
            reply = await self._call("get_object", Bucket=bucket, Key=key)
        except _Answered as answered:
            if answered.status == 404:
                raise KeyError(f"{bucket}/{key}") from answered
            raise answered.error from answered
        body = reply["Body"]
        async with body:
            if reply.get("ContentLength", 0) > bytes_max:
                raise StoreRejected(f"more than {bytes_max} bytes")
            await save(self._chunks(body), path, bytes_max)

    async def _chunks(self, body: Any) -> AsyncIterator[bytes]:
        while True:
            try:
                with anyio.fail_after(self._config.timeout_seconds):
                    chunk = await body.read(CHUNK_BYTES)
            except _NETWORK as error:
                raise _unavailable(error) from error
            if not chunk:
                return
            yield chunk

    async def _put_parts(
        self, parts: Sequence[Piece], place: Mapping[str, str], kept: Mapping[str, str]
    ) -> _Replies:
        """Send a file in parts. Unless it is finished, what was sent is dropped at the service."""
        created = await self._call("create_multipart_upload", **place, **kept)
        if not created.get("UploadId"):
            raise StoreUnavailable("the store began no upload")
        upload = {**place, "UploadId": created["UploadId"]}
        finished = False
        try:
            replies = await self._send_parts(parts, upload)
            reply = await self._call(
                "complete_multipart_upload", **upload, MultipartUpload={"Parts": _listed(replies)}
            )
            # What fails late comes as a 200, and need not look like an error to the library.
            if not reply.get("ETag"):
                raise StoreUnavailable("the store did not put the parts together")
            finished = True
        except _Answered as answered:
            if answered.status != 404:
                raise
            # The bucket was there when it began: the service has forgotten this upload.
            raise StoreUnavailable(str(answered)) from answered
        finally:
            if not finished:
                await self._abort(upload)
        return [*replies, (reply, parts)]

    async def _send_parts(self, parts: Sequence[Piece], upload: Mapping[str, str]) -> _Replies:
        """All at once, as far as there are slots. The first failure ends the others."""
        replies: dict[int, Mapping[str, Any]] = {}
        failures: list[Exception] = []

        async def send(number: int, part: Piece) -> None:
            try:
                replies[number] = await self._send("upload_part", part, **upload, PartNumber=number)
            except (_Answered, StoreUnavailable, StoreRejected) as failure:
                failures.append(failure)
                tasks.cancel_scope.cancel()

        async with anyio.create_task_group() as tasks:
            for number, part in enumerate(parts, 1):
                tasks.start_soon(send, number, part)
        if failures:
            raise failures[0]
        return [(replies[number], [part]) for number, part in enumerate(parts, 1)]

    async def _abort(self, upload: Mapping[str, str]) -> None:
        """Best effort, also where the upload was cancelled."""
        with anyio.move_on_after(_ABORT_SECONDS, shield=True):
            try:
                await self._call("abort_multipart_upload", **upload)
            except (_Answered, StoreUnavailable) as error:
                log.info("upload_not_dropped", key=upload["Key"], reason=str(error))

    async def _verify(self, replies: _Replies, place: Mapping[str, str]) -> None:
        """Raises ``StoreUnavailable`` unless the service holds what was sent."""
        reply, parts = replies[-1]
        if any(_doubtful(*one) for one in replies):
            await self._read_back(parts, place)
        elif bare_etag(reply.get("ETag")) != etag(parts):
            await self._measure(parts, place)

    async def _read_back(self, parts: Sequence[Piece], place: Mapping[str, str]) -> None:
        try:
            async with self._slots:
                same = await self._gives(parts, place)
        except _Answered as answered:
            raise not_compared(answered.error) from answered
        except StoreUnavailable as error:
            raise not_compared(error) from error
        except TimeoutError as error:
            raise not_compared(_unavailable(error)) from error
        if not same:
            raise StoreUnavailable("the store holds other bytes than were sent")
        log.info("upload_read_back", key=place["Key"], reason="the store's ETag is not its MD5")

    async def _gives(self, parts: Sequence[Piece], place: Mapping[str, str]) -> bool:
        # One request carries the whole file, which gets the time of as many smaller ones.
        with anyio.fail_after(self._config.timeout_seconds * len(parts)):
            body = (await self._call("get_object", **place))["Body"]
            async with body:
                return await same_bytes(self._chunks(body), parts)

    async def _measure(self, parts: Sequence[Piece], place: Mapping[str, str]) -> None:
        size = sum(part.size for part in parts)
        try:
            head = await self._call("head_object", **place)
        except _Answered as answered:
            if answered.status in (401, 403):  # a key that may write and not read
                log.warning("upload_not_verified", key=place["Key"], reason=str(answered))
                return
            raise StoreUnavailable(f"what was stored is not there: {answered}") from answered
        if head.get("ContentLength") != size:
            held = head.get("ContentLength")
            raise StoreUnavailable(f"the store holds {held} bytes of {size} that were sent")

    async def _send(self, operation: str, piece: Piece, **arguments: Any) -> Mapping[str, Any]:
        """One request that carries a piece, once there is a slot for it."""
        async with self._slots:
            with open_piece(piece) as body:
                return await self._call(
                    operation,
                    Body=body,
                    ContentLength=piece.size,
                    ContentMD5=base64.b64encode(piece.md5).decode(),
                    **arguments,
                )

    async def _call(self, operation: str, **arguments: Any) -> Mapping[str, Any]:
        """One request and its answer. Raises ``_Answered`` or ``StoreUnavailable``."""
        call = functools.partial(getattr(self._client, operation), **arguments)
        try:
            with anyio.fail_after(self._config.timeout_seconds):
                reply: Mapping[str, Any] = await call()
        except ClientError as error:
            raise self._answered(error.response) from error
        except _NETWORK as error:
            raise _unavailable(error) from error
        return reply

    def _answered(self, response: Mapping[str, Any]) -> _Answered:
        meta = response.get("ResponseMetadata", {})
        status = int(meta.get("HTTPStatusCode", 500))
        # With a namespace in the XML the library finds neither where it looks for them.
        found = {**response, **{k: v for k, v in response.get("Error", {}).items() if v}}
        said = ": ".join(
            str(found[k]) for k in ("Code", "Message") if isinstance(found.get(k), str)
        )
        headers, now = meta.get("HTTPHeaders", {}), self._clock.wall()
        wait = retry_after(headers.get("retry-after"), now)
        error = status_error(status, "the store", said, wait)
        if isinstance(error, StoreRejected) and (skew := clock_skew(headers.get("date"), now)):
            # Signatures hold for some minutes. Which status says so differs.
            error = StoreDenied(f"{error}; this machine's clock is {skew:+.0f} s off the store's")
        elif status == 400 and self._in_session:
            error = StoreDenied(f"{error}; the session token may have ended")
        return _Answered(status, error)


def _listed(replies: _Replies) -> list[dict[str, Any]]:
    """The parts that were sent, as the service called them."""
    return [
        {"PartNumber": number, "ETag": reply.get("ETag") or f'"{etag(part)}"'}
        for number, (reply, part) in enumerate(replies, 1)
    ]


def _doubtful(reply: Mapping[str, Any], parts: Sequence[Piece]) -> bool:
    # Encrypted with keys of its own, a file is known to have an ETag that only looks like an MD5.
    sealed = reply.get("ServerSideEncryption") == "aws:kms" or "SSECustomerAlgorithm" in reply
    return not sealed and contradicts(bare_etag(reply.get("ETag")), etag(parts))


def _unavailable(error: Exception) -> StoreUnavailable:
    reason = "no answer in time" if isinstance(error, _TIMEOUTS) else type(error).__name__
    return StoreUnavailable(f"the store did not answer: {reason}")


def _expect_nothing(request: Any, **_: Any) -> None:
    """Not to wait for the service's leave to send: some never give it."""
    if "Expect" in request.headers:
        del request.headers["Expect"]
