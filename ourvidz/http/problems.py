"""Errors as callers see them: RFC 9457 problem details, one shape for every one of them.

Beside ``type, title, status, detail, instance`` a problem has ``code``, stable and for programs,
and where they are known ``field``, ``retryable`` (the same request may succeed later) and ``hint``.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from http import HTTPStatus
from typing import Any
from urllib.parse import quote

import orjson
from fastapi import FastAPI, Request
from fastapi.exceptions import RequestValidationError
from starlette.exceptions import HTTPException
from starlette.responses import Response
from starlette.types import Scope

from ourvidz.errors import OurVidzError, shown
from ourvidz.jobs import JobError
from ourvidz.ports import QueueError, QueueFull, QueueRefused, QueueUnavailable
from ourvidz.service.service import IdConflict, SubmissionInvalid, TooLate

MEDIA_TYPE = "application/problem+json"


@dataclass(frozen=True, slots=True)
class Kind:
    """One kind of problem. ``title`` does not change from one occurrence to the next."""

    status: int
    code: str
    title: str
    retryable: bool = False

    @property
    def type(self) -> str:
        return f"urn:ourvidz:problem:{self.code.lower().replace('_', '-')}"


MALFORMED_JSON = Kind(400, "MALFORMED_JSON", "The body is not JSON")
UNAUTHORIZED = Kind(401, "UNAUTHORIZED", "A valid token is needed")
FOREIGN_HOST = Kind(403, "FOREIGN_HOST", "The request was addressed to another host")
FOREIGN_ORIGIN = Kind(403, "FOREIGN_ORIGIN", "The request was sent by a page of another site")
NOT_FOUND = Kind(404, "NOT_FOUND", "There is nothing here")
METHOD_NOT_ALLOWED = Kind(405, "METHOD_NOT_ALLOWED", "The resource does not have this method")
BODY_TIMEOUT = Kind(408, "BODY_TIMEOUT", "The body did not arrive in time", retryable=True)
ID_CONFLICT = Kind(409, "ID_CONFLICT", "The id belongs to a job with another body")
TOO_LATE = Kind(409, "TOO_LATE", "The job cannot be cancelled any more")
BODY_TOO_LARGE = Kind(413, "BODY_TOO_LARGE", "The body is too large")
UNSUPPORTED_MEDIA_TYPE = Kind(415, "UNSUPPORTED_MEDIA_TYPE", "The body must be JSON")
INVALID_PARAMETER = Kind(422, "INVALID_PARAMETER", "A value of the request is not allowed")
INTERNAL_ERROR = Kind(500, "INTERNAL_ERROR", "The service failed; its log says why", retryable=True)
BUSY = Kind(503, "BUSY", "Too many requests are being served", retryable=True)
QUEUE_FULL = Kind(503, "QUEUE_FULL", "The queue takes no more jobs for now", retryable=True)
JOURNAL_DOWN = Kind(503, "JOURNAL_DOWN", "The disk of the service is full or fails", retryable=True)
QUEUE_DOWN = Kind(503, "QUEUE_DOWN", "The queue cannot be reached", retryable=True)

# A full queue is minutes of work at the least.
_FULL_SECONDS = "60"
# One that is down may be back soon.
_DOWN_SECONDS = "5"
_BY_STATUS = {kind.status: kind for kind in (NOT_FOUND, METHOD_NOT_ALLOWED, BODY_TOO_LARGE)}


class HttpProblem(OurVidzError):
    """A request that is answered with a problem. ``str()`` is its ``detail``."""

    def __init__(
        self,
        kind: Kind,
        detail: str,
        *,
        field: str | None = None,
        hint: str | None = None,
        headers: Mapping[str, str] | None = None,
    ) -> None:
        super().__init__(detail)
        self.kind = kind
        self.field = field
        self.hint = hint
        self.headers = headers

    def response(self, scope: Scope) -> Response:
        members = {
            "type": self.kind.type,
            "title": self.kind.title,
            "status": self.kind.status,
            "detail": str(self),
            "instance": quote(scope["path"]),
            "code": self.kind.code,
            "field": self.field,
            "retryable": self.kind.retryable,
            "hint": self.hint,
        }
        present = {name: value for name, value in members.items() if value is not None}
        return Response(
            orjson.dumps(present), self.kind.status, self.headers, media_type=MEDIA_TYPE
        )


def install(api: FastAPI) -> None:
    """Answer every exception that a route may raise with a problem."""
    for raised in (
        HttpProblem,
        HTTPException,
        RequestValidationError,
        SubmissionInvalid,
        IdConflict,
        TooLate,
        QueueFull,
        QueueUnavailable,
        QueueRefused,
    ):
        api.add_exception_handler(raised, _answer)


async def _answer(request: Request, error: Exception) -> Response:
    return _problem(error).response(request.scope)


def _problem(error: Exception) -> HttpProblem:
    match error:
        case HttpProblem():
            return error
        case SubmissionInvalid():
            return _refused(error.error)
        case IdConflict() | TooLate() | QueueFull() | QueueError():
            return _declined(error)
        case RequestValidationError():
            return _invalid(error)
        case HTTPException():
            return _of_status(error)
        case _:
            raise TypeError(f"not installed for {type(error).__name__}") from error


def _declined(error: IdConflict | TooLate | QueueFull | QueueError) -> HttpProblem:
    """What the service would do for another id, at another time."""
    match error:
        case IdConflict():
            hint = "ask for the job that has this id, or submit under a new one"
            return HttpProblem(ID_CONFLICT, f"id: {error} is taken", field="id", hint=hint)
        case TooLate():
            return HttpProblem(TOO_LATE, str(error))
        case QueueFull():
            return HttpProblem(QUEUE_FULL, str(error), headers={"Retry-After": _FULL_SECONDS})
        case QueueError():
            # Why is in the log and the alarms: it may tell of the server what is not for callers.
            detail = "the queues' server cannot be used for now"
            return HttpProblem(QUEUE_DOWN, detail, headers={"Retry-After": _DOWN_SECONDS})


def _refused(error: JobError) -> HttpProblem:
    kind = Kind(422, error.code.value, "The job cannot be run", error.retryable)
    return HttpProblem(kind, error.message, field=error.field, hint=error.hint)


def _invalid(error: RequestValidationError) -> HttpProblem:
    """The first of what is wrong with the path, the query or the headers."""
    first: dict[str, Any] = error.errors()[0]
    field = str(first["loc"][-1])
    detail = f"{field}: {shown(first['input'])}: {first['msg']}"
    return HttpProblem(INVALID_PARAMETER, detail, field=field)


def _of_status(error: HTTPException) -> HttpProblem:
    """What the framework itself refuses."""
    status = HTTPStatus(error.status_code)
    kind = _BY_STATUS.get(status, Kind(status, status.name, status.phrase))
    return HttpProblem(kind, str(error.detail), headers=error.headers)
