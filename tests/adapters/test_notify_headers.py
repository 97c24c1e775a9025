"""What goes into a callback's headers and is read from its answer's."""

import re
from uuid import UUID

import pytest

from ourvidz.adapters.http_answers import auth_headers, retry_after
from ourvidz.adapters.notify_http import EVENT_ID_CHARACTERS_MAX, header_id

EVENT = "0d4a9f9e-0d5c-4b0e-8f60-ff7f5b1f0f7d.completed"
NOW = 1_790_000_000.7


@pytest.mark.parametrize(
    ("key", "headers"),
    [
        (None, {}),
        ("", {}),
        (" \n", {}),
        ("eyJx.y.z", {"apikey": "eyJx.y.z", "Authorization": "Bearer eyJx.y.z"}),
        ("eyJx.y.z\n", {"apikey": "eyJx.y.z", "Authorization": "Bearer eyJx.y.z"}),
        ("sb_secret_abc", {"apikey": "sb_secret_abc"}),
        ("other", {"apikey": "other"}),
    ],
)
def test_auth_headers(key: str | None, headers: dict[str, str]) -> None:
    assert auth_headers(key) == headers


@pytest.mark.parametrize("key", ["eyJ\r\nX: y", "sb_secret_\u00e9", "a b", "a\0b"])
def test_a_key_that_no_header_can_carry_is_refused(key: str) -> None:
    with pytest.raises(ValueError, match="service key") as caught:
        auth_headers(key)
    assert key not in str(caught.value)


@pytest.mark.parametrize(
    ("header", "seconds"),
    [
        (None, None),
        ("", None),
        ("soon", None),
        ("-5", None),
        ("1.5", None),
        ("\u0665", None),
        ("0", 0.0),
        (" 30 ", 30.0),
        ("999999999999", 86_400.0),
        ("9" * 5000, None),
        ("Sun, 06 Nov 1994 08:49:37 GMT", 0.0),
        ("Mon, 21 Sep 2026 14:14:00 GMT", 39.3),
        ("Fri, 31 Dec 9999 23:59:59 GMT", 86_400.0),
        ("Tue, 99 Sep 2026 14:14:00 GMT", None),
    ],
)
def test_retry_after(header: str | None, seconds: float | None) -> None:
    assert retry_after(header, NOW) == (None if seconds is None else pytest.approx(seconds))


def test_ids_as_headers_carry_them() -> None:
    assert header_id(EVENT) == EVENT
    assert header_id("a\r\nX: y") == "a%0D%0AX:%20y"
    assert header_id("\u732b\0%") == "%E7%8C%AB%00%25"
    assert header_id("\ud800") == "?"
    long = header_id("x" * (EVENT_ID_CHARACTERS_MAX + 1))
    assert re.fullmatch("[0-9a-f]{64}", long)
    assert long != header_id("x" * (EVENT_ID_CHARACTERS_MAX + 2))
    assert header_id(f"{UUID(int=0)}.failed") == f"{UUID(int=0)}.failed"
