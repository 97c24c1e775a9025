"""Following a job to its end, over restarts of the service."""

from __future__ import annotations

from collections.abc import AsyncGenerator, Callable
from contextlib import aclosing
from types import TracebackType
from typing import Any, Self

import anyio
import httpx
import orjson
from rich.console import Console
from rich.progress import BarColumn, Progress, TextColumn, TimeElapsedColumn

from ourvidz.cli.client import Target, Unavailable, call, checked, job_path, unavailable
from ourvidz.cli.sse import ServerEvent, events

# A service that is started again needs some seconds; a stream that nobody keeps alive is dead.
RETRIES_MAX = 60
RETRY_SECONDS = 1.0
_SILENT_SECONDS = 120.0


def wait(service: Target, job_id: str) -> dict[str, Any]:
    """The job's resource once it has ended; draws a bar on a terminal until then.

    Raises ``ApiError``, or ``Unavailable`` where the service stays away.
    """
    with Bar(Console(stderr=True)) as bar:
        anyio.run(follow, service, job_id, bar.show)
    resource: dict[str, Any] = call(service, "GET", job_path(job_id))
    return resource


async def follow(
    service: Target,
    job_id: str,
    show: Callable[[ServerEvent], None],
    retry_seconds: float = RETRY_SECONDS,
) -> None:
    """Pass the job's events on until it has ended. After a cut it goes on where it was, for at most
    ``RETRIES_MAX`` cuts in a row without an event."""
    last_id, cuts = "", 0
    options = {**service.options(), "timeout": httpx.Timeout(_SILENT_SECONDS, connect=5.0)}
    async with httpx.AsyncClient(**options) as http:
        while True:
            failure: Unavailable | None = None
            try:
                async with aclosing(_stream(http, job_id, last_id)) as stream:
                    async for event in stream:
                        last_id, cuts = event.id or last_id, 0
                        show(event)
                        if event.name == "end":
                            return
            except httpx.TransportError as error:
                failure = unavailable(service, error)
            except Unavailable as error:
                failure = error
            cuts += 1
            if cuts > RETRIES_MAX:
                raise failure or Unavailable("the service ends the job's events without an end")
            await anyio.sleep(retry_seconds)


async def _stream(
    http: httpx.AsyncClient, job_id: str, last_id: str
) -> AsyncGenerator[ServerEvent, None]:
    headers = {"Accept": "text/event-stream"}
    if last_id:
        headers["Last-Event-ID"] = last_id
    async with http.stream("GET", f"{job_path(job_id)}/events", headers=headers) as response:
        if response.is_error:
            await response.aread()
            checked(response)
        async for event in events(response):
            yield event


class Bar:
    """A progress bar on a terminal; nothing elsewhere."""

    def __init__(self, console: Console) -> None:
        self._progress = Progress(
            TextColumn("{task.description:12}"),
            BarColumn(),
            TextColumn("{task.percentage:>3.0f} %"),
            TimeElapsedColumn(),
            console=console,
            disable=not console.is_terminal,
            transient=True,
        )
        self._task = self._progress.add_task("submitted", total=100.0)

    def __enter__(self) -> Self:
        self._progress.start()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self._progress.stop()

    def show(self, event: ServerEvent) -> None:
        """Take one event in."""
        data = orjson.loads(event.data)
        word = data.get("phase") or data.get("status")
        if word is not None:
            self._progress.update(self._task, description=str(word))
        if "progress" in data:
            self._progress.update(self._task, completed=data["progress"])
