"""Exit codes, and how a known failure is told to whoever typed the command.

0 done; 1 it failed; 2 the command line is wrong; 70 a defect stopped the service; 75 it failed and
may succeed later, as where the device failed; 78 the configuration is wrong, and a restart will not
help; 130 somebody stopped waiting for a job.
"""

from __future__ import annotations

import os
from collections.abc import Callable
from typing import Final

import typer

from ourvidz.errors import (
    EX_CONFIG,
    ConfigError,
    DataDirError,
    DeviceFailed,
    DeviceMissing,
    OurVidzError,
)

FAILED: Final = 1
INTERRUPTED: Final = 130


def guarded(command: Callable[[], object]) -> None:
    """Run ``command``; a known failure becomes a line on standard error and an exit code."""
    try:
        command()
    except (OurVidzError, ExceptionGroup) as error:
        known = expected(error)
        if known is None:
            raise
        typer.echo(message(known), err=True)
        raise SystemExit(code_of(known)) from None


def expected(error: Exception) -> OurVidzError | None:
    """The known failure behind ``error``, the first one of a group that holds nothing else."""
    while isinstance(error, ExceptionGroup):
        rest = error.split(OurVidzError)[1]
        if rest is not None:
            return None
        error = error.exceptions[0]
    return error if isinstance(error, OurVidzError) else None


def device_failure(error: BaseException) -> DeviceFailed | None:
    """The device's failure, if it is behind ``error``: what else is in the group came of it."""
    while isinstance(error, BaseExceptionGroup):
        found = error.subgroup(DeviceFailed)
        if found is None:
            return None
        error = found.exceptions[0]
    return error if isinstance(error, DeviceFailed) else None


def message(error: OurVidzError) -> str:
    """Problems of the configuration stand as they are, one a line: each begins with its file."""
    return str(error) if isinstance(error, ConfigError) else f"ourvidz: {error}"


def code_of(error: OurVidzError) -> int:
    if error.retryable:
        return os.EX_TEMPFAIL
    configured = isinstance(error, ConfigError | DataDirError | DeviceMissing)
    return EX_CONFIG if configured else FAILED
