"""Fetch from an address that was checked, and from no other.

A name is resolved once and every address it has must be allowed; the connection then goes to such
an address while TLS and the Host header keep the name. So nothing that a second resolution might
answer matters. There is no redirect, no proxy from the environment, no cookie, no kept connection
and no content coding.
"""

from __future__ import annotations

import socket
import ssl
from collections.abc import Awaitable, Callable, Sequence

import anyio
import httpx

from ourvidz import __version__
from ourvidz.adapters.addresses import is_public
from ourvidz.adapters.hosts import port_of

ADDRESSES_MAX = 4  # tried in turn within one deadline: enough for two of each family

Resolver = Callable[[str, int], Awaitable[Sequence[str]]]


class FetchRefused(Exception):
    """The URL or the answer is not acceptable; the same fetch would be refused again."""


class FetchUnavailable(Exception):
    """The other side did not answer in time or is broken for now."""


async def system_resolver(host: str, port: int) -> Sequence[str]:
    """Addresses as the system resolver orders them. Raises ``OSError``."""
    found = await anyio.getaddrinfo(host, port, type=socket.SOCK_STREAM)
    return list(dict.fromkeys(str(sockaddr[0]) for *_, sockaddr in found))


class PinnedClient:
    """GET over https from public addresses. The parameters are there for tests only."""

    def __init__(
        self,
        *,
        resolve: Resolver = system_resolver,
        allowed: Callable[[str], bool] = is_public,
        ssl_context: ssl.SSLContext | None = None,
    ) -> None:
        self._resolve = resolve
        self._allowed = allowed
        self._ssl = ssl_context or httpx.create_ssl_context(trust_env=False)

    async def get(self, url: httpx.URL, *, bytes_max: int, seconds_max: float) -> bytes:
        """The body of a 200 answer. Raises ``FetchRefused`` or ``FetchUnavailable``."""
        if url.scheme != "https" or url.userinfo or not url.raw_host:
            raise FetchRefused("only https URLs with a host and no credentials are allowed")
        try:
            with anyio.fail_after(seconds_max):
                addresses = await self._addresses(url)
                # Each address gets its share of the deadline: the first may swallow packets.
                limits = httpx.Timeout(seconds_max, connect=seconds_max / len(addresses))
                return await self._get_from_first(addresses, url, bytes_max, limits)
        except (TimeoutError, httpx.TimeoutException) as error:
            raise FetchUnavailable(f"no complete answer within {seconds_max:g} s") from error
        except httpx.ConnectError as error:
            if _by_certificate(error):
                raise FetchRefused("no valid certificate") from error
            raise FetchUnavailable("no connection") from error
        except (httpx.TransportError, OSError) as error:
            raise FetchUnavailable("the connection broke off") from error

    async def _addresses(self, url: httpx.URL) -> Sequence[str]:
        host = url.raw_host.decode("ascii")
        try:
            addresses = await self._resolve(host, port_of(url))
        except (OSError, UnicodeError) as error:
            if isinstance(error, socket.gaierror) and error.errno == socket.EAI_AGAIN:
                raise FetchUnavailable("the host name does not resolve for now") from error
            raise FetchRefused("the host name does not resolve") from error
        if not addresses or not all(self._allowed(address) for address in addresses):
            raise FetchRefused("the host does not lie on public addresses only")
        return addresses[:ADDRESSES_MAX]

    async def _get_from_first(
        self, addresses: Sequence[str], url: httpx.URL, bytes_max: int, limits: httpx.Timeout
    ) -> bytes:
        for address in addresses[:-1]:
            try:
                return await self._get_from(address, url, bytes_max, limits)
            except (httpx.ConnectError, httpx.ConnectTimeout):
                continue
        return await self._get_from(addresses[-1], url, bytes_max, limits)

    async def _get_from(
        self, address: str, url: httpx.URL, bytes_max: int, limits: httpx.Timeout
    ) -> bytes:
        request = httpx.Request(
            "GET",
            url.copy_with(host=address),
            headers={
                "Host": url.netloc.decode("ascii"),
                "User-Agent": f"ourvidz/{__version__}",
                "Accept": "image/png, image/jpeg, image/webp",
                "Accept-Encoding": "identity",
            },
            extensions={
                "sni_hostname": url.raw_host.decode("ascii"),
                "timeout": limits.as_dict(),
            },
        )
        # One transport a fetch: a kept connection would be shared by the names on an address.
        async with httpx.AsyncHTTPTransport(verify=self._ssl) as transport:
            response = await transport.handle_async_request(request)
            try:
                _check_head(response, bytes_max)
                return await _read(response, bytes_max)
            finally:
                await response.aclose()


def _by_certificate(error: BaseException) -> bool:
    before = error.__context__
    while before is not None and not isinstance(before, ssl.SSLCertVerificationError):
        before = before.__context__
    return before is not None


def _check_head(response: httpx.Response, bytes_max: int) -> None:
    status = response.status_code
    if status == 429 or status >= 500:
        raise FetchUnavailable(f"the host answered {status}")
    if 300 <= status < 400:
        raise FetchRefused(f"the host answered {status}; redirects are not followed")
    if status != 200:
        raise FetchRefused(f"the host answered {status}")
    if response.headers.get("Content-Encoding", "identity").lower() != "identity":
        raise FetchRefused("the host answered with a content coding that was not asked for")
    length = response.headers.get("Content-Length", "")
    if length.isdecimal() and int(length) > bytes_max:
        raise FetchRefused(f"{length} bytes; at most {bytes_max} are allowed")


async def _read(response: httpx.Response, bytes_max: int) -> bytes:
    body = bytearray()
    async for chunk in response.aiter_raw():
        body += chunk
        if len(body) > bytes_max:
            raise FetchRefused(f"more than {bytes_max} bytes")
    return bytes(body)
