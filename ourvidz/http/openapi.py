"""The OpenAPI document: what the framework derives, put right where it cannot know."""

from __future__ import annotations

from typing import Any

from fastapi import FastAPI
from fastapi.openapi.utils import get_openapi

from ourvidz.http.models import JobRequest
from ourvidz.http.problems import MEDIA_TYPE

_SUBMITTING = frozenset({"submit_job", "put_job"})


class Api(FastAPI):
    """The application, with a document that says what its own body reader and errors do."""

    def openapi(self) -> dict[str, Any]:
        if self.openapi_schema is None:
            self.openapi_schema = _document(self)
        return self.openapi_schema


def _document(api: FastAPI) -> dict[str, Any]:
    document = get_openapi(
        title=api.title,
        version=api.version,
        description=api.description,
        routes=api.routes,
        tags=api.openapi_tags,
    )
    schemas = document["components"]["schemas"]
    schemas["JobRequest"] = JobRequest.model_json_schema()
    for unused in ("HTTPValidationError", "ValidationError"):
        schemas.pop(unused, None)
    for path in document["paths"].values():
        for operation in path.values():
            _correct(operation)
    return document


def _correct(operation: dict[str, Any]) -> None:
    """Problems have a media type of their own; bodies are read by the route, not the framework,
    which also takes every parameter for one that may be invalid."""
    for status, response in list(operation["responses"].items()):
        content = response.get("content", {}).get("application/json", {})
        model = content.get("schema", {}).get("$ref", "").rpartition("/")[2]
        if model == "ProblemDetails":
            response["content"] = {MEDIA_TYPE: content}
        elif model == "HTTPValidationError":
            del operation["responses"][status]
    if operation["operationId"] in _SUBMITTING:
        reference = {"$ref": "#/components/schemas/JobRequest"}
        operation["requestBody"] = {
            "required": True,
            "content": {"application/json": {"schema": reference}},
        }
