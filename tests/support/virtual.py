"""An event loop whose clock jumps to the next timer instead of waiting for it."""

from __future__ import annotations

import asyncio
import selectors
from collections.abc import Awaitable, Callable
from typing import Any

import anyio

# A timer is due when its time has come: a sum of differences may fall short of it by a rounding.
_NUDGE_SECONDS = 1e-9


class _JumpingSelector(selectors.SelectSelector):
    now = 0.0

    def select(self, timeout: float | None = None) -> list[tuple[selectors.SelectorKey, int]]:
        found = super().select(0)
        if not found:
            assert timeout is not None, "everything waits, and nothing will happen any more"
            self.now += timeout + _NUDGE_SECONDS if timeout > 0 else 0.0
        return found


class VirtualLoop(asyncio.SelectorEventLoop):
    """No thread may take part: while one works, time would run away."""

    def __init__(self) -> None:
        self._jumping = _JumpingSelector()
        super().__init__(self._jumping)

    def time(self) -> float:
        return self._jumping.now


def run_virtually(main: Callable[[], Awaitable[Any]]) -> Any:
    """Run a coroutine function to its end in virtual time."""
    return anyio.run(main, backend_options={"loop_factory": VirtualLoop})


class LoopClock:
    """``ports.Clock`` of the running loop."""

    def monotonic(self) -> float:
        return asyncio.get_running_loop().time()

    def wall(self) -> float:
        return self.monotonic()
