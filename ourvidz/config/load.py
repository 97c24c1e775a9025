"""Loading the configuration: find the file, merge the layers, check the whole."""

from __future__ import annotations

import json
import os
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from pydantic import ValidationError

from ourvidz.config import findings, layers
from ourvidz.config.checks import secret_findings, table_findings
from ourvidz.config.schema import KeyPath, dotted
from ourvidz.config.settings import Settings
from ourvidz.config.toml_file import TomlFile, Unreadable, read_toml
from ourvidz.errors import ConfigError, Problem

FILE_NAME = "config.toml"
FILE_VARIABLE = "OURVIDZ_CONFIG"
# More would not be read, and each costs a search for the nearest key.
_PROBLEMS_MAX = 100


@dataclass(frozen=True, slots=True)
class Loaded:
    """The settings, their file, and for every key where its value came from, in words."""

    settings: Settings
    file: Path
    origins: Mapping[str, str]


def load(
    path: Path | None = None,
    environ: Mapping[str, str] | None = None,
    flags: Mapping[str, Any] | None = None,
    *,
    require_secrets: bool = True,
) -> Settings:
    """The effective settings: file < environment (``OURVIDZ__TABLE__KEY``) < flags (dotted keys).

    The file is ``path``, else ``$OURVIDZ_CONFIG``, else ``./config.toml``. ``environ`` is the
    process' own by default. ``require_secrets`` is for whoever serves: a command that only talks
    to a running service needs neither the callback's secret nor a token for the bind. Raises
    ``ConfigError`` with every problem found.
    """
    return load_with_origins(path, environ, flags, require_secrets=require_secrets).settings


def check(
    path: Path | None = None,
    environ: Mapping[str, str] | None = None,
    flags: Mapping[str, Any] | None = None,
) -> list[Problem]:
    """Every problem of a file, in its order; none if it can be used.

    With an ``environ`` also the problems of what it adds, and of secrets that are missing.
    """
    try:
        if environ is None:
            found = find_file(path, os.environ)
            load_with_origins(found, {}, flags, require_secrets=False)
        else:
            load_with_origins(path, environ, flags)
    except ConfigError as error:
        return list(error.problems)
    return []


def load_with_origins(
    path: Path | None = None,
    environ: Mapping[str, str] | None = None,
    flags: Mapping[str, Any] | None = None,
    *,
    require_secrets: bool = True,
) -> Loaded:
    """As ``load``, and where each value came from."""
    environ = os.environ if environ is None else environ
    try:
        file = read_toml(find_file(path, environ))
    except Unreadable as error:
        raise ConfigError([error.problem]) from error
    merge = _Merge(file, environ, flags or {})
    settings = merge.settings(require_secrets=require_secrets)
    return Loaded(settings, file.path, merge.origins(settings))


def find_file(path: Path | None, environ: Mapping[str, str]) -> Path:
    """The configuration file that is meant. Raises ``ConfigError`` if there is none."""
    if path is not None:
        return path
    if named := environ.get(FILE_VARIABLE):
        return Path(named)
    if Path(FILE_NAME).is_file():
        return Path(FILE_NAME)
    message = (
        f"there is no {FILE_NAME} in {Path.cwd()}: name one with --config or {FILE_VARIABLE}, "
        "or start where it lies"
    )
    raise ConfigError([Problem("configuration", None, "", None, message)])


class _Merge:
    """The layers of one load, the highest first, and what is wrong with them."""

    def __init__(
        self, file: TomlFile, environ: Mapping[str, str], flags: Mapping[str, Any]
    ) -> None:
        folder, here = file.path.parent.absolute(), Path.cwd()
        self._file = file
        self._of_file = layers.file_layer(file, folder)
        self._layers = (
            layers.secret_layer(environ),
            layers.flag_layer(flags, here),
            layers.environment_layer(environ, here),
            self._of_file,
            layers.default_layer(folder),
        )
        self._problems = {
            (problem.file, problem.key_path, problem.message): problem
            for layer in self._layers
            for problem in layer.problems
        }

    def settings(self, *, require_secrets: bool) -> Settings:
        """Raises ``ConfigError``."""
        self._check_file()
        try:
            settings = layers.Layered.merged(self._layers)
        except ValidationError as error:
            self._report(findings.errors(error, whole=True), self._layers)
            raise self._error() from None
        self._report(table_findings(settings), self._layers)
        if require_secrets:
            self._report(secret_findings(settings), self._layers)
        if self._problems:
            raise self._error()
        return settings

    def origins(self, settings: Settings) -> dict[str, str]:
        found = {}
        for path in layers.leaves(settings.model_dump(mode="python")):
            origin = next(filter(None, (layer.origin(path) for layer in self._layers)), "default")
            found[dotted(path)] = origin
        return found

    def _check_file(self) -> None:
        """The file's types are taken strictly: a number in quotes is no number there, while the
        environment has nothing but text. JSON has no dates; as lists of lists they fit no key."""
        text = json.dumps(self._of_file.data, default=lambda _date: [[]])
        try:
            Settings.model_validate_json(text, strict=True)
        except ValidationError as error:
            self._report(findings.errors(error, whole=False), (self._of_file,))

    def _report(
        self, wrong: Iterable[tuple[KeyPath, str | None]], held: Sequence[layers.Layer]
    ) -> None:
        for path, message in wrong:
            if len(self._problems) >= _PROBLEMS_MAX:
                return
            origin, line, value = self._place(path, held)
            problem = findings.problem(path, message, value, origin, line)
            self._problems.setdefault((origin, problem.key_path, problem.message), problem)

    def _place(self, path: KeyPath, held: Sequence[layers.Layer]) -> tuple[str, int | None, object]:
        """The origin, line and value of a key, or of the nearest table round it that is held."""
        for end in range(len(path), 0, -1):
            for layer in held:
                if origin := layer.origin(path[:end]):
                    line = self._file.line(path) if layer is self._of_file else None
                    return origin, line, findings.found_at(layer.data, path)
        return str(self._file.path), self._file.line(path), None

    def _error(self) -> ConfigError:
        own = str(self._file.path)
        in_order = sorted(self._problems.values(), key=lambda p: (p.file != own, p.line or 0))
        return ConfigError(in_order)
