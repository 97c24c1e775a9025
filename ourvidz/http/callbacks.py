"""Callbacks that were given up: look at them, and send them once more."""

from __future__ import annotations

from typing import Annotated

from fastapi import APIRouter, Query
from starlette.requests import Request
from starlette.responses import Response

from ourvidz.http.answers import json_response, problems
from ourvidz.http.context import ContextOf
from ourvidz.http.journal_route import JournalRoute
from ourvidz.http.models import ParkedCallbacks, RetriedCallbacks
from ourvidz.http.problems import INVALID_PARAMETER, HttpProblem

router = APIRouter(prefix="/callbacks", tags=["callbacks"], route_class=JournalRoute)

Limit = Annotated[int, Query(ge=1, le=1000)]


@router.get(
    "/parked",
    responses={200: {"model": ParkedCallbacks}, **problems(422, 503)},
    operation_id="list_parked_callbacks",
)
async def parked(context: ContextOf, limit: Limit = 50) -> Response:
    """The terminal callbacks that the receiver refused for good, or did not take for too long."""
    return json_response({"callbacks": list(await context.service.parked_callbacks(limit))})


@router.post(
    "/parked/retry",
    status_code=202,
    responses={202: {"model": RetriedCallbacks}, **problems(422, 503)},
    operation_id="retry_parked_callbacks",
)
async def retry(
    request: Request,
    context: ContextOf,
    event_id: Annotated[
        list[str] | None, Query(description="One of them; may be repeated. Else all are meant.")
    ] = None,
    limit: Annotated[Limit, Query(description="At most so many, the oldest first.")] = 1000,
) -> Response:
    """Send parked callbacks once more, under the same ids, with all of their attempts."""
    headers = request.headers
    if headers.get("content-length", "0") != "0" or "transfer-encoding" in headers:
        raise HttpProblem(
            INVALID_PARAMETER, "there is no body to this call, callbacks are named by ?event_id="
        )
    retried = await context.service.retry_callbacks(event_id, limit)
    return json_response({"retried": retried}, 202)
