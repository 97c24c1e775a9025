"""The hosts of references: what the check lets through, the guard of the references can read."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import ValidationError

from ourvidz.adapters.hosts import parse_hosts
from ourvidz.config.settings import References

GOOD = [
    "a",
    "Files.Example.org",
    "a-b.c:8443",
    "*.example.org",
    "*.x.org:1",
    "1.2.3.4",
    "[2a00::1]",
]
BAD = [
    "", "*", "*.com", "a.*", "*a.org", "::1", "[::1", "[zz]", "[:]", "[fe80::1%eth0]", "a:0",
    "a:65536", "a:x", "a.", ".a", "a..b", "-a.b", "a-.b", "https://a", "a/b", "u@a", "a b",
    "0177.0.0.1", "1.2.3.256", "a" * 254, "\N{KELVIN SIGN}.org",
]  # fmt: skip
CHARACTERS = st.text(alphabet="aZ09*.:[]-_/@% ", min_size=1, max_size=12)


@pytest.mark.parametrize("host", GOOD)
def test_hosts_ports_suffixes_and_addresses_are_allowed(host: str) -> None:
    assert References(hosts=(host,)).hosts == (host,)
    assert len(parse_hosts([host])) == 1


@pytest.mark.parametrize("host", BAD)
def test_everything_else_is_refused_before_the_service_starts(host: str) -> None:
    with pytest.raises(ValidationError):
        References(hosts=(host,))


@given(host=CHARACTERS)
def test_what_is_allowed_can_be_read(host: str) -> None:
    try:
        References(hosts=(host,))
    except ValidationError:
        return
    assert len(parse_hosts([host])) == 1
