"""Which addresses and which hosts a reference may lie on."""

import httpx
import pytest

from ourvidz.adapters.addresses import is_public
from ourvidz.adapters.hosts import HostRule, parse_hosts

PUBLIC = ["8.8.8.8", "1.1.1.1", "2606:4700:4700::1111", "2a00:1450:4001:80b::200e"]
PUBLIC += ["64:ff9b::8.8.8.8"]
PRIVATE = {
    "loopback": "127.0.0.1",
    "loopback, any": "127.255.255.254",
    "this host": "0.0.0.0",
    "this network": "0.1.2.3",
    "private 10": "10.0.0.1",
    "private 172": "172.16.0.1",
    "private 192": "192.168.1.1",
    "shared": "100.64.0.1",
    "cloud metadata": "169.254.169.254",
    "protocol assignments": "192.0.0.1",
    "cloud metadata, assigned": "192.0.0.192",
    "cloud host": "168.63.129.16",
    "documentation": "192.0.2.1",
    "benchmarking": "198.18.0.1",
    "multicast": "224.0.0.1",
    "multicast, global": "233.252.0.1",
    "reserved": "240.0.0.1",
    "broadcast": "255.255.255.255",
    "v6 loopback": "::1",
    "v6 unspecified": "::",
    "v4-mapped loopback": "::ffff:127.0.0.1",
    "v4-mapped public": "::ffff:8.8.8.8",
    "v4-compatible loopback": "::127.0.0.1",
    "v4-compatible public": "::8.8.8.8",
    "nat64 loopback": "64:ff9b::127.0.0.1",
    "nat64 metadata": "64:ff9b::169.254.169.254",
    "nat64 multicast": "64:ff9b::e000:1",
    "nat64 local use": "64:ff9b:1::808:808",
    "6to4 loopback": "2002:7f00:1::",
    "6to4 public": "2002:808:808::1",
    "teredo": "2001:0:808:808:0:0:f7f7:f7f7",
    "unique local": "fd00:ec2::254",
    "link-local": "fe80::1",
    "link-local, scoped": "fe80::1%eth0",
    "public, scoped": "2606:4700:4700::1111%eth0",
    "site-local": "fec0::1",
    "v6 multicast": "ff02::1",
    "v6 documentation": "2001:db8::1",
    "v6 discard": "100::1",
    "no address": "localhost",
    "short form": "127.1",
    "number": "2130706433",
    "hexadecimal": "0x7f000001",
    "octal": "0177.0.0.1",
    "empty": "",
}


@pytest.mark.parametrize("address", PUBLIC)
def test_public(address: str) -> None:
    assert is_public(address)


@pytest.mark.parametrize("address", PRIVATE.values(), ids=PRIVATE)
def test_not_public(address: str) -> None:
    assert not is_public(address)


@pytest.mark.parametrize(
    ("rule", "host", "port", "allowed"),
    [
        ("good.test", "good.test", 443, True),
        ("GOOD.test", "good.test", 443, True),
        ("good.test", "a.good.test", 443, False),
        ("good.test", "notgood.test", 443, False),
        ("good.test", "good.test.evil.test", 443, False),
        ("good.test", "good.test", 8443, False),
        ("good.test:8443", "good.test", 8443, True),
        ("good.test:8443", "good.test", 443, False),
        ("*.good.test", "a.good.test", 443, True),
        ("*.good.test", "a.b.good.test", 443, True),
        ("*.good.test", "good.test", 443, False),
        ("*.good.test", "evilgood.test", 443, False),
        ("*.good.test:8443", "a.good.test", 8443, True),
        ("b\u00fccher.test", "xn--bcher-kva.test", 443, True),
        ("8.8.8.8", "8.8.8.8", 443, True),
        ("[2606:4700:4700::1111]", "2606:4700:4700::1111", 443, True),
    ],
)
def test_rules(rule: str, host: str, port: int, *, allowed: bool) -> None:
    assert HostRule.parse(rule).allows(host, port) is allowed


@pytest.mark.parametrize(
    "text",
    [
        "",
        "*",
        "*.",
        "*.com",
        "**.good.test",
        "a.*.test",
        "https://good.test",
        "good.test/path",
        "good.test?x",
        "good.test#x",
        "user@good.test",
        "good.test.",
        "good test",
        "good.test:0",
        "good.test:65536",
        "good.test:x",
        "-good.test",
        "a..b",
        "[::1",
        "good.test\\x",
        "good\n",
    ],
)
def test_what_is_no_host_is_refused_by_name(text: str) -> None:
    with pytest.raises(ValueError, match=r"references\.hosts: ") as caught:
        parse_hosts(["good.test", text])
    assert repr(text) in str(caught.value)


def test_the_parser_that_checks_is_the_parser_that_connects() -> None:
    """The library reads what is known to split other parsers as we take it to."""
    assert httpx.URL("https://good.test@127.0.0.1/").raw_host == b"127.0.0.1"
    assert httpx.URL("https://127.0.0.1#@good.test/").raw_host == b"127.0.0.1"
    assert httpx.URL("https://127.0.0.1?@good.test/").raw_host == b"127.0.0.1"
    assert httpx.URL("https://good.test:443:80@127.0.0.1/").raw_host == b"127.0.0.1"
