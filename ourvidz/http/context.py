"""What every route works with."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Annotated

from fastapi import Depends, Request

from ourvidz.config import Settings
from ourvidz.http.facade import JobService
from ourvidz.http.open_requests import OpenRequests
from ourvidz.http.problems import JOURNAL_DOWN, HttpProblem


@dataclass(frozen=True, slots=True)
class Context:
    service: JobService
    settings: Settings
    open_requests: OpenRequests = field(default_factory=OpenRequests)


async def _context(request: Request) -> Context:
    context: Context = request.app.state.context
    return context


async def writable(context: Annotated[Context, Depends(_context)]) -> None:
    """Raises ``HttpProblem`` where an answer would have to wait for the journal's disk."""
    if context.service.trouble is not None:
        # Why is in the log: it may tell of this machine what is not for callers.
        detail = "the service cannot write anything down for now"
        raise HttpProblem(JOURNAL_DOWN, detail, headers={"Retry-After": "5"})


ContextOf = Annotated[Context, Depends(_context)]


def base_url(request: Request) -> str:
    """The service's own URL as the caller wrote it, without a slash at the end."""
    return str(request.base_url).rstrip("/")
