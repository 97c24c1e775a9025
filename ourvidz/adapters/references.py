"""Reference images from our own storage or from hosts that the operator lists."""

from __future__ import annotations

import functools
import secrets
from pathlib import Path

import anyio
import anyio.to_thread
import httpx

from ourvidz.adapters.hosts import parse_hosts, port_of
from ourvidz.adapters.keys import check_key
from ourvidz.adapters.reference_image import NotAnImage, write_checked_image
from ourvidz.adapters.safe_http import FetchRefused, FetchUnavailable, PinnedClient
from ourvidz.config import settings
from ourvidz.jobs import ErrorCode, JobError, Reference
from ourvidz.ports import (
    AssetStore,
    DiskRefused,
    ReferenceFailed,
    StoreDenied,
    StoreRejected,
    StoreUnavailable,
)

LOCATION_CHARACTERS_MAX = 4096  # signed URLs have about 600
_SHOWN_CHARACTERS = 120
_FIELDS = {"image": "reference_image", "start": "first_frame", "end": "last_frame"}


class _Refused(Exception):
    """This reference cannot be used."""


class _Unavailable(Exception):
    """This reference cannot be had for now."""


class _StoreAway(_Unavailable):
    """Nor can any other that lies in our own storage."""


class GuardedReferences:
    """Storage keys are read through the store; URLs are fetched by ``PinnedClient``.

    Raises ``ValueError`` at once if ``config.hosts`` holds what is no host.
    """

    def __init__(
        self,
        store: AssetStore,
        config: settings.References,
        client: PinnedClient | None = None,
    ) -> None:
        self._store = store
        self._config = config
        self._rules = parse_hosts(config.hosts)
        self._client = client or PinnedClient()
        self._limiter = anyio.CapacityLimiter(config.concurrent_max)
        # At the pixel limit a decode holds some 400 MB: one at a time, whatever arrives.
        self._decoding = anyio.CapacityLimiter(1)

    async def fetch(self, reference: Reference, path: Path) -> None:
        """Write the reference to ``path`` as an upright, opaque still image. Raises
        ``ReferenceFailed``, ``DiskRefused``."""
        try:
            async with self._limiter:
                await anyio.Path(path.parent).mkdir(parents=True, exist_ok=True)
                content = await self._read(reference.location, path)
                check = functools.partial(
                    write_checked_image, content, path, self._config.pixels_max
                )
                await anyio.to_thread.run_sync(check, limiter=self._decoding)
        except (_Refused, NotAnImage) as error:
            raise _failed(reference, str(error), retryable=False) from error
        except _Unavailable as error:
            failure = _failed(reference, str(error), retryable=True)
            failure.store_away = isinstance(error, _StoreAway)
            raise failure from error
        except OSError as error:
            raise DiskRefused.of(error) from error

    async def _read(self, location: str, path: Path) -> bytes:
        if len(location) > LOCATION_CHARACTERS_MAX:
            raise _Refused(f"a location may have {LOCATION_CHARACTERS_MAX} characters")
        bucket, _, key = location.partition("/")
        if bucket in self._config.buckets:
            return await self._read_stored(bucket, key, path)
        if location[:5].lower() == "data:":
            raise _Refused("data URIs are not allowed; store the image and name its key or URL")
        return await self._read_remote(self._parse(location))

    async def _read_stored(self, bucket: str, key: str, path: Path) -> bytes:
        try:
            check_key(key)
        except ValueError as error:
            raise _Refused(str(error)) from error
        copy = anyio.Path(path.with_name(f".{secrets.token_hex(8)}.reference"))
        try:
            with anyio.fail_after(self._config.seconds_max):
                await self._store.get(bucket, key, Path(copy), self._config.bytes_max)
            return await copy.read_bytes()
        except KeyError as error:
            raise _Refused("there is no such file in the storage") from error
        except StoreUnavailable as error:
            raise _StoreAway(str(error)) from error
        except StoreDenied as error:  # perhaps this key alone: some do not say what is absent
            raise _Unavailable(str(error)) from error
        except StoreRejected as error:
            raise _Refused(str(error)) from error
        except TimeoutError as error:
            raise _StoreAway("the storage did not answer in time") from error
        finally:
            with anyio.CancelScope(shield=True):
                await copy.unlink(missing_ok=True)

    def _parse(self, location: str) -> httpx.URL:
        """The one parse: what is checked here is what is connected to."""
        if not location.isprintable() or "\\" in location or " " in location:
            raise _Refused("control characters, spaces and backslashes are not allowed in a URL")
        try:
            url = httpx.URL(location)
        except (httpx.InvalidURL, ValueError) as error:
            raise _Refused("neither a storage key nor a valid URL") from error
        if url.scheme != "https":
            raise _Refused(
                "neither an https URL nor a key in "
                f"{', '.join(self._config.buckets) or 'a known bucket'}"
            )
        if url.userinfo:
            raise _Refused("credentials in a URL are not allowed")
        host = url.raw_host.decode("ascii")
        if not any(rule.allows(host, port_of(url)) for rule in self._rules):
            raise _Refused("the host is not one of the configured references.hosts")
        return url

    async def _read_remote(self, url: httpx.URL) -> bytes:
        try:
            return await self._client.get(
                url, bytes_max=self._config.bytes_max, seconds_max=self._config.seconds_max
            )
        except FetchRefused as error:
            raise _Refused(str(error)) from error
        except FetchUnavailable as error:
            raise _Unavailable(str(error)) from error


def _failed(reference: Reference, reason: str, *, retryable: bool) -> ReferenceFailed:
    shown = describe_location(reference.location)
    field = _FIELDS[reference.role]
    message = f"{field}: {shown}: {reason}"
    return ReferenceFailed(
        JobError(ErrorCode.REFERENCE_FRAME, message, retryable=retryable, field=field)
    )


def describe_location(location: str) -> str:
    """A location as logs and messages may show it: one line, short, and without query, fragment,
    credentials or data, since signed URLs carry their token in these."""
    if location[:5].lower() == "data:":
        return "a data URI"
    head = location[:LOCATION_CHARACTERS_MAX].partition("?")[0].partition("#")[0]
    visible = head.rpartition("@")[2].encode("unicode_escape").decode("ascii")
    cut = visible[:_SHOWN_CHARACTERS]
    return f"'{cut}'" if cut == visible else f"'{cut}...'"
