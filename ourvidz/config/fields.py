"""The kinds of value that the configuration's keys share: their bounds and how they are named."""

from __future__ import annotations

import re
from ipaddress import AddressValueError, IPv4Address, IPv6Address
from pathlib import Path
from typing import Annotated, Any, Literal
from urllib.parse import urlsplit
from uuid import UUID

from pydantic import AfterValidator, BeforeValidator, Field

_PORT_MAX = 65_535
_HOST_ALLOWED = (
    "a host name, host:port or *.suffix with a dot in the suffix, without scheme, path or user"
)
_HOST = re.compile(
    r"(?:\[(?P<address>[0-9a-f:.]+)\]|(?P<below>\*\.)?"
    r"(?P<name>[a-z0-9]([a-z0-9-]*[a-z0-9])?(\.[a-z0-9]([a-z0-9-]*[a-z0-9])?)*))"
    r"(?::(?P<port>[0-9]{1,5}))?",
    re.ASCII | re.IGNORECASE,
)
_DOTTED = re.compile(r"[0-9]+(\.[0-9]+){3}", re.ASCII)
_URL_ALLOWED = "an http:// or https:// URL with a host, or empty"
_SERVER_ALLOWED = (
    "a redis://, rediss://, http:// or https:// URL with a host and no password, or empty"
)


def _path_text(value: Any) -> Any:
    if isinstance(value, str) and (not value.strip() or "\0" in value):
        raise ValueError("must be a path, not empty")
    return value


def _none_if_empty(value: Any) -> Any:
    return None if value == "" else value


def _optional_url(value: str) -> str:
    if value == "":
        return value
    try:
        parts = urlsplit(value)
        usable = parts.scheme in ("http", "https") and bool(parts.hostname) and parts.port != 0
    except ValueError:
        usable = False
    if not usable or not value.isprintable() or " " in value:
        raise ValueError(f"must be {_URL_ALLOWED}")
    return value


def _server_url(value: str) -> str:
    """What needs a password has its place among the secrets."""
    if value == "":
        return value
    try:
        parts = urlsplit(value)
        known = parts.scheme in ("redis", "rediss", "http", "https")
        usable = known and bool(parts.hostname) and parts.port != 0 and not parts.password
    except ValueError:
        usable = False
    if not usable or not value.isprintable() or " " in value:
        raise ValueError(f"must be {_SERVER_ALLOWED}")
    return value


def _uuid_text(value: str) -> str:
    try:
        return str(UUID(value))
    except ValueError:
        raise ValueError("must be a UUID") from None


def _host_name(value: str) -> str:
    """Only what the guard of the references can read, or it would stop the service at its start."""
    match = _HOST.fullmatch(value)
    if match is None or not 0 < int(match["port"] or 443) <= _PORT_MAX:
        raise ValueError(f"must be {_HOST_ALLOWED}")
    try:
        if match["address"]:
            IPv6Address(match["address"])
        elif _DOTTED.fullmatch(match["name"]):
            IPv4Address(match["name"])
        usable = not match["below"] or "." in match["name"]
    except AddressValueError:
        usable = False
    if not usable:
        raise ValueError(f"must be {_HOST_ALLOWED}")
    return value


CurrentType = Literal["sdxl_generate", "wan_generate", "enhance_base", "enhance_instruct", "chat"]
Bytes = Annotated[int, Field(ge=0, le=10**15)]
Seconds = Annotated[float, Field(gt=0, le=10**7)]
Port = Annotated[int, Field(ge=0, le=65535)]
Share = Annotated[float, Field(ge=0, le=1)]
Factor = Annotated[float, Field(ge=0, le=10**6)]
LongSeconds = Annotated[float, Field(ge=0.1, le=10**9)]
FilePath = Annotated[Path, BeforeValidator(_path_text), Field(description="a path, not empty")]
Bandwidth = Annotated[float, Field(gt=0, le=10**15)]
Side = Annotated[int, Field(ge=8, le=16_384)]
Steps = Annotated[int, Field(ge=1, le=1000)]
Frames = Annotated[int, Field(ge=1, le=1000)]
Guidance = Annotated[float, Field(ge=0, le=100)]
Tokens = Annotated[int, Field(ge=1, le=1_000_000)]
SystemPrompt = Annotated[str, Field(min_length=1, max_length=4000)]
Name = Annotated[
    str,
    Field(
        pattern=r"^[a-z0-9]([_-]?[a-z0-9])*$",
        max_length=64,
        description="lower-case letters and digits with single _ or - between them, at most 64",
    ),
]
QueueName = Annotated[
    str,
    Field(
        pattern=r"^[a-z0-9]([_:-]?[a-z0-9])*$",
        max_length=64,
        description="lower-case letters and digits with single _, - or : between them, at most 64",
    ),
]
Bucket = Annotated[
    str,
    Field(
        pattern=r"^[a-z0-9][a-z0-9._-]{1,62}$",
        description="2 to 63 lower-case letters, digits, dots, _ or -, a letter or digit first",
    ),
]
HostName = Annotated[
    str,
    AfterValidator(_host_name),
    Field(max_length=253, description=_HOST_ALLOWED),
]
OptionalUrl = Annotated[
    str,
    AfterValidator(_optional_url),
    Field(description=_URL_ALLOWED),
]
ServerUrl = Annotated[
    str,
    AfterValidator(_server_url),
    Field(description=_SERVER_ALLOWED),
]
UuidText = Annotated[str, AfterValidator(_uuid_text), Field(description="a UUID")]
OptionalPath = Annotated[
    FilePath | None, BeforeValidator(_none_if_empty), Field(description="a path, or empty")
]
