"""The root of the service's exceptions, and those that stop it."""

from __future__ import annotations

import json
from collections.abc import Iterable
from dataclasses import dataclass
from typing import ClassVar, Final

from ourvidz.redact import redact

# sysexits.h: the configuration is wrong, and a restart will not help.
EX_CONFIG: Final = 78
_VALUE_CHARACTERS = 80


class OurVidzError(Exception):
    """The service could not do what was asked."""

    retryable: ClassVar[bool] = False

    def __init__(self, message: str | None = None) -> None:
        super().__init__(message or (type(self).__doc__ or "").strip())


class DataDirError(OurVidzError):
    """The data directory (``service.data_dir``) cannot hold the journal."""


class DataDirBusy(DataDirError):
    """Another service works in the data directory (``service.data_dir``)."""

    retryable = True


class DataDirUnavailable(DataDirError):
    """The disk of the data directory (``service.data_dir``) takes nothing for now."""

    retryable = True


class DeviceMissing(OurVidzError):
    """The configured device is not there (``device.kind``, ``device.index``)."""


class DeviceFailed(OurVidzError):
    """The device can serve nobody any more in this process; a new one may find it well."""

    retryable = True


@dataclass(frozen=True, slots=True)
class Problem:
    """One thing that is wrong with the configuration.

    ``file`` is the file, or in words where else the value came from; ``line`` counts from 1.
    ``key_path`` is dotted and empty where the problem is the file's. ``value`` is what was found,
    already redacted, ``None`` where nothing was. ``message`` says what is allowed; ``nearest`` is
    the known key that was probably meant, spelled as it belongs there.
    """

    file: str
    line: int | None
    key_path: str
    value: object
    message: str
    nearest: str | None = None

    def __str__(self) -> str:
        where = self.file if self.line is None else f"{self.file}:{self.line}"
        found = f" = {shown(self.value)}" if self.value is not None else ""
        key = f" {self.key_path}{found}:" if self.key_path else ""
        hint = f"; did you mean {self.nearest}?" if self.nearest else ""
        return f"{where}:{key} {self.message}{hint}"


class ConfigError(OurVidzError):
    """The configuration is wrong; correct what it names and start again."""

    def __init__(self, problems: Iterable[Problem]) -> None:
        self.problems = tuple(problems)
        super().__init__("\n".join(str(problem) for problem in self.problems))


def shown(value: object) -> str:
    """A value in one short printable line, as the file would spell it."""
    if isinstance(value, dict):
        return "{...}" if value else "{}"
    if isinstance(value, list | tuple):
        return "[...]" if value else "[]"
    if isinstance(value, str):
        text = redact(value[:10_000])
        if len(text) > _VALUE_CHARACTERS:
            text = f"{text[:_VALUE_CHARACTERS]}..."
        return json.dumps(text, ensure_ascii=not text.isprintable())
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, int) and value.bit_length() > 64:
        return f"an integer of {value.bit_length()} bits"
    return str(value)
