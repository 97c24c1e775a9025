"""The outermost middleware: one log line a request, and the last answer to a defect of ours."""

from __future__ import annotations

import time
from urllib.parse import quote

import structlog
from starlette.datastructures import MutableHeaders
from starlette.requests import ClientDisconnect
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from ourvidz.http.problems import INTERNAL_ERROR, HttpProblem

log = structlog.get_logger()

# What a log calls a request whose caller left before there was an answer.
CLIENT_CLOSED = 499
# Asked for every few seconds by supervisors and collectors.
_FREQUENT = frozenset({"/health", "/ping", "/metrics"})
_PATH_CHARACTERS = 200


class Access:
    """ASGI middleware. Neither query strings nor headers are logged: they may hold secrets."""

    def __init__(self, app: ASGIApp) -> None:
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        began = time.perf_counter()
        status = 0

        async def answer(message: Message) -> None:
            nonlocal status
            if message["type"] == "http.response.start":
                status = message["status"]
                headers = MutableHeaders(scope=message)
                headers.setdefault("Cache-Control", "no-store")
                headers.setdefault("X-Content-Type-Options", "nosniff")
            await send(message)

        try:
            await self._app(scope, receive, answer)
        except ClientDisconnect:
            status = status or CLIENT_CLOSED
        except Exception as error:  # the border: whatever it was, the caller gets an answer
            if status:
                raise
            log.exception("http_failed", method=scope["method"], path=_escaped(scope["path"]))
            problem = HttpProblem(INTERNAL_ERROR, f"{type(error).__name__} in the service")
            await problem.response(scope)(scope, receive, answer)
        finally:
            _log(scope, status, time.perf_counter() - began)


def _log(scope: Scope, status: int, seconds: float) -> None:
    write = log.debug if scope["path"] in _FREQUENT and status < 500 else log.info
    job = scope.get("path_params", {}).get("job_id")
    known = {} if job is None else {"job": _escaped(job)}
    write(
        "http_request",
        method=scope["method"],
        path=_escaped(scope["path"]),
        status=status,
        seconds=round(seconds, 6),
        **known,
    )


def _escaped(text: str) -> str:
    """What a caller wrote, unable to write to a terminal what it likes."""
    return quote(text)[:_PATH_CHARACTERS]
