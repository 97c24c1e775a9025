"""Letting the other tasks go on until they wait for something."""

from __future__ import annotations

import anyio


async def turns(count: int = 30) -> None:
    """Give every task that can go on its turn, so often. What waits for a thread or a timer goes on
    waiting. ``anyio.wait_all_tasks_blocked`` looks ten times a second, and never sees a loop at
    rest in which another task wakes up at the same beat."""
    for _ in range(count):
        await anyio.lowlevel.checkpoint()
