"""What only the embedded queues have: bounds on what nobody reads."""

from __future__ import annotations

from pathlib import Path

import anyio
import pytest
from support.queues import LEFT, OTHER, EmbeddedWorld, embedded
from support.turns import turns

from ourvidz.adapters import queue_embedded
from ourvidz.ports import QueueFull

pytestmark = pytest.mark.anyio


async def refuse(world: EmbeddedWorld, raw: bytes) -> None:
    await world.source.push(LEFT, raw)
    await world.source.claim(LEFT, raw[:32].hex(), 60)
    await world.source.dead_letter(raw[:32].hex(), "why")


@pytest.mark.parametrize(
    ("name", "bound"), [("_DEAD_LETTERS_MAX", 3), ("_DEAD_LETTERS_BYTES_MAX", 300)]
)
async def test_the_oldest_dead_letters_go(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str, bound: int
) -> None:
    monkeypatch.setattr(queue_embedded, name, bound)
    async with embedded(tmp_path) as world:
        assert isinstance(world, EmbeddedWorld)
        for number in range(6):
            await refuse(world, str(number).encode() * 100)
        left = [raw[:1] for _, raw, _ in await world.dead_letters()]
        assert left == [b"3", b"4", b"5"]
        await refuse(world, b"6" * 1000)
        left = [raw[:1] for _, raw, _ in await world.dead_letters()]
        assert left == ([b"6"] if "BYTES" in name else [b"4", b"5", b"6"])


async def test_a_full_queue_says_so(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(queue_embedded, "_ELEMENTS_MAX", 3)
    async with embedded(tmp_path) as world:
        for raw in (b"a", b"b", b"c"):
            await world.source.push(LEFT, raw)
        claimed = await world.source.claim(LEFT, "mine", 60)
        with pytest.raises(QueueFull, match="left_queue holds 3"):
            await world.source.push(LEFT, b"d")
        await world.source.push(OTHER, b"beside")
        assert claimed is not None
        await world.source.acknowledge(claimed.claim_id)
        await world.source.push(LEFT, b"d")


async def test_who_waits_looks_once_for_each_call(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Another may have been quicker; then it waits again, and does not turn round and round."""
    async with embedded(tmp_path) as world:
        assert isinstance(world, EmbeddedWorld)
        source, looks = world.source, 0
        depth = source.depth

        async def counting(queue: str) -> int:
            nonlocal looks
            looks += 1
            return await depth(queue)

        monkeypatch.setattr(source, "depth", counting)
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(source.wait, LEFT, 600)
            for _ in range(3):
                await turns()
                await depth(LEFT)
                source._wake(LEFT)
            for _ in range(10):
                await turns()
                await depth(LEFT)
            tasks.cancel_scope.cancel()
        assert looks == 4
