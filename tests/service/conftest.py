"""A house that opens quickly: the receiver listens once for the whole session."""

from __future__ import annotations

import ssl
from collections.abc import AsyncIterator, Iterator
from pathlib import Path
from typing import Any

import pytest
from support import house
from support.house import OpenHouse

from ourvidz import logs
from ourvidz.adapters.receiver import Receiver

_SSL = ssl.create_default_context()


@pytest.fixture(autouse=True)
def plain_logs() -> None:
    """As in production: the development default draws every traceback with its locals."""
    logs.configure("json", "info", log_prompts=False)


@pytest.fixture(autouse=True)
def one_ssl_context(monkeypatch: pytest.MonkeyPatch) -> None:
    """Reading the authorities takes longer than most of what is tested here; nobody uses them."""
    monkeypatch.setattr("ssl.create_default_context", lambda *_, **__: _SSL)


@pytest.fixture(scope="session")
async def listener() -> AsyncIterator[Receiver]:
    async with Receiver(house.SECRET) as receiver:
        yield receiver


@pytest.fixture
def receiver(listener: Receiver, request: pytest.FixtureRequest) -> Iterator[Receiver]:
    """Empty, and with job ids of this test's own: a late callback of another's harms nobody."""
    listener.reset()
    with house.ids_of(request.node.nodeid):
        yield listener


@pytest.fixture
def open_house(receiver: Receiver, tmp_path: Path) -> OpenHouse:
    def open_(*args: Any, **options: Any) -> Any:
        options.setdefault("receiver", receiver)
        return house.open_house(options.pop("root", tmp_path), *args, **options)

    return open_
