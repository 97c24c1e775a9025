"""States of what is being denoised, on disk, for another process to go on with.

A part has one file, in its own folder. It appears whole, under the digest of its bytes, and takes
the place of the one before. Only the copy to host memory is made in the run's thread.
"""

from __future__ import annotations

import hashlib
import time
from collections.abc import Callable, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from pathlib import Path

import structlog

from ourvidz.adapters.atomic import errno_name, sync_folder, write_atomically
from pipelines.base import PhasePlan
from pipelines.request import ImageRequest, Request
from pipelines.state import State, build_of, dump, restore

log = structlog.get_logger()

_SUFFIX = ".safetensors"
_NEW = "new"


@dataclass(slots=True)
class Saving:
    """Where a part's state goes, and who made it; ``tell`` hears how each attempt went, in another
    thread. ``since`` is when the last one was begun, or the part's first run."""

    folder: Path
    build: Mapping[str, str]
    tell: Callable[[str | None], None]
    since: float | None = None


class SavedStates:
    """Writes each part's state every ``seconds``, and one at a time: what is due meanwhile is due
    at the next step. With 0 it writes and finds none."""

    def __init__(self, seconds: float, clock: Callable[[], float] = time.monotonic) -> None:
        self._seconds = seconds
        self._clock = clock
        self._writer = ThreadPoolExecutor(1, thread_name_prefix="states")
        self._busy = False

    def begin(self, saving: Saving) -> None:
        """The part is about to run."""
        if saving.since is None:
            saving.since = self._clock()

    def offer(self, state: State, saving: Saving, *, at_once: bool = False) -> None:
        """In the run's thread, between two steps: the state may be written now."""
        now = self._clock()
        due = at_once or now - (saving.since or 0.0) >= self._seconds
        if not self._seconds or not due or self._busy:
            return
        saving.since, self._busy = now, True
        try:
            self._writer.submit(self._write, state.snapshot(), saving)
        except Exception as error:  # noqa: BLE001 - no room for the copy: the run goes on
            self._busy = False
            saving.tell(type(error).__name__)

    def find(self, folder: Path, request: Request, build: Mapping[str, str]) -> State | None:
        """The state, in host memory, that an earlier process left of this request, if it is whole
        and was made by the same build."""
        if not self._seconds or not folder.is_dir():
            return None
        for file in sorted(folder.glob(f"*{_SUFFIX}"), key=lambda f: f.stat().st_mtime_ns)[::-1]:
            try:
                return _read(file, request, build)
            except Exception as error:  # noqa: BLE001 - whatever is wrong with it, there is a way
                log.warning("saved_state_ignored", folder=str(folder), reason=str(error))
        return None

    def _write(self, state: State, saving: Saving) -> None:
        error = None
        try:
            saving.folder.mkdir(exist_ok=True)
            new = saving.folder / _NEW
            written = write_atomically(new, lambda path: dump(state, path, saving.build))
            file = new.replace(saving.folder / f"{written.sha256}{_SUFFIX}")
            sync_folder(saving.folder)
            for other in saving.folder.iterdir():
                if other != file:
                    other.unlink(missing_ok=True)
        except FileNotFoundError:
            return  # The job's folder is gone: nobody needs it any more.
        except OSError as problem:
            error = errno_name(problem)
        except Exception as problem:
            log.exception("saving_broke")
            error = type(problem).__name__
        finally:
            self._busy = False
        saving.tell(error)


def remaining(plans: tuple[PhasePlan, ...], state: State) -> tuple[PhasePlan, ...]:
    """What is left of the plans from this state on; nothing if it is none of theirs."""
    names = [plan.name for plan in plans]
    if state.phase not in names:
        return ()
    place = names.index(state.phase)
    left = plans[place].steps - state.step
    return (replace(plans[place], steps=left), *plans[place + 1 :]) if left > 0 else ()


def _read(file: Path, request: Request, build: Mapping[str, str]) -> State:
    """Raises ``ValueError`` with the reason why it is of no use, or what a broken file raises."""
    data = file.read_bytes()
    if hashlib.sha256(data).hexdigest() != file.stem:
        raise ValueError("it is damaged")
    made_by = build_of(data)
    differing = [name for name in {**made_by, **build} if made_by.get(name) != build.get(name)]
    if differing:
        raise ValueError(f"it was made with another {', '.join(sorted(differing))}")
    state = restore(data)
    if not _fits(state.request, request):
        raise ValueError("it is another request's")
    state.request = request
    return state


def _fits(saved: Request, request: Request) -> bool:
    """Whether the state of the one is a state of the other: which images are decoded in the end
    makes no difference where the same are denoised."""
    if isinstance(saved, ImageRequest) and isinstance(request, ImageRequest):
        return saved.rows == request.rows and replace(saved, only=request.only) == request
    return saved == request
