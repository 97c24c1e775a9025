"""Hypothesis strategies for the scheduler's messages and nouns, from their dataclasses' fields."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from enum import Enum
from typing import Any, Literal, get_args, get_origin, get_type_hints

from hypothesis import reject
from hypothesis import strategies as st

_names = st.text(st.characters(exclude_categories=["Cs"]), min_size=1, max_size=8)


def values(hint: Any) -> st.SearchStrategy[Any]:
    """Values that fit an annotation and are within the bounds of the nouns."""
    origin, inner = get_origin(hint), get_args(hint)
    if dataclasses.is_dataclass(hint) and isinstance(hint, type):
        return nouns(hint)
    if origin is tuple:
        return st.lists(values(inner[0]), max_size=3).map(tuple)
    if origin is not None and isinstance(origin, type) and issubclass(origin, Mapping):
        return st.dictionaries(values(inner[0]), values(inner[1]), max_size=3)
    if origin is Literal:
        return st.sampled_from(inner)
    if inner:
        return st.one_of(*map(values, inner))
    if issubclass(hint, Enum):
        return st.sampled_from(hint)
    plain: dict[type, st.SearchStrategy[Any]] = {
        type(None): st.none(),
        str: _names,
        bool: st.booleans(),
        int: st.integers(1, 2**53),
        float: st.floats(2**-20, 1e300) | st.integers(1, 1000),
    }
    return plain[hint]


@st.composite
def nouns(draw: st.DrawFn, kind: type) -> Any:
    """A dataclass with any fields that it takes; those with a default are left out at times."""
    hints = get_type_hints(kind)
    given = {
        field.name: draw(values(hints[field.name]))
        for field in dataclasses.fields(kind)
        if field.default is dataclasses.MISSING or draw(st.booleans())
    }
    try:
        return kind(**given)
    except ValueError:
        reject()
