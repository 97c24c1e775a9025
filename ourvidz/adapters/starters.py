"""Those who are to begin a run of the device together, until all of them have come."""

from __future__ import annotations

from typing import Generic, TypeVar

from scheduler import messages as m

T = TypeVar("T")


class Starters(Generic[T]):
    """Members whose commands name a run, by its number."""

    def __init__(self) -> None:
        self._gathering: dict[int, list[T]] = {}

    def add(self, command: m.Start | m.Resume, member: T) -> list[T]:
        """Who begins now, or joins the run of that number: nobody as long as starters are missing.

        They are counted even where the run goes on already, as one who was to join it may have come
        before them.
        """
        if command.starters == 1:
            return [member]
        gathering = self._gathering.setdefault(command.run, [])
        gathering.append(member)
        if len(gathering) < command.starters:
            return []
        return self._gathering.pop(command.run)
