"""Questions to the shape of the configuration: what is known, what is allowed, what was meant.

A key path is a tuple of the keys from the root on; entries of a list appear as integers. Where a
table takes names (``models``), a pattern holds ``*`` in the name's place.
"""

from __future__ import annotations

import difflib
import json
import re
from collections.abc import Iterator, Mapping
from functools import cache
from typing import Any

from ourvidz.config.settings import Secrets, Settings

KeyPath = tuple[str | int, ...]
Node = Mapping[str, Any]

SECRET_NAMES = tuple(Secrets.model_fields)
_BARE_KEY = re.compile(r"[A-Za-z0-9_-]+|\*")


def dotted(path: KeyPath) -> str:
    """A key path as one would write it: ``models.sdxl.path``, ``references.hosts[0]``."""
    text = ""
    for part in path:
        if isinstance(part, int):
            text += f"[{part}]"
        else:
            key = part if _BARE_KEY.fullmatch(part) else json.dumps(part)
            text += f".{key}" if text else key
    return text


def node(path: KeyPath) -> Node | None:
    """The schema of what lies at ``path``, or ``None`` if the configuration knows no such key."""
    found: Node | None = _root()
    for part in path:
        if found is None:
            return None
        found = _child(found, part)
    return found


def patterns() -> tuple[KeyPath, ...]:
    """The path of every key that holds a value, secrets left out, in the order of the classes."""
    return tuple(path for path in _leaves(_root(), ()) if path[0] != "secrets")


def paths() -> tuple[KeyPath, ...]:
    """The patterns of the keys that hold a file or folder."""
    return tuple(p for p in patterns() if _is_path(node(p) or {}))


def is_container(found: Node) -> bool:
    """Whether the value is a table or a list, which the environment gives as JSON."""
    return found.get("type") in ("object", "array")


def allowed(path: KeyPath) -> str:
    """What may stand at ``path``, to follow "must be"."""
    found = node(path)
    return _describe(found) if found else "left out"


def allowed_name(path: KeyPath) -> str:
    """What an entry of the table round ``path`` may be called."""
    return str((node(path[:-1]) or {}).get("propertyNames", {}).get("description", "text"))


def siblings(path: KeyPath) -> tuple[str, ...]:
    """The keys that the table round ``path`` knows; none where it takes any name."""
    parent = node(path[:-1])
    return tuple(parent.get("properties", ())) if parent else ()


def nearest(path: KeyPath) -> KeyPath | None:
    """The known key that ``path`` was probably meant to be: a neighbour first, else elsewhere."""
    depth = next(n for n in range(len(path), -1, -1) if node(path[:n]) is not None)
    wrong, rest = str(path[depth]), path[depth + 1 :]
    known = [k for k in siblings(path[: depth + 1]) if k != "secrets"]
    if match := difflib.get_close_matches(wrong.lower(), known, 1, 0.6):
        candidate = (*path[:depth], match[0], *rest)
        if node(candidate) is not None:
            return candidate
        return nearest(candidate)
    same_name = [p for p in patterns() if p[-1] == path[-1]]
    if same_name:
        return same_name[0]
    everything = {dotted(p): p for p in patterns()}
    close = difflib.get_close_matches(dotted(path).lower(), everything, 1, 0.75)
    return everything[close[0]] if close else None


@cache
def _root() -> Node:
    return Settings.model_json_schema()


def _resolved(found: Node) -> Node:
    while "$ref" in found:
        found = _root()["$defs"][found["$ref"].rsplit("/", 1)[1]]
    options = [o for o in found.get("anyOf", ()) if o.get("type") != "null"]
    if not options:
        return found
    return {**_resolved(options[0]), **{k: v for k, v in found.items() if k != "anyOf"}}


def _child(parent: Node, part: str | int) -> Node | None:
    if isinstance(part, int):
        child = parent.get("items")
    else:
        child = parent.get("properties", {}).get(part) or _named(parent)
    return _resolved(child) if child else None


def _named(parent: Node) -> Node | None:
    for entries in parent.get("patternProperties", {}).values():
        return _resolved(entries)
    return None


def _leaves(found: Node, path: KeyPath) -> Iterator[KeyPath]:
    if found.get("type") != "object":
        yield path
        return
    for key, child in found.get("properties", {}).items():
        yield from _leaves(_resolved(child), (*path, key))
    if entries := _named(found):
        yield from _leaves(entries, (*path, "*"))


def _is_path(found: Node) -> bool:
    return found.get("format") == "path"


def _describe(found: Node) -> str:
    if "enum" in found:
        return "one of " + ", ".join(json.dumps(choice) for choice in found["enum"])
    if found.get("type") == "object":
        return "a table"
    if found.get("type") == "array":
        return f"a list of: {_describe(_resolved(found['items']))}"
    if "description" in found:
        return str(found["description"])
    if _is_path(found):
        return "a path"
    words = {"integer": "an integer", "number": "a number", "boolean": "true or false"}
    return f"{words.get(found.get('type', ''), 'text')}{_bounds(found)}"


def _bounds(found: Node) -> str:
    text = ""
    if "minimum" in found:
        text += f" from {found['minimum']}"
    if "exclusiveMinimum" in found:
        text += f" above {found['exclusiveMinimum']}"
    if "maximum" in found:
        text += f" to {found['maximum']}" if "minimum" in found else f", at most {found['maximum']}"
    if "minLength" in found:
        text += f" of {found['minLength']} to {found.get('maxLength', 'any number of')} characters"
    return text
