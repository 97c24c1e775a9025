"""What a rendered file says about itself, in two forms.

``parameters`` is the line format that A1111, Forge and Civitai read; ``ourvidz`` is JSON with
everything. Both follow from the job and the library versions alone: no time, id or host, so that
the same job gives the same bytes.
"""

from __future__ import annotations

import functools
import json
import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from importlib.metadata import PackageNotFoundError, version
from types import MappingProxyType
from typing import Any

from ourvidz import __version__

_LIBRARIES = ("torch", "diffusers", "transformers", "pillow", "av")
_UNWRITABLE = re.compile("[\0\ud800-\udfff]")
_REPLACEMENT = "\N{REPLACEMENT CHARACTER}"
_QUOTED = re.compile(r'[,:"\n]')

Value = str | int | float


@dataclass(frozen=True, slots=True)
class FileMeta:
    """``parameters`` are A1111's names in the order in which they are written (``Steps`` first);
    ``details`` is what the JSON holds: finite JSON values only."""

    prompt: str
    negative_prompt: str = ""
    parameters: Mapping[str, Value] = field(default_factory=dict)
    details: Mapping[str, Any] = field(default_factory=dict)

    @property
    def parameters_text(self) -> str:
        """Prompt, ``Negative prompt:`` line where there is one, parameter line."""
        parts = [self.prompt] if self.prompt else []
        if self.negative_prompt:
            parts.append(f"Negative prompt: {self.negative_prompt}")
        if self.parameters:
            parts.append(", ".join(f"{name}: {_value(v)}" for name, v in self.parameters.items()))
        return _writable("\n".join(parts))

    @property
    def details_json(self) -> str:
        """Sorted keys. Raises ``ValueError`` or ``TypeError`` for what JSON does not know."""
        text = json.dumps(
            dict(self.details),
            ensure_ascii=False,
            sort_keys=True,
            allow_nan=False,
            separators=(",", ":"),
        )
        return _writable(text)


def _writable(text: str) -> str:
    """NUL ends a text chunk and lone surrogates have no UTF-8: each becomes U+FFFD."""
    return _UNWRITABLE.sub(_REPLACEMENT, text)


def _value(value: Value) -> str:
    """Text with a separator in it is quoted as a JSON string, which the known readers undo."""
    if isinstance(value, float) and value.is_integer():
        value = int(value)
    text = str(value)
    return json.dumps(text, ensure_ascii=False) if _QUOTED.search(text) else text


@functools.cache
def library_versions() -> Mapping[str, str]:
    """Installed versions of what shapes the bytes, read without importing any of it."""
    found = {"ourvidz": __version__}
    for name in _LIBRARIES:
        try:
            found[name] = version(name)
        except PackageNotFoundError:
            continue
    return MappingProxyType(found)
