"""Workers by fork: what they import is imported once, which is most of what a start costs.

``python -m tests.crash.nursery MODULE`` takes orders, a line of JSON each, on standard input, and
answers with lines on standard output: ``{"began": pid}`` to each, and later
``{"ended": pid, "status": code}``. The module's ``serve`` takes an ``Order`` and returns the code.
It has no thread and no event loop, so that a fork is safe, and ends with its input.
"""

from __future__ import annotations

import importlib
import os
import selectors
import signal
import ssl
import sys
import traceback
from pathlib import Path
from types import ModuleType
from typing import Any

import orjson
from pydantic import TypeAdapter
from support.house import settings_for

# Two that a worker imports when it first needs them.
import ourvidz.http.app
import ourvidz.http.server  # noqa: F401
from ourvidz.adapters.http_answers import plain_client


def main() -> None:
    _warm_up()
    worker = importlib.import_module(sys.argv[1])
    orders = TypeAdapter(worker.Order)
    selector = selectors.DefaultSelector()
    selector.register(sys.stdin.buffer, selectors.EVENT_READ)
    children: dict[int, int] = {}
    while True:
        for key, _ in selector.select():
            if key.data is None:
                line = sys.stdin.buffer.readline()
                if not line:
                    _leave(children)
                    return
                pid = _bear(worker, orders.validate_json(line))
                descriptor = os.pidfd_open(pid)
                children[pid] = descriptor
                selector.register(descriptor, selectors.EVENT_READ, pid)
                _say({"began": pid})
            else:
                selector.unregister(key.fileobj)
                os.close(children.pop(key.data))
                status = os.waitstatus_to_exitcode(os.waitpid(key.data, 0)[1])
                _say({"ended": key.data, "status": status})


def _warm_up() -> None:
    """What takes long the first time, or every time and nobody uses it, as the authorities."""
    context = ssl.create_default_context()
    ssl.create_default_context = lambda *_, **__: context  # type: ignore[assignment]
    plain_client()
    settings_for(Path("unused"), "http://127.0.0.1:9/")


def _bear(worker: ModuleType, order: Any) -> int:
    pid = os.fork()
    if pid:
        return pid
    status = os.EX_SOFTWARE
    try:
        _redirect(order.log)
        status = worker.serve(order)
    except BaseException:  # noqa: BLE001 - whatever it was, the log has it
        traceback.print_exc()
    finally:
        sys.stderr.flush()
        os._exit(status)


def _redirect(log: Path) -> None:
    """Its own input and output instead of the nursery's."""
    nothing = os.open(os.devnull, os.O_RDONLY)
    written = os.open(log, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o600)
    os.dup2(nothing, 0)
    os.dup2(written, 1)
    os.dup2(written, 2)


def _leave(children: dict[int, int]) -> None:
    for pid in children:
        os.kill(pid, signal.SIGKILL)
        os.waitpid(pid, 0)


def _say(message: object) -> None:
    sys.stdout.buffer.write(orjson.dumps(message) + b"\n")
    sys.stdout.buffer.flush()


if __name__ == "__main__":
    main()
