"""From the options of ``ourvidz submit`` to the body of a job."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import orjson
import typer

_ROLES = ("system", "user", "assistant")


def payload(
    options: Mapping[str, Any], messages: Sequence[str], fields: Sequence[str]
) -> dict[str, Any]:
    """The body: options that were given, ``--message`` and ``--field``.

    What a field may be is the service's to say. Raises ``typer.BadParameter`` for what cannot be
    sent.
    """
    body = {name: value for name, value in options.items() if value is not None}
    if messages:
        body["messages"] = [_message(text) for text in messages]
    for text in fields:
        name, value = _field(text)
        if name in body:
            raise typer.BadParameter(f"{name} is given twice", param_hint="--field")
        body[name] = value
    return body


def encoded(body: Mapping[str, Any]) -> bytes:
    """The body as JSON. Raises ``typer.BadParameter`` for text that is not UTF-8."""
    try:
        return orjson.dumps(body)
    except orjson.JSONEncodeError as error:
        raise typer.BadParameter(f"the job cannot be written as JSON: {error}") from error


def _message(text: str) -> dict[str, str]:
    role, colon, content = text.partition(":")
    if colon and role in _ROLES:
        return {"role": role, "content": content.lstrip()}
    return {"role": "user", "content": text}


def _field(text: str) -> tuple[str, Any]:
    name, equals, value = text.partition("=")
    if not name or not equals:
        raise typer.BadParameter(f"{text!r} is not KEY=JSON", param_hint="--field")
    try:
        return name, orjson.loads(value)
    except orjson.JSONDecodeError:
        return name, value
