"""Writing answers, and describing them for the OpenAPI document."""

from __future__ import annotations

from collections.abc import Mapping
from http import HTTPStatus
from typing import Any

import orjson
from starlette.responses import Response

from ourvidz.http.models import ProblemDetails

Responses = dict[int | str, dict[str, Any]]


def json_response(
    data: Mapping[str, Any], status: int = 200, headers: Mapping[str, str] | None = None
) -> Response:
    return Response(orjson.dumps(data), status, headers, media_type="application/json")


def problems(*statuses: int, token: bool = True) -> Responses:
    """The errors of a route, beside those that every route (that needs the token) has."""
    described = sorted({403, 500, *statuses, *((401,) if token else ())})
    return {
        status: {"model": ProblemDetails, "description": HTTPStatus(status).phrase}
        for status in described
    }
