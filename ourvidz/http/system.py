"""How the service is: for supervisors, collectors and people."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from fastapi import APIRouter, Request
from prometheus_client import CONTENT_TYPE_LATEST, generate_latest
from starlette.responses import Response

from ourvidz.config import Settings
from ourvidz.http.answers import json_response, problems
from ourvidz.http.context import ContextOf
from ourvidz.http.models import Health, Processes

open_router = APIRouter(tags=["service"])
router = APIRouter(tags=["service"])

_SERVING = {"ready": 200, "starting": 204, "draining": 503}


@open_router.get(
    "/health",
    responses={
        200: {"model": Health, "description": "Ready for jobs."},
        503: {"model": Health, "description": "Starting or draining: send no jobs here."},
        **problems(token=False),
    },
    operation_id="health",
)
async def health(request: Request, context: ContextOf) -> Response:
    """How the service is and what it offers. Needs no token; reads memory only."""
    state = _public(context.service.health())
    paths = request.app.openapi()["paths"]
    answer = {
        **state,
        "endpoints": [f"{verb.upper()} {path}" for path, verbs in paths.items() for verb in verbs],
        "capabilities": _capabilities(context.settings),
    }
    return json_response(answer, 200 if state["status"] == "ready" else 503)


@open_router.get(
    "/ping",
    responses={
        200: {"description": "Ready."},
        204: {"description": "Starting."},
        503: {"description": "Draining."},
        **problems(token=False),
    },
    operation_id="ping",
)
async def ping(context: ContextOf) -> Response:
    """Readiness in the status code alone. Needs no token."""
    return Response(status_code=_SERVING[context.service.health()["status"]])


@router.get(
    "/metrics",
    responses={
        200: {
            "description": "Prometheus' text format.",
            "content": {"text/plain": {"schema": {"type": "string"}}},
        },
        **problems(),
    },
    operation_id="metrics",
)
async def metrics(context: ContextOf) -> Response:
    """Counters and gauges."""
    context.service.refresh_gauges()
    text = generate_latest(context.service.metrics.registry)
    return Response(text, media_type=CONTENT_TYPE_LATEST)


@router.get("/ps", responses={200: {"model": Processes}, **problems()}, operation_id="processes")
async def processes(context: ContextOf) -> Response:
    """What is resident, what runs and what waits."""
    return json_response(context.service.processes())


def _public(state: Mapping[str, Any]) -> dict[str, Any]:
    """Without the reasons why models are broken: they name paths of this machine."""
    device = dict(state.get("device", {}))
    if "broken_models" in device:
        device["broken_models"] = sorted(device["broken_models"])
    return {**state, "device": device}


def _capabilities(settings: Settings) -> Mapping[str, Any]:
    types = {name for queue in settings.queues.values() for name in queue.types}
    return {
        "job_types": sorted(types),
        "legacy_job_types": sorted(settings.legacy_types),
        "models": {name: model.family for name, model in settings.models.items()},
        "events": True,
        "wait_seconds_max": settings.http.wait_seconds_max,
        "body_bytes_max": settings.http.body_bytes_max,
    }
