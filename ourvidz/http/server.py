"""Serving the API inside the event loop that everything else runs in."""

from __future__ import annotations

import contextlib
import errno
import socket
from collections.abc import Iterator

import anyio
import structlog
import uvicorn
from anyio.abc import TaskStatus
from fastapi import FastAPI

from ourvidz.config import Settings, check_bind
from ourvidz.errors import OurVidzError
from ourvidz.http.app import stop_open_requests

log = structlog.get_logger()

# Requests that are under way get so long to end; streams and waits end at once.
GRACE_SECONDS = 3
# A connection that is idle between two requests; longer than the pause of a polling client.
_KEEP_ALIVE_SECONDS = 15
# The request line and all headers.
_HEAD_BYTES_MAX = 16 * 1024
# Beyond it callers get a 503; each connection holds some tens of kilobytes.
_CONNECTIONS_MAX = 1024
# A name may have addresses of a kind that this machine has switched off.
_NOT_HERE = (errno.EADDRNOTAVAIL, errno.EAFNOSUPPORT)


class ListenError(OurVidzError):
    """The configured address cannot be listened on."""

    # An address that is taken becomes free, and one that is not here yet may come.
    retryable = True


async def serve(
    api: FastAPI,
    settings: Settings,
    *,
    task_status: TaskStatus[int] = anyio.TASK_STATUS_IGNORED,
) -> None:
    """Serve until cancelled; started with the port once connections are accepted.

    Raises ``ListenError``, or ``ConfigError`` for an address that needs a token. Signals are left
    to the process. When cancelled, streams and waits end at once and what is under way gets
    ``GRACE_SECONDS``.
    """
    check_bind(settings)
    listeners = await _listen(settings.http.host, settings.http.port)
    server = _Server(_config(api))
    port = _port_of(listeners)
    async with anyio.create_task_group() as tasks:
        tasks.start_soon(_run, server, listeners)
        try:
            await server.listening.wait()
            log.info("http_listening", host=settings.http.host, port=port)
            task_status.started(port)
            await anyio.sleep_forever()
        finally:
            stop_open_requests(api)
            server.should_exit = True


def _config(api: FastAPI) -> uvicorn.Config:
    return uvicorn.Config(
        api,
        http="h11",
        ws="none",
        lifespan="off",
        loop="none",
        workers=1,
        log_config=None,
        access_log=False,
        server_header=False,
        limit_concurrency=_CONNECTIONS_MAX,
        timeout_keep_alive=_KEEP_ALIVE_SECONDS,
        timeout_graceful_shutdown=GRACE_SECONDS,
        h11_max_incomplete_event_size=_HEAD_BYTES_MAX,
    )


class _Server(uvicorn.Server):
    """uvicorn without its signal handlers, which says when it accepts connections."""

    def __init__(self, config: uvicorn.Config) -> None:
        super().__init__(config)
        self.listening = anyio.Event()

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        await super().startup(sockets)
        self.listening.set()

    @contextlib.contextmanager
    def capture_signals(self) -> Iterator[None]:
        yield


async def _run(server: _Server, listeners: list[socket.socket]) -> None:
    """Shielded, for the server must be told to stop, not cut off: it then takes ``GRACE_SECONDS``
    at most."""
    with anyio.CancelScope(shield=True):
        await server.serve(listeners)


async def _listen(host: str, port: int) -> list[socket.socket]:
    """One socket for each address of ``host`` that this machine has, all on the same port."""
    listeners: list[socket.socket] = []
    problem = "no address"
    try:
        found = await anyio.getaddrinfo(
            host, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE
        )
        for family, _, _, _, address in dict.fromkeys(found):
            chosen = (address[0], _port_of(listeners) or port, *address[2:])
            try:
                listeners.append(socket.create_server(chosen, family=family))
            except OSError as error:
                if error.errno not in _NOT_HERE:
                    raise
                problem = str(error)
    except OSError as error:
        _close(listeners)
        problem = str(error)
    if not listeners:
        raise ListenError(f"http.host, http.port: {host} port {port}: {problem}")
    return listeners


def _port_of(listeners: list[socket.socket]) -> int:
    """The port that the first one has taken; 0 if there is none yet."""
    return int(listeners[0].getsockname()[1]) if listeners else 0


def _close(listeners: list[socket.socket]) -> None:
    for listener in listeners:
        listener.close()
    listeners.clear()
