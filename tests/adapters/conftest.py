from __future__ import annotations

from pathlib import Path

import pytest
from support.stored import CONTENT, VIDEO


@pytest.fixture
def picture(tmp_path: Path) -> Path:
    path = tmp_path / "picture"
    path.write_bytes(CONTENT)
    return path


@pytest.fixture
def video(tmp_path: Path) -> Path:
    path = tmp_path / "video"
    path.write_bytes(VIDEO)
    return path
