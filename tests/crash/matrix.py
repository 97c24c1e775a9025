"""A worker is killed at every point there is, and what it left behind is put right by the next one.

    make crash                      every point
    make crash ONLY="Journal.fin"   those whose name holds this text

Prints a line a point, and at the end a line of JSON; the exit status is 1 if anything is wrong.
What became of the jobs is judged by ``support.history`` from outside, and compared with the same
jobs where nothing happened.
"""

from __future__ import annotations

import argparse
import os
import shutil
import sys
import tempfile
from collections import Counter
from collections.abc import AsyncIterator, Iterable, Mapping, Sequence
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import anyio
import orjson
from support.history import Kind, violations

from tests.crash.points import Point, points
from tests.crash.world import Lane, Outcome, open_lane

# Of these each has its own place in the summary; whatever else is wrong counts as ``other``.
COUNTED = {
    Kind.LOST: "lost",
    Kind.NOT_STORED: "lost",
    Kind.DUPLICATE_EFFECT: "duplicate_effects",
    Kind.AFTER_THE_END: "duplicate_effects",
    Kind.DIFFERENT_BYTES: "different_bytes",
}


@dataclass(slots=True)
class Summary:
    """What is wrong with a point is counted once for each way of being wrong."""

    points: int = 0
    killed: int = 0
    wrong: Counter[str] = field(default_factory=Counter)

    def add(self, outcome: Outcome, expected: Mapping[str, Any]) -> list[str]:
        """Returns what is wrong, in words."""
        found = violations(outcome.history)
        ways = {COUNTED.get(violation.kind, "other") for violation in found}
        told = [*map(str, found), *outcome.troubles]
        if outcome.troubles:
            ways.add("other")
        elif outcome.results != expected and not ways:
            ways.add("different_bytes")
            told.append("the results are not those of an undisturbed run")
        self.points += 1
        self.killed += outcome.killed
        self.wrong.update(ways)
        return told

    def skip(self, troubles: list[str]) -> list[str]:
        """A point whose scene fails by itself; returns what is wrong, in words."""
        self.points += 1
        self.wrong["other"] += 1
        return [f"undisturbed, {trouble}" for trouble in troubles]

    @property
    def good(self) -> bool:
        return not self.wrong and self.killed == self.points > 0

    def line(self) -> str:
        kinds = ("lost", "duplicate_effects", "different_bytes", "other")
        counts = {kind: self.wrong[kind] for kind in kinds}
        return orjson.dumps({"points": self.points, "killed": self.killed, **counts}).decode()


class Matrix:
    """Plays points on as many lanes as there are; what is expected of a scene is found out once."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._expected: dict[str, Mapping[str, Any] | list[str]] = {}
        self._lock = anyio.Lock()
        self.summary = Summary()

    async def play(self, lane: Lane, point: Point) -> list[str]:
        """Returns what is wrong, in words."""
        expected = await self._undisturbed(lane, point.scene)
        if isinstance(expected, list):
            return self.summary.skip(expected)
        with tempfile.TemporaryDirectory(dir=self._folder) as folder:
            outcome = await lane.play(Path(folder), point)
            wrong = self.summary.add(outcome, expected)
            if wrong:
                kept = self._folder / "failed" / str(self.summary.points)
                shutil.copytree(folder, kept)
                wrong.append(f"its files are kept in {kept}")
        return wrong

    async def _undisturbed(self, lane: Lane, scene: str) -> Mapping[str, Any] | list[str]:
        """The results; or in words what is wrong with the scene without any death."""
        async with self._lock:
            if scene not in self._expected:
                with tempfile.TemporaryDirectory(dir=self._folder) as folder:
                    outcome = await lane.undisturbed(Path(folder), scene)
                found = [*map(str, violations(outcome.history)), *outcome.troubles]
                self._expected[scene] = found or outcome.results
        return self._expected[scene]


@asynccontextmanager
async def open_matrix(lanes: int) -> AsyncIterator[tuple[Matrix, Sequence[Lane]]]:
    """Its files go when the block is left, unless something was wrong."""
    folder = Path(tempfile.mkdtemp(prefix="crash-"))
    matrix = Matrix(folder)
    async with AsyncExitStack() as stack:
        opened = [await stack.enter_async_context(open_lane(folder)) for _ in range(lanes)]
        yield matrix, opened
    if not (folder / "failed").exists():
        shutil.rmtree(folder)


async def main(wanted: Sequence[Point], lanes: int) -> bool:
    left = iter(wanted)
    async with open_matrix(lanes) as (matrix, opened), anyio.create_task_group() as tasks:

        async def work(lane: Lane, mine: Iterable[Point]) -> None:
            for point in mine:
                wrong = await matrix.play(lane, point)
                said = [f"{'WRONG' if wrong else 'ok'}  {point}", *(f"    {w}" for w in wrong)]
                sys.stdout.write("\n".join(said) + "\n")
                sys.stdout.flush()

        for lane in opened:
            tasks.start_soon(work, lane, left)
    sys.stdout.write(f"{matrix.summary.line()}\n")
    return matrix.summary.good


def run(arguments: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--only", default="", help="points whose name holds this text")
    parser.add_argument("--lanes", type=int, default=os.cpu_count() or 1, help="how many at a time")
    given = parser.parse_args(arguments)
    wanted = [point for point in points() if given.only in str(point)]
    return 0 if anyio.run(main, wanted, given.lanes) else 1


if __name__ == "__main__":
    sys.exit(run())
