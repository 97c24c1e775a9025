"""What the tests of the stores put, and where."""

from __future__ import annotations

from pathlib import Path

from support.raw_http import Request
from support.rclone import BUCKET

from ourvidz.ports import AssetStore

KEY = "u/j/0.png"
NAME = f"{BUCKET}/{KEY}"
CONTENT = b"picture"
# Less than any service allows, so that parts are small.
PART_BYTES = 1 << 18
SMALL = {"multipart_bytes": PART_BYTES, "part_bytes": PART_BYTES}
VIDEO = bytes(range(256)) * 2600  # three parts, the last one short


async def put(store: AssetStore, path: Path) -> None:
    await store.put(BUCKET, KEY, path, "image/png")


async def as_usual(request: Request) -> None:
    """Planned among others: this one is answered as always."""
