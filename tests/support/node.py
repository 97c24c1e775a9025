"""The official npm client, run by Node."""

from __future__ import annotations

import shutil
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import anyio
import orjson

FOLDER = Path(__file__).parents[1] / "node"


async def npm_client(url: str, token: str, *calls: Sequence[Any]) -> list[Any]:
    """``@upstash/redis`` with its defaults: method and arguments of each call; what each gave as
    ``{"result": ...}`` or ``{"error": ...}``."""
    node = shutil.which("node")
    assert node is not None, "the tests need Node"
    assert (FOLDER / "node_modules").is_dir(), "run `make .venv/node`"
    given = orjson.dumps({"url": url, "token": token, "calls": calls})
    ran = await anyio.run_process([node, str(FOLDER / "client.mjs")], input=given)
    results: list[Any] = orjson.loads(ran.stdout)
    return results
