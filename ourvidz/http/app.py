"""The application: routes, errors and guards over a service."""

from __future__ import annotations

from fastapi import FastAPI, Security
from fastapi.security import HTTPBearer

from ourvidz import __version__
from ourvidz.config import Settings
from ourvidz.http import callbacks, dead_letters, jobs, problems, system
from ourvidz.http.access import Access
from ourvidz.http.auth import Guard
from ourvidz.http.context import Context
from ourvidz.http.facade import JobService
from ourvidz.http.openapi import Api

_DESCRIPTION = (
    "Jobs of generative media on one GPU. Errors are problem details (RFC 9457). Every path but "
    "`/health` and `/ping` needs the service's token, if it has one."
)


def create_api(service: JobService, settings: Settings) -> FastAPI:
    """The API over ``service``, which need not be running yet.

    There is no page for people at ``/docs``: it would run scripts of another site's in the API's
    origin. The document is at ``/openapi.json``. No CORS headers are sent.
    """
    api = Api(
        title="OurVidz",
        version=__version__,
        description=_DESCRIPTION,
        docs_url=None,
        redoc_url=None,
        redirect_slashes=False,
    )
    api.state.context = Context(service, settings)
    problems.install(api)
    bearer = HTTPBearer(auto_error=False, description="OURVIDZ_TOKEN, where the service has one.")
    api.include_router(system.open_router)
    api.include_router(system.router, dependencies=[Security(bearer)])
    api.include_router(jobs.router, dependencies=[Security(bearer)])
    api.include_router(callbacks.router, dependencies=[Security(bearer)])
    api.include_router(dead_letters.router, dependencies=[Security(bearer)])
    api.add_middleware(Guard, settings=settings)
    api.add_middleware(Access)
    return api


def stop_open_requests(api: FastAPI) -> None:
    """End the streams and waits that are open, for good."""
    context: Context = api.state.context
    context.open_requests.close()
