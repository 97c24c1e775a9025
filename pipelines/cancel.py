"""Cancellation inside a step: a module's blocks ask the run's token before they compute."""

from __future__ import annotations

import contextlib
import threading
import traceback
from collections.abc import Iterator
from typing import Any

from torch import nn

from pipelines.base import CancelToken, RunCancelled

_CONVOLUTIONS = (nn.Conv1d, nn.Conv2d, nn.Conv3d)


class _Active(threading.local):
    token: CancelToken | None = None


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


@contextlib.contextmanager
def active(token: CancelToken) -> Iterator[None]:
    """Make ``token`` the one that this thread's blocks ask.

    An exception leaves with its frames' locals cleared: a traceback that somebody keeps would keep
    latents and activations alive with it.
    """
    previous, _active.token = _active.token, token
    cancelled = False
    try:
        token.check()
        yield
    except RunCancelled as error:
        _forget_frames(error)
        cancelled = True
    except BaseException as error:
        _forget_frames(error)
        raise
    finally:
        _active.token = previous
    if cancelled:
        raise RunCancelled


def _forget_frames(error: BaseException) -> None:
    traceback.clear_frames(error.__traceback__)
    if isinstance(error, RunCancelled):
        # It becomes the context of the one that is raised instead.
        error.__traceback__ = None
