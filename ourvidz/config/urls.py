"""Addresses as URLs."""

from __future__ import annotations

import ipaddress

_LOOPBACK = {4: "127.0.0.1", 6: "::1"}


def local_url(host: str, port: int) -> str:
    """The URL at which this machine reaches a service that listens on ``host``: for one that
    listens on every address the loopback address."""
    try:
        address = ipaddress.ip_address(host)
    except ValueError:
        return f"http://{host}:{port}"
    if address.is_unspecified:
        host = _LOOPBACK[address.version]
    return f"http://[{host}]:{port}" if address.version == 6 else f"http://{host}:{port}"
