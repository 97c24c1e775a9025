"""Waking everyone who waits for a change."""

from __future__ import annotations

import anyio


class Signal:
    """Take ``ticket``, look at the state, then await the ticket: no change in between is missed."""

    def __init__(self) -> None:
        self._event = anyio.Event()

    @property
    def ticket(self) -> anyio.Event:
        """Set at the next ``notify``."""
        return self._event

    def notify(self) -> None:
        event, self._event = self._event, anyio.Event()
        event.set()
