"""What Supabase's storage does otherwise than S3: errors with a namespace, no check of Content-MD5,
400 for a URL that has expired, 413 and 415 by bucket. Signatures are not checked here: rclone does.
"""

from __future__ import annotations

import hashlib
import re
from collections import deque
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass, field
from datetime import datetime, timedelta

from support.raw_http import Reply, Request

from ourvidz.config import settings

_ERROR = (
    '<?xml version="1.0" encoding="UTF-8"?>'
    '<Error xmlns="http://s3.amazonaws.com/doc/2006-03-01/"><Resource>{resource}</Resource>'
    "<Code>{code}</Code><Message>{message}</Message></Error>"
)
_RESULT = '<?xml version="1.0"?><{0} xmlns="http://s3.amazonaws.com/doc/2006-03-01/">{1}</{0}>'


@dataclass(slots=True)
class Stored:
    body: bytes
    mime: str
    cache_control: str
    etag: str


@dataclass(slots=True)
class SupabaseStorage:
    """``planned`` answers come first, in order; a planned function is called with the request, and
    its ``None`` means the usual answer. ``now`` is what URLs are held against. With ``salt`` ETags
    only look like MD5s, which other services do."""

    buckets: set[str] = field(default_factory=lambda: {"workspace-temp"})
    mimes: frozenset[str] | None = None
    bytes_max: int = 50 * 1024 * 1024
    now: datetime | None = None
    salt: bytes = b""
    prefix: str = "/storage/v1/s3"
    files: dict[str, Stored] = field(default_factory=dict)
    uploads: dict[str, dict[int, bytes]] = field(default_factory=dict)
    kept: dict[str, Mapping[str, str]] = field(default_factory=dict)
    requests: list[Request] = field(default_factory=list)
    planned: deque[Reply | Callable[[Request], Awaitable[Reply | None]]] = field(
        default_factory=deque
    )

    def config(self, url: str, **fields: object) -> settings.Store:
        base = {"kind": "s3", "endpoint": f"{url}{self.prefix}"}
        return settings.Store.model_validate({**base, **fields})

    def reset(self) -> None:
        """As new."""
        self.__init__()  # type: ignore[misc]

    @property
    def asked(self) -> list[str]:
        """The methods of the requests that came, in order."""
        return [request.method for request in self.requests]

    async def answer(self, request: Request) -> Reply:
        self.requests.append(request)
        if self.planned:
            planned = self.planned.popleft()
            reply = planned if isinstance(planned, Reply) else await planned(request)
            if reply is not None:
                return reply
        return self.usual(request)

    def usual(self, request: Request) -> Reply:
        name = request.path.removeprefix(f"{self.prefix}/")
        bucket = name.partition("/")[0]
        if self._expired(request):
            return error(400, "ExpiredToken", "The provided token has expired.", name)
        if bucket not in self.buckets:
            return error(404, "NoSuchBucket", "The specified bucket does not exist", name)
        if request.method in {"GET", "HEAD"}:
            return self._have(name)
        if upload_id := request.query.get("uploadId"):
            return self._part(request, name, upload_id)
        if self.mimes is not None and request.headers.get("content-type") not in self.mimes:
            return error(415, "InvalidMimeType", "mime type is not supported", name)
        if "uploads" in request.query:
            return self._begin(request, name)
        return self._keep(name, request.body, request.headers, self._digest(request.body))

    def _expired(self, request: Request) -> bool:
        query = request.query
        if "X-Amz-Expires" not in query:
            return False
        signed = datetime.strptime(query["X-Amz-Date"], "%Y%m%dT%H%M%S%z")
        now = self.now or datetime.now(signed.tzinfo)
        return now > signed + timedelta(seconds=int(query["X-Amz-Expires"]))

    def _have(self, name: str) -> Reply:
        stored = self.files.get(name)
        if stored is None:
            return error(404, "NoSuchKey", "The specified key does not exist.", name)
        headers = {"ETag": f'"{stored.etag}"', "Content-Type": stored.mime}
        return Reply(200, headers, stored.body)

    def _keep(self, name: str, body: bytes, headers: Mapping[str, str], etag: str) -> Reply:
        if len(body) > self.bytes_max:
            return error(413, "EntityTooLarge", "The object exceeded the maximum size", name)
        mime = headers.get("content-type", "application/octet-stream")
        self.files[name] = Stored(body, mime, headers.get("cache-control", ""), etag)
        return Reply(200, {"ETag": f'"{etag}"'})

    def _begin(self, request: Request, name: str) -> Reply:
        upload_id = f"upload-{len(self.kept)}"
        self.uploads[upload_id] = {}
        self.kept[upload_id] = request.headers
        inner = f"<Key>{name}</Key><UploadId>{upload_id}</UploadId>"
        return _xml("InitiateMultipartUploadResult", inner)

    def _part(self, request: Request, name: str, upload_id: str) -> Reply:
        parts = self.uploads.get(upload_id)
        if parts is None:
            return error(404, "NoSuchUpload", "The upload does not exist", name)
        if request.method == "DELETE":
            del self.uploads[upload_id]
            return Reply(204)
        if request.method == "PUT":
            parts[int(request.query["partNumber"])] = request.body
            return Reply(200, {"ETag": f'"{self._digest(request.body)}"'})
        listed = [int(n) for n in re.findall(rb"<PartNumber>(\d+)</PartNumber>", request.body)]
        assert listed == sorted(parts), "parts are listed in order, and all of them"
        digests = [self._digest(parts[n]) for n in listed]
        if re.findall(r"[0-9a-f]{32}", request.body.decode()) != digests:
            return error(400, "InvalidPart", "One or more of the parts could not be found.", name)
        del self.uploads[upload_id]
        etag = f"{self._digest(bytes.fromhex(''.join(digests)))}-{len(listed)}"
        self._keep(name, b"".join(parts[n] for n in listed), self.kept[upload_id], etag)
        return _xml("CompleteMultipartUploadResult", f'<ETag>"{etag}"</ETag>')

    def _digest(self, body: bytes) -> str:
        return hashlib.md5(self.salt + body, usedforsecurity=False).hexdigest()


def error(status: int, code: str, message: str, resource: str = "") -> Reply:
    body = _ERROR.format(resource=resource, code=code, message=message).encode()
    return Reply(status, {"Content-Type": "application/xml"}, body)


def _xml(name: str, inner: str) -> Reply:
    return Reply(200, {"Content-Type": "application/xml"}, _RESULT.format(name, inner).encode())
