"""Where the queues lie, and the secrets that it takes."""

from __future__ import annotations

from typing import Any

import pytest

from ourvidz.config import ConfigError, load
from ourvidz.config.checks import queue_url

REST = {"UPSTASH_REDIS_REST_URL": "https://h.example", "UPSTASH_REDIS_REST_TOKEN": "t"}


def with_server(write: Any, *lines: str) -> Any:
    return write(("[http]", "\n".join(["[queue_server]", *lines, "[http]"])))


@pytest.mark.parametrize(
    ("lines", "environ", "url"),
    [
        (['kind = "redis"'], {"REDIS_URL": "rediss://:pa@h:6380/1"}, "rediss://:pa@h:6380/1"),
        (['kind = "redis"', 'url = "redis://h"'], {}, "redis://h"),
        (['kind = "redis"', 'url = "redis://h"'], {"REDIS_URL": "redis://i"}, "redis://i"),
        (['kind = "upstash"'], REST, "https://h.example"),
        (
            ['kind = "upstash"', 'url = "https://i.example"'],
            {"UPSTASH_REDIS_REST_TOKEN": "t"},
            "https://i.example",
        ),
        ([], {"REDIS_URL": "anything"}, ""),
    ],
)
def test_the_url_is_the_secret_or_the_files(
    write: Any, lines: list[str], environ: dict[str, str], url: str
) -> None:
    assert queue_url(load(with_server(write, *lines), environ)) == url


@pytest.mark.parametrize(
    ("lines", "environ", "says"),
    [
        (['kind = "redis"'], {}, "needs a URL, redis:// or rediss://, in queue_server.url"),
        (['kind = "redis"'], {}, "REDIS_URL_FILE or REDIS_URL"),
        (['kind = "redis"', 'url = "https://h"'], {}, "needs a URL, redis:// or rediss://"),
        (['kind = "upstash"'], {"UPSTASH_REDIS_REST_TOKEN": "t"}, "http:// or https://, in"),
        (
            ['kind = "upstash"', 'url = "https://h"'],
            {},
            "needs a secret: $CREDENTIALS_DIRECTORY/upstash_redis_rest_token",
        ),
        (['url = "redis://u:secret@h"'], {}, "and no password"),
        (['url = "ftp://h"'], {}, "and no password"),
        (["look_seconds_min = 20.0"], {}, "must not exceed look_seconds_max (15)"),
        (['kind = "redi"'], {}, "redis"),
    ],
)
def test_what_cannot_work_is_told(
    write: Any, lines: list[str], environ: dict[str, str], says: str
) -> None:
    with pytest.raises(ConfigError) as caught:
        load(with_server(write, *lines), environ)
    assert says in str(caught.value)
    assert "secret@" not in str(caught.value)


def test_no_queue_may_lie_where_leases_are_kept(write: Any) -> None:
    with pytest.raises(ConfigError, match="must not begin with ourvidz:"):
        load(write(("[queues.sdxl_queue]", '[queues."ourvidz:held"]')))
