"""States of runs as the files that production writes of them."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from tempfile import TemporaryDirectory

from ourvidz.adapters.saved_states import SavedStates
from pipelines import state as module
from pipelines.state import State


def dump(state: State, build: Mapping[str, str] | None = None) -> bytes:
    """What a file that is written of the state at this moment holds."""
    with TemporaryDirectory() as folder:
        path = Path(folder) / "state"
        module.dump(state.snapshot(), path, build or {})
        return path.read_bytes()


def wait(states: SavedStates) -> None:
    """Return when nothing is being written."""
    states._writer.submit(lambda: None).result()
