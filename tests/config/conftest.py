"""A small configuration file to break in one place at a time."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

SMALL = """\
[service]
data_dir = "state"

[device]
kind = "cpu"
index = 0

[http]
port = 7860

[limits]
steps = { min = 1, max = 150 }

[enhancement]
sdxl = "one"
wan = "two"

[models.sdxl]
family = "sdxl"
path = "models/sdxl"

[queues.sdxl_queue]
types = ["sdxl_generate"]

[legacy_types.sdxl_image_fast]
type = "sdxl_generate"
job_class = "fast"
steps = 15
guidance_scale = 6.0
width = 1024
height = 1024
"""

Write = Callable[..., Path]


@pytest.fixture
def write(tmp_path: Path) -> Write:
    """``write((old, new), ...)``: the small file with texts replaced, each of which must be there;
    ``write(text=...)``: another text."""

    def make(*changes: tuple[str, str], text: str = SMALL) -> Path:
        for old, new in changes:
            assert text.count(old) == 1, f"{old!r} is there {text.count(old)} times"
            text = text.replace(old, new)
        path = tmp_path / "config.toml"
        path.write_text(text, encoding="utf-8")
        return path

    return make
