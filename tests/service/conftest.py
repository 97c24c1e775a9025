"""A house that opens quickly: the receiver listens once for the whole session."""

from __future__ import annotations

import logging
from collections.abc import AsyncIterator, Iterator
from pathlib import Path
from typing import Any

import pytest
import structlog
from support import house
from support.house import OpenHouse

from ourvidz import logs
from ourvidz.adapters.receiver import Receiver


@pytest.fixture(scope="module", autouse=True)
def plain_logs() -> Iterator[None]:
    """As in production: the development default draws every traceback with its locals. The rest
    of the tests find logging as it was."""
    before, root = structlog.get_config(), logging.getLogger()
    handlers, level = root.handlers[:], root.level
    logs.configure("json", "info", log_prompts=False)
    yield
    structlog.configure(**before)
    root.handlers[:] = handlers
    root.setLevel(level)


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
