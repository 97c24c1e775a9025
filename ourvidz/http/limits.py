"""Reading a request's body: what it may be, how large, and for how long it may take."""

from __future__ import annotations

import re
from email.message import Message
from typing import Any

import anyio
import orjson
from fastapi import Request

from ourvidz.http.problems import (
    BODY_TIMEOUT,
    BODY_TOO_LARGE,
    INVALID_PARAMETER,
    MALFORMED_JSON,
    UNSUPPORTED_MEDIA_TYPE,
    HttpProblem,
)

# The largest body that is read takes a second on a slow line; a caller that stalls holds a
# connection.
BODY_SECONDS_MAX = 30.0
_JSON = re.compile(r"application/(json|[a-z0-9.+_-]+\+json)")
_CHARSETS = ("utf-8", "utf8", "us-ascii")


async def read_object(
    request: Request, bytes_max: int, seconds_max: float = BODY_SECONDS_MAX
) -> dict[str, Any]:
    """The JSON object in the body; of a key that occurs twice the last one counts.

    NaN, Infinity and nesting beyond about a thousand levels are not JSON here. Raises
    ``HttpProblem``; a body that is too large is refused before it is parsed, and no more than
    ``bytes_max`` and one chunk of it is ever held.
    """
    _check_type(request)
    raw = await _read(request, bytes_max, seconds_max)
    try:
        body = orjson.loads(raw)
    except orjson.JSONDecodeError as error:
        detail = f"body: {error}" if raw else "body: empty, a JSON object is needed"
        raise HttpProblem(MALFORMED_JSON, detail) from error
    if not isinstance(body, dict):
        raise HttpProblem(INVALID_PARAMETER, "body: must be a JSON object", field="body")
    return body


def _check_type(request: Request) -> None:
    header = Message()
    header["content-type"] = request.headers.get("content-type", "")
    charset = header.get_content_charset("utf-8")
    given = header["content-type"][:100] or "none"
    if not _JSON.fullmatch(header.get_content_type()) or charset not in _CHARSETS:
        raise HttpProblem(
            UNSUPPORTED_MEDIA_TYPE,
            f"Content-Type: {given}: must be application/json in UTF-8",
            headers={"Accept": "application/json"},
        )
    if request.headers.get("content-encoding", "identity").lower() != "identity":
        raise HttpProblem(
            UNSUPPORTED_MEDIA_TYPE,
            "Content-Encoding: must be identity",
            headers={"Accept-Encoding": "identity"},
        )


async def _read(request: Request, bytes_max: int, seconds_max: float) -> bytes:
    """The declared length only saves reading: what counts is what arrives."""
    declared = request.headers.get("content-length", "")
    if declared.isdecimal() and len(declared) < 20 and int(declared) > bytes_max:
        raise _too_large(bytes_max)
    body = bytearray()
    try:
        with anyio.fail_after(seconds_max):
            async for chunk in request.stream():
                body += chunk
                if len(body) > bytes_max:
                    raise _too_large(bytes_max)
    except TimeoutError as error:
        detail = f"body: {len(body)} bytes arrived within {seconds_max:g} seconds"
        raise HttpProblem(BODY_TIMEOUT, detail, headers={"Connection": "close"}) from error
    return bytes(body)


def _too_large(bytes_max: int) -> HttpProblem:
    hint = "name reference images by URL or storage key instead of sending them"
    return HttpProblem(
        BODY_TOO_LARGE, f"body: must be at most {bytes_max} bytes", field="body", hint=hint
    )
