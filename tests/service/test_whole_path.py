"""Jobs through the whole service: queue to signed callback, over the fake device."""

from __future__ import annotations

from pathlib import Path

import pytest
from support.house import open_house, payload

pytestmark = pytest.mark.anyio


async def test_an_image_job_goes_from_queue_to_callback(
    tmp_path: Path,
) -> None:
    async with open_house(tmp_path) as house:
        await house.push("sdxl_queue", payload("a", batch_size=3, seed=7))
        body = await house.ended("a")
        assert body["status"] == "completed"
        assert [a["metadata"]["seed"] for a in body["assets"]] == [7, 8, 9]
        for asset in body["assets"]:
            assert (tmp_path / "store" / "workspace-temp" / asset["url"]).is_file()
        assert await house.status("a") == "completed"
        assert all(c.signature_valid for c in house.receiver.callbacks)
