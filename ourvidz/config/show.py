"""The effective configuration as TOML, with what must not be shown redacted."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from pydantic import SecretStr

from ourvidz.config.schema import KeyPath, dotted
from ourvidz.config.settings import Settings
from ourvidz.redact import REDACTED, redact


def show(settings: Settings, origins: Mapping[str, str] | None = None) -> str:
    """The settings as TOML text. With ``origins`` (of ``load_with_origins``) every line says in a
    comment where its value came from. Keys without a value (no default, not given) are left out.
    """
    return "\n".join(_table(settings.model_dump(), (), origins or {})) + "\n"


def _table(table: Mapping[str, Any], path: KeyPath, origins: Mapping[str, str]) -> Iterator[str]:
    inner = {key: value for key, value in table.items() if isinstance(value, dict)}
    plain = {k: v for k, v in table.items() if k not in inner and v is not None}
    if path and (plain or not inner):
        yield ""
        yield f"[{dotted(path)}]"
    for key, value in plain.items():
        where = origins.get(dotted((*path, key)))
        comment = f"  # {where}" if where else ""
        yield f"{dotted((key,))} = {_value(value)}{comment}"
    for key, value in inner.items():
        yield from _table(value, (*path, key), origins)


def _value(value: Any) -> str:
    if isinstance(value, SecretStr):
        return f'"{REDACTED}"'
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, list | tuple):
        return "[" + ", ".join(_value(item) for item in value) + "]"
    if isinstance(value, str | Path):
        # JSON's escapes are a part of TOML's; only DEL is left alone by the one, not the other.
        return json.dumps(redact(str(value)), ensure_ascii=False).replace("\x7f", "\\u007f")
    return repr(value)
