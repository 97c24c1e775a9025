"""The layers of the configuration: defaults, file, environment, flags; a later one wins.

Every layer makes its paths absolute: those of the file and of the defaults count from the file's
folder, those of the environment and of flags from the working directory.
"""

from __future__ import annotations

import copy
import json
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from pydantic_settings import (
    BaseSettings,
    EnvSettingsSource,
    InitSettingsSource,
    SettingsConfigDict,
)

from ourvidz.config import credentials, schema
from ourvidz.config.findings import PREFIX, found_at, secret_here, unusable
from ourvidz.config.schema import KeyPath
from ourvidz.config.settings import Settings
from ourvidz.config.toml_file import TomlFile
from ourvidz.errors import Problem

COMMAND_LINE = "command line"


class Layered(Settings, BaseSettings):
    """Settings as pydantic-settings merges them from the sources it is given."""

    model_config = SettingsConfigDict(
        extra="forbid", frozen=True, env_prefix=PREFIX, env_nested_delimiter="__"
    )

    @classmethod
    def merged(cls, given: Iterable[Layer]) -> Settings:
        """The settings of these layers, the highest first. Raises ``ValidationError``."""
        sources = tuple(InitSettingsSource(cls, layer.data) for layer in given)
        values: dict[str, Any] = {"_build_sources": (sources, {})}
        return Settings(**dict(cls(**values)))


@dataclass(frozen=True, slots=True)
class Layer:
    """One source's values as nested tables, without those that were refused.

    ``origins`` tells, in words, where each value that was given came from.
    """

    data: dict[str, Any]
    problems: list[Problem] = field(default_factory=list)
    origins: dict[KeyPath, str] = field(default_factory=dict)

    def origin(self, path: KeyPath) -> str | None:
        """Where the value at ``path``, or something in the table at ``path``, came from."""
        if found_at(self.data, path) is None:
            return None
        for end in range(len(path), 0, -1):
            if path[:end] in self.origins:
                return self.origins[path[:end]]
        inside = (o for at, o in self.origins.items() if at[: len(path)] == path)
        return next(inside, None)


def default_layer(base: Path) -> Layer:
    """The default paths, which would otherwise stay relative. Other defaults are the classes'."""
    data: dict[str, Any] = {}
    for path in schema.paths():
        default = (schema.node(path) or {}).get("default")
        if "*" not in path and default is not None:
            _put(data, path, default)
    _make_absolute(data, base)
    return Layer(data, origins=dict.fromkeys(leaves(data), "default"))


def file_layer(file: TomlFile, base: Path) -> Layer:
    layer = Layer(copy.deepcopy(file.data))
    for path in tuple(leaves(layer.data)):
        if problem := secret_here(path, str(file.path), file.line(path)):
            layer.problems.append(problem)
            table = found_at(layer.data, path[:-1])
            del table[path[-1]]
        else:
            layer.origins[path] = str(file.path)
    layer.data.pop("secrets", None)
    _make_absolute(layer.data, base)
    return layer


def environment_layer(environ: Mapping[str, str], base: Path) -> Layer:
    """The variables that start with the prefix, in upper or lower case."""
    layer = Layer({})
    known: dict[str, str] = {}
    # A whole table comes before the keys inside it, which refine it.
    for name in sorted(environ, key=lambda name: (name.count("__"), name)):
        if not name.upper().startswith(PREFIX):
            continue
        path = tuple(name[len(PREFIX) :].lower().split("__"))
        origin = f"environment variable {name}"
        if problem := unusable(path, environ[name], origin):
            layer.problems.append(problem)
        else:
            known[name.lower()] = environ[name]
            layer.origins[path] = origin
    source = EnvSettingsSource(Layered)
    source.env_vars = known
    layer.data.update(source())
    _make_absolute(layer.data, base)
    return layer


def flag_layer(flags: Mapping[str, Any], base: Path) -> Layer:
    """Flags by dotted key; one whose value is ``None`` was not given. Tables and lists may be JSON
    text, as in the environment."""
    layer = Layer({})
    for key in sorted(flags, key=lambda key: (key.count("."), key)):
        value, path = flags[key], tuple(key.split("."))
        if value is None:
            continue
        if problem := unusable(path, value, COMMAND_LINE):
            layer.problems.append(problem)
            continue
        if isinstance(value, str) and schema.is_container(schema.node(path) or {}):
            value = json.loads(value)
        _put(layer.data, path, copy.deepcopy(value))
        layer.origins[path] = COMMAND_LINE
    _make_absolute(layer.data, base)
    return layer


def secret_layer(environ: Mapping[str, str]) -> Layer:
    found, problems = credentials.read_secrets(environ)
    data = {"secrets": {name: secret.value for name, secret in found.items()}}
    return Layer(data, problems, {("secrets", name): s.origin for name, s in found.items()})


def _put(data: dict[str, Any], path: KeyPath, value: Any) -> None:
    for part in path[:-1]:
        inner = data.setdefault(str(part), {})
        if not isinstance(inner, dict):
            return
        data = inner
    data[str(path[-1])] = value


def leaves(data: Any, path: KeyPath = ()) -> Iterator[KeyPath]:
    """The paths of everything that is no table; a list counts as one value."""
    if isinstance(data, dict):
        for key, value in data.items():
            yield from leaves(value, (*path, key))
    elif path:
        yield path


def _make_absolute(data: Any, base: Path) -> None:
    for pattern in schema.paths():
        for table, key in _matches(data, pattern):
            value = table[key]
            # What is no usable path stays as it is, for the validation to report.
            if isinstance(value, Path) or (isinstance(value, str) and value.strip()):
                table[key] = str(base / value)


def _matches(data: Any, pattern: KeyPath) -> Iterator[tuple[dict[Any, Any], Any]]:
    if not isinstance(data, dict):
        return
    keys = list(data) if pattern[0] == "*" else [key for key in data if key == pattern[0]]
    for key in keys:
        if len(pattern) == 1:
            yield data, key
        else:
            yield from _matches(data[key], pattern[1:])
