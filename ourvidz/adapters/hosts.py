"""The hosts that a fetch on a stranger's behalf may name, as the operator lists them."""

from __future__ import annotations

import re
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Self

import httpx

HTTPS_PORT = 443
PORT_MAX = 65535
_NAME = re.compile(r"[a-z0-9_]([a-z0-9_-]*[a-z0-9])?(\.[a-z0-9]([a-z0-9-]*[a-z0-9])?)*")


@dataclass(frozen=True, slots=True)
class HostRule:
    """``host`` is in IDNA form; with ``subdomains`` it stands for every name below it."""

    host: str
    port: int
    subdomains: bool

    @classmethod
    def parse(cls, text: str) -> Self:
        """Read ``host``, ``host:port`` or ``*.suffix``. Raises ``ValueError`` for anything else."""
        subdomains = text.startswith("*.")
        try:
            url = httpx.URL(f"https://{text.removeprefix('*.')}")
        except httpx.InvalidURL as error:
            raise ValueError(f"references.hosts: {text!r}: {error}") from error
        host = url.raw_host.decode("ascii")
        bare = url.raw_path == b"/" and not url.userinfo and not url.fragment
        named = _NAME.fullmatch(host) is not None or ":" in host
        port = port_of(url)
        if not (bare and named and 0 < port <= PORT_MAX) or (subdomains and "." not in host):
            raise ValueError(
                f"references.hosts: {text!r} is not allowed; "
                "allowed: a host name, host:port, *.suffix with a dot in the suffix"
            )
        return cls(host, port, subdomains)

    def allows(self, host: str, port: int) -> bool:
        if port != self.port:
            return False
        return host.endswith(f".{self.host}") if self.subdomains else host == self.host


def parse_hosts(texts: Iterable[str]) -> tuple[HostRule, ...]:
    """The operator's list. Raises ``ValueError`` that names the wrong entry."""
    return tuple(HostRule.parse(text) for text in texts)


def port_of(url: httpx.URL) -> int:
    """The port that an https URL means; 0 is a port, not the absence of one."""
    return HTTPS_PORT if url.port is None else url.port
