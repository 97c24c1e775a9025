"""Who may ask: bearers of the token; without one, whoever is on this machine and no web page.

A service without a token listens on a loopback address only; configuration sees to that. A browser
on the same machine still reaches it, on behalf of any page it shows, so two things are refused
then: a ``Host`` that is not this machine (a name of the attacker's that resolves to it), and a
request that the browser marks as sent by another site.
"""

from __future__ import annotations

import hashlib
import hmac
import re

from starlette.datastructures import Headers
from starlette.types import ASGIApp, Receive, Scope, Send

from ourvidz.config import Settings, is_loopback
from ourvidz.http.problems import FOREIGN_HOST, FOREIGN_ORIGIN, UNAUTHORIZED, HttpProblem

# Read by supervisors and load balancers, which have no token.
OPEN_PATHS = frozenset({"/health", "/ping"})
_HOST = re.compile(r"(\[[0-9A-Fa-f:.]+\]|[A-Za-z0-9._-]+)(:[0-9]{1,5})?")


class Guard:
    """ASGI middleware: answers 401 or 403, or passes the request on."""

    def __init__(self, app: ASGIApp, settings: Settings) -> None:
        self._app = app
        token = settings.secrets.ourvidz_token
        self._token = None if token is None else _digest(token.get_secret_value().encode())
        self._host = settings.http.host.lower()

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        try:
            if scope["type"] == "http":
                self._check(scope)
        except HttpProblem as problem:
            await problem.response(scope)(scope, receive, send)
            return
        await self._app(scope, receive, send)

    def _check(self, scope: Scope) -> None:
        headers = Headers(scope=scope)
        if self._token is None:
            self._check_host(headers)
            _check_origin(headers, scope["scheme"])
        elif scope["path"] not in OPEN_PATHS:
            _check_token(headers, self._token)

    def _check_host(self, headers: Headers) -> None:
        """HTTP/1.0 knows no ``Host``; no browser speaks it."""
        given = headers.get("host")
        if given is None:
            return
        match = _HOST.fullmatch(given)
        host = match.group(1).strip("[]").lower() if match else ""
        if host != self._host and not is_loopback(host):
            raise HttpProblem(
                FOREIGN_HOST,
                "Host: must be this machine while there is no token",
                hint="address the service as localhost, or set OURVIDZ_TOKEN",
            )


def _check_token(headers: Headers, token: bytes) -> None:
    """Digests are compared, so that the time taken tells neither the token nor its length."""
    given = headers.getlist("authorization")
    scheme, _, credentials = given[0].partition(" ") if len(given) == 1 else ("", "", "")
    digest = _digest(credentials.strip().encode("latin-1"))
    if hmac.compare_digest(digest, token) and scheme.lower() == "bearer":
        return
    challenge = 'Bearer realm="ourvidz"'
    if given:
        challenge += ', error="invalid_token"'
    raise HttpProblem(
        UNAUTHORIZED,
        "Authorization: not the token" if given else "Authorization: missing",
        hint="send `Authorization: Bearer <token>` with the service's OURVIDZ_TOKEN",
        headers={"WWW-Authenticate": challenge},
    )


def _check_origin(headers: Headers, scheme: str) -> None:
    """Browsers name the page's origin whenever its site may not read the answer, or may not ask."""
    origins = headers.getlist("origin")
    own = f"{scheme}://{headers.get('host', '')}".lower()
    site = headers.get("sec-fetch-site", "none")
    if any(origin.lower() != own for origin in origins) or site not in ("none", "same-origin"):
        raise HttpProblem(
            FOREIGN_ORIGIN,
            "Origin: pages of other sites may not use the service while there is no token",
            hint="call the service from a program, or set OURVIDZ_TOKEN",
        )


def _digest(text: bytes) -> bytes:
    return hashlib.sha256(text).digest()
