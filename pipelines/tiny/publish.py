"""Atomic, idempotent publication of a generated file or folder."""

from __future__ import annotations

import shutil
import tempfile
from collections.abc import Callable
from pathlib import Path


def publish(target: Path, build: Callable[[Path], None]) -> None:
    """Unless ``target`` exists, let ``build`` make it under a temporary name beside it, then
    rename. Of two processes at once one wins, and both find it whole."""
    if target.exists():
        return
    target.parent.mkdir(parents=True, exist_ok=True)
    workshop = Path(tempfile.mkdtemp(prefix=f".{target.name}-", dir=target.parent))
    try:
        made = workshop / target.name
        build(made)
        made.replace(target)
    except OSError:
        # A folder cannot be renamed onto one that another process has published meanwhile.
        if not target.exists():
            raise
    finally:
        shutil.rmtree(workshop, ignore_errors=True)
