"""Which network addresses a fetch on a stranger's behalf may connect to."""

from __future__ import annotations

import ipaddress

_GLOBAL_V6 = ipaddress.IPv6Network("2000::/3")
# Of the first, which holds a cloud's metadata address, older Pythons take most for global; the
# second is a cloud's host, reachable from every machine on it.
_REFUSED_V4 = (ipaddress.IPv4Network("192.0.0.0/24"), ipaddress.IPv4Network("168.63.129.16/32"))
_NAT64 = ipaddress.IPv6Network("64:ff9b::/96")


def is_public(address: str) -> bool:
    """Whether ``address`` is a unicast address of the public internet.

    Of IPv6 only global unicast counts, so neither v4-mapped, v4-compatible nor site-local forms;
    6to4 and Teredo do not, as they lead to whatever IPv4 address they embed. A NAT64 address, which
    is how a v6-only network shows the v4 internet, is judged by the address inside. Anything that
    is no address, or carries a scope, is not public.
    """
    try:
        ip = ipaddress.ip_address(address)
    except ValueError:
        return False
    if isinstance(ip, ipaddress.IPv4Address):
        return _is_public_v4(ip)
    if ip.scope_id is not None:
        return False
    if ip in _NAT64:
        return _is_public_v4(ipaddress.IPv4Address(ip.packed[-4:]))
    return ip in _GLOBAL_V6 and ip.is_global and ip.sixtofour is None


def _is_public_v4(ip: ipaddress.IPv4Address) -> bool:
    refused = ip.is_multicast or ip.is_reserved or any(ip in network for network in _REFUSED_V4)
    return ip.is_global and not refused
