"""Routes whose answers come from the journal, or go into it."""

from __future__ import annotations

from collections.abc import Awaitable, Callable

import anyio
from fastapi import Request
from fastapi.routing import APIRoute
from starlette.responses import Response

from ourvidz.http.context import Context
from ourvidz.http.facade import JobService
from ourvidz.http.problems import JOURNAL_DOWN, HttpProblem

Handler = Callable[[Request], Awaitable[Response]]

_LOOK_SECONDS = 0.5


class JournalRoute(APIRoute):
    """Answers 503 as soon as the journal waits for its disk, however far a request has come. What
    it asked for may be done all the same: each may be repeated."""

    def get_route_handler(self) -> Handler:  # type: ignore[override]
        handler = super().get_route_handler()

        async def answered(request: Request) -> Response:
            context: Context = request.app.state.context
            response: Response | None = None
            failure: Exception | None = None
            if context.service.trouble is not None:
                raise _problem()
            async with anyio.create_task_group() as tasks:
                tasks.start_soon(_trouble, context.service, tasks.cancel_scope)
                try:
                    response = await handler(request)
                except Exception as error:  # noqa: BLE001 - re-raised below, not in a group
                    failure = error
                tasks.cancel_scope.cancel()
            if failure is not None:
                raise failure
            if response is None:
                raise _problem()
            return response

        return answered


def _problem() -> HttpProblem:
    # Why is in the log: it may tell of this machine what is not for callers.
    detail = "the service cannot write anything down for now"
    return HttpProblem(JOURNAL_DOWN, detail, headers={"Retry-After": "5"})


async def _trouble(service: JobService, scope: anyio.CancelScope) -> None:
    """Cancels ``scope`` when there is any."""
    while service.trouble is None:  # noqa: ASYNC110 - a thread finds it
        await anyio.sleep(_LOOK_SECONDS)
    scope.cancel()
