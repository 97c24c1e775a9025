"""A drain ends what retries: cancelling is no failure to be tried again."""

from __future__ import annotations

from collections import Counter
from pathlib import Path

import pytest
import structlog
from support.house import open_house, payload

pytestmark = pytest.mark.anyio

JOBS = 40


async def test_a_drain_with_jobs_left_claims_none_of_them_again(tmp_path: Path) -> None:
    with structlog.testing.capture_logs() as logs:
        async with open_house(tmp_path) as house:
            for number in range(JOBS):
                await house.push("sdxl_queue", payload(str(number)))
    seen = Counter(line["event"] for line in logs)
    assert seen["job_claimed"] <= JOBS
    assert seen["queue_unavailable"] == 0
