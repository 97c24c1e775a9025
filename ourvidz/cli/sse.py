"""Reading server-sent events."""

from __future__ import annotations

from collections.abc import AsyncIterator
from dataclasses import dataclass

import httpx


@dataclass(frozen=True, slots=True)
class ServerEvent:
    id: str
    name: str
    data: str


async def events(response: httpx.Response) -> AsyncIterator[ServerEvent]:
    """The events of a ``text/event-stream`` response, comments left out.

    Source: HTML Standard, 9.2.6 "Interpreting an event stream".
    """
    last_id, name, data = "", "message", list[str]()
    async for line in response.aiter_lines():
        if not line:
            if data:
                yield ServerEvent(last_id, name, "\n".join(data))
            name, data = "message", []
            continue
        field, _, value = line.partition(":")
        value = value.removeprefix(" ")
        if field == "event":
            name = value
        elif field == "data":
            data.append(value)
        elif field == "id":
            last_id = value
