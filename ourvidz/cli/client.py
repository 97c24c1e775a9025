"""The API as the verbs use it: where it is, one call, and what its errors mean here."""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any
from urllib.parse import quote

import httpx
import typer

from ourvidz import __version__
from ourvidz.cli.options import Layers
from ourvidz.config import is_loopback
from ourvidz.config.credentials import read_secrets
from ourvidz.config.urls import local_url
from ourvidz.errors import ConfigError, OurVidzError

# An answer that takes longer is none; long waits are asked for as events, which are kept alive.
TIMEOUT_SECONDS = 30.0
_CONNECT_SECONDS = 5.0


class ApiError(OurVidzError):
    """The service refuses the request."""


class Unavailable(OurVidzError):
    """The service does not answer now."""

    retryable = True


@dataclass(frozen=True, slots=True)
class Target:
    """A service. ``files`` is the folder that its assets' keys count from, where the configuration
    on this machine is the one that describes it."""

    url: str
    token: str | None = field(default=None, repr=False)
    files: Path | None = None

    def options(self) -> dict[str, Any]:
        """Arguments for the clients of httpx."""
        headers = {"User-Agent": f"ourvidz/{__version__}", "Accept": "application/json"}
        if self.token is not None:
            headers["Authorization"] = f"Bearer {self.token}"
        return {
            "base_url": self.url,
            "headers": headers,
            "timeout": httpx.Timeout(TIMEOUT_SECONDS, connect=_CONNECT_SECONDS),
            # A proxy of the environment cannot reach what listens on this machine.
            "trust_env": not is_loopback(httpx.URL(self.url).host),
        }


def target(layers: Layers, url: str | None) -> Target:
    """The service at ``url``, else the one that the configuration describes.

    With a ``url`` no configuration is read, only the token's places. Raises ``ConfigError`` or
    ``typer.BadParameter``.
    """
    if url:
        found, problems = read_secrets(os.environ)
        if problems:
            raise ConfigError(problems)
        token = found.get("ourvidz_token")
        return Target(_checked(url), token.value if token else None)
    settings = layers.settings(require_secrets=False)
    http, secret = settings.http, settings.secrets.ourvidz_token
    if not http.enabled or http.port == 0:
        reason = "takes a free port (http.port)" if http.enabled else "has no API (http.enabled)"
        raise typer.BadParameter(f"needed, for the configured service {reason}", param_hint="--url")
    return Target(
        local_url(http.host, http.port),
        secret.get_secret_value() if secret is not None else None,
        settings.store.dir / settings.store.bucket if settings.store.kind == "folder" else None,
    )


def job_path(job_id: str) -> str:
    """The path of a job's resource."""
    if not job_id.strip("."):
        raise typer.BadParameter(f"{job_id!r} is no job's id", param_hint="ID")
    return f"/jobs/{quote(job_id, safe='')}"


def call(
    service: Target,
    method: str,
    path: str,
    *,
    params: Mapping[str, Any] | None = None,
    content: bytes | None = None,
) -> Any:
    """One request; returns the JSON of the answer. Raises ``ApiError`` or ``Unavailable``."""
    headers = {"Content-Type": "application/json"} if content is not None else {}
    known = {name: value for name, value in (params or {}).items() if value is not None}
    try:
        with httpx.Client(**service.options()) as http:
            answer = http.request(method, path, params=known, content=content, headers=headers)
    except httpx.TransportError as error:
        raise unavailable(service, error) from error
    return checked(answer)


def unavailable(service: Target, error: httpx.TransportError) -> Unavailable:
    if isinstance(error, httpx.TimeoutException):
        return Unavailable(f"the service at {service.url} does not answer in time")
    reason = str(error) or type(error).__name__
    return Unavailable(
        f"no service answers at {service.url} ({reason}); start one with `ourvidz serve`, or name "
        "another with --url or OURVIDZ_URL"
    )


def checked(answer: httpx.Response) -> Any:
    """The JSON of a good answer that has been read. Raises ``ApiError`` or ``Unavailable``."""
    try:
        body = answer.json()
    except ValueError:
        body = None
    if not isinstance(body, dict):
        url, status = answer.url.copy_with(query=None), answer.status_code
        raise ApiError(f"{url} answers {status} and no JSON object: is that OurVidz?")
    if answer.is_success:
        return body
    detail = str(body.get("detail", f"{answer.url.path} answers {answer.status_code}"))
    hint = body.get("hint")
    kind = Unavailable if body.get("retryable") is True else ApiError
    raise kind(f"{detail} ({hint})" if hint else detail)


def _checked(url: str) -> str:
    try:
        parsed = httpx.URL(url)
    except httpx.InvalidURL as error:
        raise typer.BadParameter(f"{url!r}: {error}", param_hint="--url") from error
    if parsed.scheme not in ("http", "https") or not parsed.host:
        problem = f"{url!r} does not begin with http:// or https:// and a host"
        raise typer.BadParameter(problem, param_hint="--url")
    if parsed.userinfo:
        # It would be shown wherever the service is named.
        problem = "must not hold a name or password: the token is read from OURVIDZ_TOKEN"
        raise typer.BadParameter(problem, param_hint="--url")
    return url.rstrip("/")
