from __future__ import annotations

from pathlib import Path

import pytest


@pytest.fixture(scope="session")
def anyio_backend() -> str:
    return "asyncio"


@pytest.fixture(scope="session")
def tiny_root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Where this test run's tiny checkpoints lie; each family's maker fills its part on demand."""
    return tmp_path_factory.mktemp("tiny")
