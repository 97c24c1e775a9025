"""What every route works with."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Annotated

from fastapi import Depends, Request

from ourvidz.config import Settings
from ourvidz.http.facade import JobService
from ourvidz.http.open_requests import OpenRequests


@dataclass(frozen=True, slots=True)
class Context:
    service: JobService
    settings: Settings
    open_requests: OpenRequests = field(default_factory=OpenRequests)


async def _context(request: Request) -> Context:
    context: Context = request.app.state.context
    return context


ContextOf = Annotated[Context, Depends(_context)]


def base_url(request: Request) -> str:
    """The service's own URL as the caller wrote it, without a slash at the end."""
    return str(request.base_url).rstrip("/")
