"""A worker that kills itself at one named point: what production code never knows of.

The ports are wrapped, and of the inside of what is atomic three named functions are patched: the
transaction of ``Database.run``, the rename that ends a file's writing, the removal of a folder.
"""

from __future__ import annotations

import functools
import inspect
import os
import shutil
import signal
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, TypeVar

from ourvidz.adapters.database import Database
from ourvidz.ports import (
    Admission,
    AssetStore,
    Executor,
    JobSource,
    Journal,
    Notifier,
    References,
    Renderer,
)
from ourvidz.service.build import Ports
from scheduler.messages import Resume, Start

When = Literal["before", "inside", "after"]
T = TypeVar("T")

PORTS: Mapping[str, type] = {
    "source": JobSource,
    "journal": Journal,
    "executor": Executor,
    "renderer": Renderer,
    "store": AssetStore,
    "notifier": Notifier,
    "references": References,
    "admission": Admission,
}
RENAME, REMOVE, STEP, ANY = "rename", "remove", "step", "any call"


@dataclass(frozen=True, slots=True)
class Site:
    """The ``nth`` call of ``Port.method`` that is of one kind, and when in it: ``inside`` is within
    its first transaction, before that is committed; or in a folder's removal, when one entry is
    gone. Beside the ports' methods there are ``RENAME``, which ends a file's writing, ``REMOVE`` of
    a folder that is there, and ``STEP`` of a run; ``ANY`` counts all of these together."""

    call: str
    of: str = ""
    nth: int = 1
    when: When = "before"

    def __str__(self) -> str:
        kind = f"({self.of})" if self.of else ""
        number = f" {self.nth}" if self.nth > 1 else ""
        return f"{self.when} {self.call}{kind}{number}"


def methods_of(port: type) -> frozenset[str]:
    """What a port's Protocol asks for: methods and properties."""
    asked = (name for name, value in vars(port).items() if isinstance(value, _ASKED))
    return frozenset(name for name in asked if not name.startswith("_"))


_ASKED = (type(methods_of), property)


class Trap:
    """Counts the calls of its site; dies at the right one."""

    def __init__(self, site: Site | None) -> None:
        self._site = site
        self._seen = 0
        self._inside = False

    @contextmanager
    def seeing(self, call: str, of: str = "") -> Iterator[None]:
        """Round a call that is made. What raises has done its work, too; what is cancelled has not,
        which is no matter where any call will do."""
        site = self._site
        meant = site is not None and (site.call == ANY or (call, of) == (site.call, site.of))
        this = meant and self._counted(site)
        if this and site.when == "before":
            die()
        self._inside = self._inside or (this and site.when == "inside")
        try:
            yield
        except BaseException as error:
            if this and site.when == "after" and (site.call == ANY or isinstance(error, Exception)):
                die()
            raise
        if this and site.when == "after":
            die()

    def _counted(self, site: Site) -> bool:
        self._seen += 1
        return self._seen == site.nth

    def inside(self) -> bool:
        """Whether the call at hand is to die within; asked once."""
        inside, self._inside = self._inside, False
        return inside


def die() -> None:
    """As the machine's end would come: at once, nothing is unwound."""
    os.kill(os.getpid(), signal.SIGKILL)
    while True:
        signal.pause()


class Trapped:
    """A port's adapter whose every method the trap sees."""

    def __init__(self, target: Any, port: type, trap: Trap) -> None:
        self._target = target
        self._port = port
        self._methods = methods_of(port)
        self._trap = trap

    def __getattr__(self, name: str) -> Any:
        if name not in self._methods:
            return getattr(self._target, name)
        call = f"{self._port.__name__}.{name}"
        if isinstance(vars(self._port)[name], property):
            with self._trap.seeing(call):
                return getattr(self._target, name)
        return seen(getattr(self._target, name), call, self._trap)


def seen(method: Callable[..., Any], call: str, trap: Trap) -> Callable[..., Any]:
    """The method, with the trap looking at each of its calls."""
    kind = KINDS.get(call, lambda *_, **__: "")
    if not inspect.iscoroutinefunction(method):

        @functools.wraps(method)
        def called(*args: Any, **kwargs: Any) -> Any:
            with trap.seeing(call, kind(*args, **kwargs)):
                return method(*args, **kwargs)

        return called

    @functools.wraps(method)
    async def awaited(*args: Any, **kwargs: Any) -> Any:
        with trap.seeing(call, kind(*args, **kwargs)):
            return await method(*args, **kwargs)

    return awaited


def trapped_ports(ports: Ports, trap: Trap) -> Mapping[str, Any]:
    """The ports of a service that are not trapped yet, trapped."""
    found = {name: getattr(ports, name) for name in PORTS}
    return {
        name: Trapped(adapter, PORTS[name], trap)
        for name, adapter in found.items()
        if adapter is not None and not isinstance(adapter, Trapped)
    }


def _command(command: Any) -> str:
    """A run by its phase and, in a chain, its part; a move by its name."""
    name = type(command).__name__.lower()
    if not isinstance(command, Start | Resume):
        return name
    _, _, part = command.lease.job.partition("/")
    return f"{name} {part or 0}/{command.lease.phase}"


# What tells the calls of one method apart, from its arguments.
KINDS: Mapping[str, Callable[..., str]] = {
    "JobSource.claim": lambda queue, *_: queue,
    "JobSource.wait": lambda queue, *_: queue,
    "Journal.move": lambda _, state: state.value,
    "Journal.finish": lambda _, result, **__: result.status,
    "Journal.answer_failed": lambda *_, park: "park" if park else "",
    "Executor.execute": _command,
    "Executor.request": lambda request: type(request).__name__.lower(),
    "AssetStore.put": lambda _bucket, _key, _path, mime: mime,
    "Notifier.notify": lambda event_id, _: event_id.split(".")[1],
    "Renderer.image": lambda _, produced: str(produced.index),
}


def set_inside(trap: Trap, store: Path) -> None:
    """Patch what is atomic, for a process that does nothing else."""
    run = Database.run

    async def in_transaction(self: Database, operation: Callable[[Any], T]) -> T:
        return await run(self, _then_die(operation) if trap.inside() else operation)

    Database.run = in_transaction  # type: ignore[method-assign]
    replace = Path.replace

    def rename(self: Path, target: Any) -> Path:
        place = "store" if Path(target).is_relative_to(store) else "spool"
        with trap.seeing(RENAME, f"{place} {Path(target).suffix}"):
            return replace(self, target)

    Path.replace = rename  # type: ignore[method-assign]
    shutil.rmtree = _remover(trap)  # type: ignore[assignment]


def _then_die(operation: Callable[[Any], T]) -> Callable[[Any], T]:
    def last(connection: Any) -> T:
        operation(connection)
        die()
        raise AssertionError("it died")

    return last


def _remover(trap: Trap) -> Callable[..., None]:
    rmtree = shutil.rmtree

    def remove(path: Path, ignore_errors: bool = False) -> None:
        if not Path(path).exists():
            return
        with trap.seeing(REMOVE):
            if trap.inside():
                next(Path(path).iterdir()).unlink()
                die()
            rmtree(path, ignore_errors=ignore_errors)

    return remove
