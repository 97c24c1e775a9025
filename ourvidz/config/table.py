"""What every table of ``config.toml`` is."""

from __future__ import annotations

from typing import TypeVar

from pydantic import BaseModel, ConfigDict
from pydantic_core import PydanticCustomError

# The type of errors between two keys of one table; its context names the ``key`` to point at.
CROSS_FIELD = "cross_field"


class Table(BaseModel):
    """One table of the file: an unknown key is an error, and nothing changes after loading."""

    model_config = ConfigDict(extra="forbid", frozen=True, allow_inf_nan=False)


T = TypeVar("T", bound=Table)


def require(table: T, condition: bool, key: str, allowed: str) -> T:
    if not condition:
        raise PydanticCustomError(CROSS_FIELD, "{allowed}", {"allowed": allowed, "key": key})
    return table
