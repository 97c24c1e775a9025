"""How what is wrong is said: the problem of a key, of a value, and of pydantic's errors."""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Any

from pydantic import ValidationError

from ourvidz.config import credentials, schema
from ourvidz.config.schema import KeyPath, dotted
from ourvidz.config.table import CROSS_FIELD
from ourvidz.errors import Problem
from ourvidz.redact import REDACTED, names_secret, redact

PREFIX = "OURVIDZ__"
# Errors that only the merged layers can show: another layer may hold what one of them lacks.
_OF_THE_WHOLE = ("missing", CROSS_FIELD)


def variable(path: KeyPath) -> str:
    """The environment's name for a key."""
    return PREFIX + "__".join(str(part) for part in path).upper()


def problem(
    path: KeyPath, message: str | None, value: object, origin: str, line: int | None = None
) -> Problem:
    """The problem of one key; without a ``message`` the key itself is unknown."""
    if isinstance(value, str):
        guarded = message is None and names_secret(str(path[-1]))
        value = REDACTED if guarded else redact(value)
    if message is not None:
        return Problem(origin, line, dotted(path), value, message)
    meant = schema.nearest(path)
    hint = None
    if meant is not None:
        hint = variable(meant) if origin.startswith("environment") else dotted(meant)
    known = [key for key in schema.siblings(path) if key != "secrets"]
    where = f"[{dotted(path[:-1])}]" if len(path) > 1 else "the root"
    message = f"unknown key; {where} knows {', '.join(known)}" if known else "unknown key"
    return Problem(origin, line, dotted(path), value, message, hint)


def secret_here(path: KeyPath, origin: str, line: int | None = None) -> Problem | None:
    """The problem of a secret in a place that is no place for secrets."""
    name = credentials.secret_called(str(path[-1]))
    if name is None and path[0] != "secrets":
        return None
    places = credentials.belongs(name) if name else "a credential file or the environment"
    message = f"a secret must not stand here: it belongs in {places}"
    return Problem(origin, line, dotted(path), REDACTED, message)


def unusable(path: KeyPath, value: object, origin: str) -> Problem | None:
    """What is wrong with a key of the environment or of a flag before its value is looked at."""
    if misplaced := secret_here(path, origin):
        return misplaced
    found = schema.node(path)
    if found is None:
        return problem(path, None, value, origin)
    if isinstance(value, str) and schema.is_container(found):
        try:
            fits = isinstance(json.loads(value), dict if found["type"] == "object" else list)
        except (ValueError, RecursionError):
            fits = False
        if not fits:
            return problem(path, f"{must(path)}, as JSON", value, origin)
    return None


def must(path: KeyPath) -> str:
    return f"must be {schema.allowed(path)}"


def errors(error: ValidationError, *, whole: bool) -> Iterator[tuple[KeyPath, str | None]]:
    """Each error's key path and message; ``None`` is an unknown key.

    ``whole`` is false where one layer was validated alone.
    """
    for details in error.errors(include_url=False, include_input=False):
        kind = details["type"]
        if not whole and kind in _OF_THE_WHOLE:
            continue
        path: KeyPath = details["loc"]
        if kind == "extra_forbidden":
            yield path, None
        elif kind == CROSS_FIELD:
            yield (*path, details["ctx"]["key"]), details["msg"]
        elif path and path[-1] == "[key]":
            yield path[:-1], f"the name must be {schema.allowed_name(path[:-1])}"
        elif kind == "missing":
            yield path, f"is required and {must(path)}"
        else:
            yield path, must(path)


def found_at(data: Any, path: KeyPath) -> Any:
    """What nested tables hold at ``path``, ``None`` where there is nothing."""
    for part in path:
        try:
            data = data[part]
        except (KeyError, IndexError, TypeError):
            return None
    return data
