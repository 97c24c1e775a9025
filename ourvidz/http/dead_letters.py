"""Elements of the queues that no worker is to take any more."""

from __future__ import annotations

from typing import Annotated

from fastapi import APIRouter, Query
from starlette.responses import Response

from ourvidz.http.answers import json_response, problems
from ourvidz.http.context import ContextOf
from ourvidz.http.models import DeadLetters

router = APIRouter(tags=["queues"])


@router.get(
    "/dead-letters",
    responses={200: {"model": DeadLetters}, **problems(422, 503)},
    operation_id="list_dead_letters",
)
async def dead_letters(
    context: ContextOf, limit: Annotated[int, Query(ge=1, le=200)] = 50
) -> Response:
    """What is no job, or has cut off its runs too often, with the reason. Its answer was sent."""
    return json_response({"dead_letters": list(await context.service.dead_letters(limit))})
