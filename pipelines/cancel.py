"""Cancellation inside a step: a module's blocks ask the run's token before they compute."""

from __future__ import annotations

import threading
import traceback
from collections.abc import Sequence
from types import TracebackType
from typing import Any, Protocol

from torch import nn

from pipelines.base import CancelToken, RunCancelled

_CONVOLUTIONS = (nn.Conv1d, nn.Conv2d, nn.Conv3d)


class StopSign(Protocol):
    """A ``CancelToken``, or several read as one."""

    def check(self) -> None:
        """Raise ``RunCancelled`` if the step is to stop."""


class AllOf:
    """The stop sign of a step that several runs take together: up once it is up for all of them."""

    def __init__(self, tokens: Sequence[CancelToken]) -> None:
        self._tokens = tokens

    def check(self) -> None:
        if all(token.cancelled for token in self._tokens):
            raise RunCancelled


class _Active(threading.local):
    token: StopSign | None = None


_active = _Active()


def watch(module: nn.Module) -> None:
    """Hook the module's repeated blocks (every child of a ``ModuleList`` or ``Sequential``) and its
    convolutions; called once. Costs under 1 % of a step."""
    watched: set[nn.Module] = set()
    for child in module.modules():
        if isinstance(child, nn.ModuleList | nn.Sequential):
            watched.update(child.children())
        if isinstance(child, _CONVOLUTIONS):
            watched.add(child)
    for block in watched:
        block.register_forward_pre_hook(_check)


def _check(_module: nn.Module, _args: Any) -> None:
    if _active.token is not None:
        _active.token.check()


class active:  # noqa: N801 - reads as the verb it is: ``with active(token):``
    """Make ``token`` the one that this thread's blocks ask; it is asked on entry and exit too.

    An exception leaves with its frames' locals cleared, ``RunCancelled`` without its frames: who
    keeps the exception would keep latents and activations alive with it.
    """

    def __init__(self, token: StopSign) -> None:
        self._token = token
        self._previous: StopSign | None = None

    def __enter__(self) -> None:
        self._token.check()
        self._previous, _active.token = _active.token, self._token

    def __exit__(
        self,
        _kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        _active.token = self._previous
        if error is None:
            self._token.check()
            return
        traceback.clear_frames(trace)
        if isinstance(error, RunCancelled):
            # A cleared frame still holds its function, and a closure's cells with it.
            error.__traceback__ = None
