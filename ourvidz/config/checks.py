"""What must hold between tables, and between the configuration and its secrets."""

from __future__ import annotations

import base64
import ipaddress
from collections.abc import Iterator
from urllib.parse import urlsplit

from ourvidz.config import credentials
from ourvidz.config.schema import KeyPath, dotted
from ourvidz.config.settings import Settings
from ourvidz.errors import ConfigError, Problem

Finding = tuple[KeyPath, str]
# What stands beside the queues on a Redis server.
_RESERVED = "ourvidz:"
# As Standard Webhooks marks a secret whose key is the base64 behind it.
ENCODED_KEY = "whsec_"


def table_findings(settings: Settings) -> Iterator[Finding]:
    """What is wrong between tables, whatever the secrets are."""
    for key, table in (("models", settings.models), ("queues", settings.queues)):
        if not table:
            yield (key,), "must name at least one"
    for name in settings.queues:
        if name.startswith(_RESERVED):
            yield ("queues", name), f"must not begin with {_RESERVED}, where leases are kept"
    taken: dict[str, str] = {}
    for name, queue in settings.queues.items():
        for index, job_type in enumerate(queue.types):
            if taken.setdefault(job_type, name) != name:
                yield ("queues", name, "types", index), f"must not also be in {taken[job_type]}"
    weights = settings.scheduler.class_weights
    for name, legacy in settings.legacy_types.items():
        if legacy.job_class not in weights:
            known = ", ".join(weights) or "none"
            path = ("legacy_types", name, "job_class")
            yield path, f"must be a class of scheduler.class_weights: {known}"


def secret_findings(settings: Settings) -> Iterator[Finding]:
    """What is configured and cannot work, or would be unsafe, without a secret that is missing."""
    if settings.callback.url and settings.secrets.job_callback_secret is None:
        yield ("callback", "url"), f"needs a secret: {credentials.belongs('job_callback_secret')}"
    yield from _signing_findings(settings)
    yield from _store_findings(settings)
    yield from _queue_findings(settings)
    yield from _bind_findings(settings)


def queue_url(settings: Settings) -> str:
    """The URL of the queues' server, empty where none is given."""
    secrets, server = settings.secrets, settings.queue_server
    secret = secrets.redis_url if server.kind == "redis" else secrets.upstash_redis_rest_url
    return server.url if secret is None else secret.get_secret_value()


def check_bind(settings: Settings) -> None:
    """Raise ``ConfigError`` if the API would be reachable from outside without a token."""
    problems = [
        Problem("configuration", None, dotted(path), settings.http.host, message)
        for path, message in _bind_findings(settings)
    ]
    if problems:
        raise ConfigError(problems)


def is_loopback(host: str) -> bool:
    """Whether ``host`` can only be reached from this machine. A name other than ``localhost`` is
    not looked up and counts as reachable."""
    if host.lower() == "localhost":
        return True
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False


def _signing_findings(settings: Settings) -> Iterator[Finding]:
    secret = settings.secrets.job_callback_secret
    text = "" if secret is None else secret.get_secret_value()
    presigned = settings.store.kind == "presigned"
    if not text.startswith(ENCODED_KEY) or not (settings.callback.url or presigned):
        return
    try:
        key = base64.b64decode(text.removeprefix(ENCODED_KEY), validate=True)
    except ValueError:
        key = b""
    if not key:
        places = credentials.belongs("job_callback_secret")
        path = ("callback", "url") if settings.callback.url else ("store", "kind")
        yield path, f"needs base64 behind {ENCODED_KEY} in the secret: {places}"


def _store_findings(settings: Settings) -> Iterator[Finding]:
    needed = {
        "folder": (),
        "s3": ("s3_access_key_id", "s3_secret_access_key"),
        "presigned": ("job_callback_secret",),
    }[settings.store.kind]
    for name in needed:
        if getattr(settings.secrets, name) is None:
            yield ("store", "kind"), f"needs a secret: {credentials.belongs(name)}"


def _queue_findings(settings: Settings) -> Iterator[Finding]:
    kind, path = settings.queue_server.kind, ("queue_server", "kind")
    if kind == "embedded":
        return
    name = "redis_url" if kind == "redis" else "upstash_redis_rest_url"
    schemes = ("redis", "rediss") if kind == "redis" else ("http", "https")
    if urlsplit(queue_url(settings)).scheme not in schemes:
        allowed = " or ".join(f"{scheme}://" for scheme in schemes)
        places = credentials.belongs(name)
        yield path, f"needs a URL, {allowed}, in queue_server.url, or a secret: {places}"
    if kind == "upstash" and settings.secrets.upstash_redis_rest_token is None:
        places = credentials.belongs("upstash_redis_rest_token")
        yield path, f"needs a secret: {places}"


def _bind_findings(settings: Settings) -> Iterator[Finding]:
    http = settings.http
    if http.enabled and not is_loopback(http.host) and settings.secrets.ourvidz_token is None:
        places = credentials.belongs("ourvidz_token")
        yield ("http", "host"), f"must be a loopback address unless there is a token: {places}"
