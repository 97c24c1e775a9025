"""Weights between disk, host and device: one move at a time, in a thread of its own.

A stage or load that is called off ends at its next block, see ``pipelines.component``.
"""

from __future__ import annotations

from collections.abc import Callable

import anyio
import structlog

from ourvidz.adapters.device_errors import describe_and_release, raise_if_lost
from pipelines.base import CancelToken, RunCancelled
from pipelines.component import Component
from pipelines.faults import is_out_of_memory
from pipelines.weights import CheckpointError
from scheduler import messages as m
from scheduler.types import Fault

log = structlog.get_logger()


class Moves:
    """Carries out moves and calls them off. Used on the event loop only."""

    def __init__(self) -> None:
        self._thread = anyio.CapacityLimiter(1)
        self._under_way: dict[str, CancelToken] = {}

    async def carry_out(self, move: m.Move, component: Component) -> m.Moved:
        """The move's terminal event. Raises ``DeviceFailed``, and what else an ``Evict`` or
        ``Unstage`` raises."""
        match move:
            case m.Stage(name):
                return await self._transfer(_stage, name, component)
            case m.Load(name):
                return await self._transfer(_load, name, component)
            case m.Evict(name):
                await anyio.to_thread.run_sync(_leave, component.evict, limiter=self._thread)
                return m.Evicted(name)
            case m.Unstage(name):
                await anyio.to_thread.run_sync(_leave, component.unstage, limiter=self._thread)
                return m.Unstaged(name)

    def abort(self, name: str) -> None:
        """Call off the component's stage or load, if one is under way."""
        if name in self._under_way:
            self._under_way[name].cancel()

    async def _transfer(
        self,
        transfer: Callable[[str, Component, CancelToken], m.Moved],
        name: str,
        component: Component,
    ) -> m.Moved:
        token = self._under_way[name] = CancelToken()
        try:
            return await anyio.to_thread.run_sync(
                transfer, name, component, token, limiter=self._thread
            )
        finally:
            del self._under_way[name]


def _stage(name: str, component: Component, token: CancelToken) -> m.Moved:
    try:
        component.stage(token)
    except RunCancelled:
        return m.Aborted(name)
    except CheckpointError as error:
        return m.StageFailed(name, str(error), permanent=True)
    except Exception as error:
        raise_if_lost(error)
        log.exception("stage_failed", component=name)
        return m.StageFailed(name, describe_and_release(error), permanent=False)
    return m.StageSucceeded(name)


def _load(name: str, component: Component, token: CancelToken) -> m.Moved:
    try:
        component.load(token)
    except RunCancelled:
        return m.Aborted(name)
    except Exception as error:
        raise_if_lost(error)
        log.exception("load_failed", component=name)
        fault = Fault.OUT_OF_MEMORY if is_out_of_memory(error) else Fault.LOAD
        return m.LoadFailed(name, describe_and_release(error), fault)
    return m.LoadSucceeded(name)


def _leave(move: Callable[[], None]) -> None:
    try:
        move()
    except Exception as error:
        raise_if_lost(error)
        raise
