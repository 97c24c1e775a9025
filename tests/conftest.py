from __future__ import annotations

import logging
from collections.abc import Iterator
from importlib import import_module
from pathlib import Path

import pytest
import structlog
from support.redis_process import RedisProcess, redis_process


@pytest.fixture(scope="session")
def anyio_backend() -> str:
    return "asyncio"


@pytest.fixture(scope="session")
def tiny_root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Where this test run's tiny checkpoints lie; each family's maker fills its part on demand."""
    return tmp_path_factory.mktemp("tiny")


@pytest.fixture(scope="session")
def redis() -> Iterator[RedisProcess]:
    """One server for the whole session; who uses it empties it first."""
    with redis_process() as process:
        yield process


# Who tries again: with what pause first, and with which at most, where it grows.
_RETRYING = (
    "adapters.database",
    "adapters.queue_shared",
    "adapters.references_repeated",
    "adapters.upstash_events",
    "service.claims",
    "service.intake",
)
_PAUSES = {"_RETRY_SECONDS": 0.001, "_RETRY_SECONDS_MAX": 0.01}


@pytest.fixture
def quick_retries(monkeypatch: pytest.MonkeyPatch) -> None:
    """Who tries again does so within milliseconds."""
    for name in _RETRYING:
        module = import_module(f"ourvidz.{name}")
        for constant in _PAUSES.keys() & vars(module).keys():
            monkeypatch.setattr(module, constant, _PAUSES[constant])


@pytest.fixture(autouse=True)
def logging_as_it_was() -> Iterator[None]:
    """What a test configures is undone, so that tests may run in any order."""
    before = structlog.get_config()
    known = [logging.getLogger(), *map(logging.getLogger, logging.root.manager.loggerDict)]
    state = [(logger, logger.handlers[:], _set_up(logger)) for logger in known]
    yield
    structlog.configure(**before)
    for logger, handlers, (level, propagate, disabled) in state:
        if logger.handlers != handlers:
            logger.handlers[:] = handlers
        if _set_up(logger) != (level, propagate, disabled):
            logger.setLevel(level)
            logger.propagate, logger.disabled = propagate, disabled


def _set_up(logger: logging.Logger) -> tuple[int, bool, bool]:
    return logger.level, logger.propagate, logger.disabled
