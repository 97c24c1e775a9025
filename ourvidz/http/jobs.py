"""Jobs: submit, look, list, cancel, follow."""

from __future__ import annotations

from collections.abc import Mapping
from contextlib import aclosing
from typing import Annotated, Any
from uuid import UUID

import anyio
from fastapi import APIRouter, Header, Query, Request
from starlette.responses import Response

from ourvidz.http.answers import json_response, problems
from ourvidz.http.context import Context, ContextOf, base_url
from ourvidz.http.headers import new_id, wait_seconds
from ourvidz.http.journal_route import JournalRoute
from ourvidz.http.limits import read_object
from ourvidz.http.models import Job, JobList, Status
from ourvidz.http.problems import BUSY, INVALID_PARAMETER, NOT_FOUND, HttpProblem
from ourvidz.http.sse import EventStream, ended, events, last_event_id, seen_to_the_end
from ourvidz.service.service import TooLate
from ourvidz.wire import is_uuid

router = APIRouter(tags=["jobs"], route_class=JournalRoute)

_SUBMITTED: dict[int | str, dict[str, Any]] = {
    200: {"model": Job, "description": "Known already, or ended while the caller waited."},
    202: {"model": Job, "description": "Accepted; `Location` is where to look."},
    **problems(400, 408, 409, 413, 415, 422, 503),
}
Prefer = Annotated[
    list[str],
    Header(
        default_factory=list,
        description="`wait=N`: answer when the job has ended, at the latest after N seconds.",
    ),
]


@router.post("/jobs", status_code=202, responses=_SUBMITTED, operation_id="submit_job")
async def submit(
    request: Request,
    context: ContextOf,
    prefer: Prefer,
    idempotency_key: Annotated[
        str | None,
        Header(
            min_length=1,
            max_length=255,
            description="A repeat with the same key is the same job. An `id` in the body rules.",
        ),
    ] = None,
) -> Response:
    """Submit a job. Its `id` is made here, or from the idempotency key, if the body has none."""
    body = await read_object(request, context.settings.http.body_bytes_max)
    if _given_id(body) is None:
        body["id"] = str(new_id(idempotency_key))
    return await _submit(request, context, body, prefer)


@router.put("/jobs/{job_id}", status_code=202, responses=_SUBMITTED, operation_id="put_job")
async def put(request: Request, context: ContextOf, job_id: str, prefer: Prefer) -> Response:
    """Submit a job under an id of the caller's. Repeating the request is harmless."""
    if not is_uuid(job_id):
        detail = "id: the path must end with a UUID of five groups with hyphens"
        raise HttpProblem(INVALID_PARAMETER, detail, field="id")
    body = await read_object(request, context.settings.http.body_bytes_max)
    given = _given_id(body)
    if given is None:
        body["id"] = job_id.lower()
    elif not isinstance(given, str) or given.lower() != job_id.lower():
        detail = "id: the body names another job than the path"
        raise HttpProblem(INVALID_PARAMETER, detail, field="id")
    return await _submit(request, context, body, prefer)


@router.get(
    "/jobs",
    responses={200: {"model": JobList}, **problems(422, 503)},
    operation_id="list_jobs",
)
async def listing(
    request: Request,
    context: ContextOf,
    limit: Annotated[int, Query(ge=1, le=200)] = 50,
    before: Annotated[UUID | None, Query(description="`next_before` of the page before.")] = None,
    status: Annotated[Status | None, Query(description="Only jobs of this status.")] = None,
) -> Response:
    """The jobs that the service knows, the newest first."""
    url = base_url(request)
    if before is not None and await context.service.job(str(before), url) is None:
        raise HttpProblem(INVALID_PARAMETER, f"before: no job has the id {before}", field="before")
    found = list(await context.service.jobs(limit + 1, before, status, url))
    more = len(found) > limit
    page = found[:limit]
    return json_response({"jobs": page, "next_before": page[-1]["id"] if more else None})


@router.get(
    "/jobs/{job_id}",
    responses={200: {"model": Job}, **problems(404, 503)},
    operation_id="get_job",
)
async def get(request: Request, context: ContextOf, job_id: str) -> Response:
    """One job, or 404 for an id that the service does not know."""
    return json_response(await _resource(request, context, job_id))


@router.post(
    "/jobs/{job_id}/cancel",
    status_code=202,
    responses={
        200: {"model": Job, "description": "Cancelled."},
        202: {"model": Job, "description": "Asked to stop; it ends within a step."},
        **problems(404, 409, 503),
    },
    operation_id="cancel_job",
)
async def cancel(request: Request, context: ContextOf, job_id: str) -> Response:
    """Cancel a job that has not ended and whose files are not made yet."""
    record = await context.service.cancel(job_id)
    resource = await _resource(request, context, job_id)
    if record is None:
        raise TooLate("the payload was refused, there is no job to cancel")
    return json_response(resource, 200 if resource["status"] == "cancelled" else 202)


@router.get(
    "/jobs/{job_id}/events",
    responses={
        200: {
            "description": "Events `status`, `progress`, `delta`, `asset` and at last `end`.",
            "content": {"text/event-stream": {"schema": {"type": "string"}}},
        },
        204: {"description": "The client has seen the end."},
        **problems(404, 503),
    },
    operation_id="follow_job",
)
async def follow(
    request: Request,
    context: ContextOf,
    job_id: str,
    last_event_id_header: Annotated[
        str | None, Header(alias="Last-Event-ID", description="The last event that was seen.")
    ] = None,
) -> Response:
    """Follow a job as server-sent events, from its first event or from the last one seen."""
    # A job that comes to be known between two looks would seem to have ended without a log.
    await _resource(request, context, job_id)
    log = await context.service.log_of(job_id)
    newest = 0 if log is None else log.last_id
    resource = await _resource(request, context, job_id)
    last_id = last_event_id(last_event_id_header)
    if seen_to_the_end(log, last_id):
        return Response(status_code=204)
    if context.open_requests.full:
        detail = "as many streams are open as the service serves"
        raise HttpProblem(BUSY, detail, headers={"Retry-After": "5"})
    frames = events(resource, log, newest, last_id)
    return EventStream(frames, context.open_requests, context.settings.http.sse_ping_seconds)


def _given_id(body: Mapping[str, Any]) -> Any:
    """The id that the body brings, under either of its names."""
    given = body.get("id")
    return body.get("job_id") if given is None else given


async def _submit(
    request: Request, context: Context, body: Mapping[str, Any], prefer: list[str]
) -> Response:
    record, new = await context.service.submit(body)
    job_id = str(record.spec.id)
    seconds = wait_seconds(prefer, context.settings.http.wait_seconds_max)
    if seconds:
        await _wait(request, context, job_id, seconds)
    resource = await _resource(request, context, job_id)
    headers = {"Location": str(resource["urls"]["get"])}
    if seconds and ended(resource):
        return json_response(resource, 200, {**headers, "Preference-Applied": "wait"})
    return json_response(resource, 202 if new or seconds else 200, headers)


async def _wait(request: Request, context: Context, job_id: str, seconds: float) -> None:
    """Return when the job has ended, the time is up, the caller has gone or the server stops. Where
    too many wait already, return at once: a preference need not be met."""
    log = await context.service.log_of(job_id)
    if log is None or context.open_requests.full:
        return
    with anyio.move_on_after(seconds):
        async with (
            context.open_requests.hold(request.receive),
            aclosing(log.follow(log.last_id)) as following,
        ):
            async for _ in following:
                pass


async def _resource(request: Request, context: Context, job_id: str) -> Mapping[str, Any]:
    """Raises ``HttpProblem``."""
    resource = await context.service.job(job_id, base_url(request))
    if resource is None:
        raise HttpProblem(NOT_FOUND, "id: no job has this id", field="id")
    return resource
