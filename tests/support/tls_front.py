"""TLS before a server that has none, with a certificate of an authority that nobody else knows."""

from __future__ import annotations

import ssl
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path

import anyio
import trustme
from anyio.abc import ByteReceiveStream, ByteSendStream, ByteStream
from anyio.streams.tls import TLSListener


@dataclass(frozen=True, slots=True)
class TlsFront:
    """``ca`` is the authority's certificate."""

    port: int
    ca: Path


@asynccontextmanager
async def tls_front(port: int, folder: Path) -> AsyncIterator[TlsFront]:
    """Passes everything on to this port of this machine until the block is left."""
    authority = trustme.CA()
    context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    authority.issue_cert("localhost").configure_cert(context)
    ca = folder / "ca.pem"
    authority.cert_pem.write_to_path(str(ca))

    async def serve(client: ByteStream) -> None:
        async with (
            client,
            await anyio.connect_tcp("127.0.0.1", port) as server,
            anyio.create_task_group() as tasks,
        ):
            tasks.start_soon(_pass_on, client, server, tasks.cancel_scope)
            tasks.start_soon(_pass_on, server, client, tasks.cancel_scope)

    listener = await anyio.create_tcp_listener(local_host="127.0.0.1")
    own = listener.extra(anyio.abc.SocketAttribute.local_port)
    tls = TLSListener(listener, context, standard_compatible=False)
    async with tls, anyio.create_task_group() as tasks:
        tasks.start_soon(tls.serve, serve)
        yield TlsFront(own, ca)
        tasks.cancel_scope.cancel()


async def _pass_on(
    source: ByteReceiveStream, sink: ByteSendStream, scope: anyio.CancelScope
) -> None:
    """Until one side is gone; then the other one's connection ends too."""
    try:
        async for chunk in source:
            await sink.send(chunk)
    except (anyio.BrokenResourceError, anyio.ClosedResourceError):
        pass
    scope.cancel()
