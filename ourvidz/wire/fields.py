"""Typed readers over a payload's fields, which collect warnings and name the guilty field."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

from ourvidz.config.jobs import Range
from ourvidz.jobs import ErrorCode
from ourvidz.wire.names import GROUPS, METADATA_KEYS, PATHS, PRIVATE, SILENT
from ourvidz.wire.unwrap import describe
from ourvidz.wire.values import (
    FieldError,
    Found,
    check_range,
    choose,
    cut,
    flag,
    number,
    shown,
    whole,
)

_NAMES_MAX = 12


class Fields:
    """One payload. A field whose value is null is absent; a key that no reader asked for is unused.

    Every reader returns ``None`` (a flag: false) for an absent field and raises ``FieldError`` for
    one that cannot be executed.
    """

    def __init__(self, body: Mapping[str, Any], warnings: Iterable[str] = ()) -> None:
        self._body = body
        self._groups: dict[str, Mapping[str, Any]] = {"": body}
        for group in GROUPS:
            value = body.get(group)
            self._groups[group] = value if isinstance(value, dict) else {}
        self._found: dict[str, Found | None] = {}
        self._known: set[tuple[str, str]] = set()
        self._warnings = list(warnings)

    @property
    def warnings(self) -> tuple[str, ...]:
        return tuple(dict.fromkeys(self._warnings))

    def warn(self, text: str) -> None:
        self._warnings.append(text)

    def ignore(self, found: Found, why: str) -> None:
        """Warn that a field is not honoured. Not for the fields in ``PRIVATE``: it shows values."""
        self.warn(f"{found.field}={shown(found.value)} is ignored: {why}")

    def check_groups(self) -> None:
        """Raise ``FieldError`` where ``config`` or ``metadata`` is not an object."""
        for group in ("config", "metadata"):
            value = self._body.get(group)
            if value is not None and not isinstance(value, dict):
                raise FieldError(group, f"must be an object, got {describe(value)}")

    def every(self, name: str) -> list[Found]:
        """All values of a field, by precedence."""
        found = []
        for group, key in PATHS[name]:
            self._known.add((group, key))
            value = self._groups[group].get(key)
            if value is not None:
                found.append(Found(group, key, value))
        return found

    def find(self, name: str) -> Found | None:
        """The value that counts; the first call warns of others that differ from it."""
        if name not in self._found:
            found = self.every(name)
            self._found[name] = found[0] if found else None
            for other in found[1:]:
                if other.value != found[0].value:
                    self._warn_conflict(name, found[0], other)
        return self._found[name]

    def number(self, name: str, bounds: Range) -> float | None:
        """A finite number within ``bounds``."""
        found = self.find(name)
        if found is None:
            return None
        value = number(found)
        check_range(found.field, value, bounds)
        return float(value)

    def integer(self, name: str, bounds: Range) -> int | None:
        """A whole number within ``bounds``."""
        found = self.find(name)
        if found is None:
            return None
        value = whole(found)
        check_range(found.field, value, bounds)
        return value

    def flag(self, name: str) -> bool:
        found = self.find(name)
        return found is not None and flag(found)

    def choice(self, name: str, allowed: Mapping[str, str]) -> str | None:
        """What ``allowed`` maps the field's text to."""
        found = self.find(name)
        return None if found is None else choose(found, allowed)

    def text(self, name: str, characters_max: int) -> str | None:
        """A text of at most ``characters_max``; the error of any other is an INVALID_PROMPT."""
        found = self.find(name)
        return None if found is None else self.clean_text(found, characters_max)

    def clean_text(self, found: Found, characters_max: int) -> str:
        """As ``text``, for a value already found.

        NUL characters are taken out, with a warning: the backend's database cannot hold them.
        """
        if not isinstance(found.value, str):
            problem = f"must be a text, got {describe(found.value)}"
            raise FieldError(found.field, problem, ErrorCode.INVALID_PROMPT)
        text = found.value.replace("\0", "")
        if text != found.value:
            self.warn(f"{found.field}: NUL characters were taken out")
        if len(text) > characters_max:
            problem = f"{len(text)} characters are too many, allowed at most {characters_max}"
            raise FieldError(found.field, problem, ErrorCode.INVALID_PROMPT)
        return text

    def extras(self) -> dict[str, Any]:
        """The keys nobody asked for, as they came: those of a group stay in their group."""
        extras = {key: value for key, value in self._unused("") if not self._is_group(key)}
        for group in GROUPS:
            unused = dict(self._unused(group))
            if unused:
                extras[group] = unused
        return extras

    def warn_unused(self, job_type: str) -> None:
        """One warning for all keys that this type does not use. ``metadata`` is the caller's own
        space: there only names that mean something for another type are worth a word."""
        names = [
            cut(Found(group, key, value).field)
            for group in ("", *GROUPS)
            for key, value in sorted(self._unused(group), key=_by_key)
            if value is not None
            and key not in SILENT
            and not (group == "" and self._is_group(key))
            and (group != "metadata" or key in METADATA_KEYS)
        ]
        if names:
            more = f" and {len(names) - _NAMES_MAX} more" if len(names) > _NAMES_MAX else ""
            self.warn(f"not used by {job_type}, kept: {', '.join(names[:_NAMES_MAX])}{more}")

    def _unused(self, group: str) -> list[tuple[str, Any]]:
        items = self._groups[group].items()
        return [(key, value) for key, value in items if (group, key) not in self._known]

    def _is_group(self, key: str) -> bool:
        return key in GROUPS and isinstance(self._body.get(key), dict)

    def _warn_conflict(self, name: str, chosen: Found, other: Found) -> None:
        if name in PRIVATE:
            self.warn(f"{other.field} is ignored: {chosen.field} counts")
        else:
            self.ignore(other, f"{chosen.field}={shown(chosen.value)} counts")


def _by_key(item: tuple[str, Any]) -> str:
    return item[0]
