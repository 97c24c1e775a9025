"""Serving until a signal, and a way out of the process that no stuck thread can block.

The first signal starts the drain. A worker thread that is stuck in a driver can be neither
interrupted nor joined, so leaving is bounded from outside: from the moment the service stops, for
whatever reason, a timer runs, and where it strikes the process ends without unwinding. Nothing is
lost by that, or by a kill: queues and journal are durable, and what was claimed goes back to its
queue when the service starts again.

A device that failed always ends the process this way, even where everything could be closed: a
library that tidies up a lost context may abort, and a supervisor must see 75.
"""

from __future__ import annotations

import contextlib
import os
import signal
import sys
import threading
from collections.abc import AsyncIterator, Callable
from contextlib import AbstractAsyncContextManager
from dataclasses import dataclass, field

import anyio
import structlog

from ourvidz import logs
from ourvidz.app import Running, running
from ourvidz.cli.exits import device_failure, expected
from ourvidz.cli.models import ensure_tiny
from ourvidz.config import Settings

log = structlog.get_logger()

# What leaving may take beyond the drain's deadline: runs that were told to stop reach their next
# check, open requests end, the journal is closed.
MARGIN_SECONDS = 10.0
# What leaving may take where nobody asked for it: nothing is drained then.
FAILED_SECONDS = 5.0

Open = Callable[[Settings], AbstractAsyncContextManager[Running]]


def run(settings: Settings, way_out: WayOut | None = None) -> int:
    """Serve until a signal; returns the exit code. Raises ``OurVidzError`` where the service
    cannot start; does not return where the device failed."""
    way_out = way_out or WayOut()
    logs.configure(settings.logging.format, settings.logging.level, settings.logging.log_prompts)
    ensure_tiny(settings)
    try:
        anyio.run(serve, settings, running, way_out)
    except Exception as error:
        if (failed := device_failure(error)) is not None:
            way_out.now(str(failed))
            return os.EX_TEMPFAIL
        if (known := expected(error)) is not None:
            raise known from None
        log.exception("service_crashed")
        return os.EX_SOFTWARE
    return os.EX_OK


@dataclass(slots=True)
class WayOut:
    """Ends the process at once, by ``leave`` with an exit code; a supervisor may start it again.

    The one place that does. No thread is joined, nothing is unwound and no buffer is written but
    the logs'. That suffices: whatever a job has reached was on disk before the service went on, and
    a transaction that is cut off here was never told to anybody as done.
    """

    leave: Callable[[int], object] = os._exit

    def now(self, reason: str) -> None:
        threads = [thread.name for thread in threading.enumerate()]
        log.error("hard_exit", reason=reason, threads=threads)
        for stream in (sys.stdout, sys.stderr):
            with contextlib.suppress(OSError, ValueError):  # nobody reads any more
                stream.flush()
        self.leave(os.EX_TEMPFAIL)

    def arm(self, seconds: float) -> None:
        """Leave in so many seconds, unless the process has ended by then."""
        timer = threading.Timer(seconds, self.now, ["leaving took too long"])
        # It must not keep alive the process that it is to end.
        timer.daemon = True
        timer.start()


@dataclass(slots=True)
class _Stop:
    """Whether the service is to stop; before it serves, ``starting`` is cancelled instead."""

    starting: anyio.CancelScope = field(default_factory=anyio.CancelScope)
    asked: anyio.Event = field(default_factory=anyio.Event)
    serving: bool = False

    def ask(self) -> None:
        self.asked.set()
        if not self.serving:
            self.starting.cancel()


async def serve(
    settings: Settings, open_service: Open = running, way_out: WayOut | None = None
) -> None:
    """Open the service, serve until a signal, drain.

    Raises what the service raises, alone or in groups.
    """
    way_out = way_out or WayOut()
    stop = _Stop()
    with anyio.open_signal_receiver(*_signals()) as signals:
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(_obey, signals, stop, way_out)
            with stop.starting:
                async with open_service(settings) as live:
                    stop.serving = True
                    log.info("service_ready", url=live.url, pid=os.getpid())
                    try:
                        await _first(stop.asked, live.ending)
                    finally:
                        asked = stop.asked.is_set()
                        drain = settings.service.drain_seconds + MARGIN_SECONDS
                        way_out.arm(drain if asked else FAILED_SECONDS)
            log.info("service_stopped")
            tasks.cancel_scope.cancel()


async def _first(*events: anyio.Event) -> None:
    """Return once one of the events is set."""
    async with anyio.create_task_group() as tasks:

        async def wait(event: anyio.Event) -> None:
            await event.wait()
            tasks.cancel_scope.cancel()

        for event in events:
            tasks.start_soon(wait, event)


def _signals() -> list[signal.Signals]:
    """Those that stop the service. What was ignored at the start (``nohup``, a shell's background
    job) stays ignored."""
    stopping = (signal.SIGTERM, signal.SIGINT, signal.SIGHUP)
    return [number for number in stopping if signal.getsignal(number) is not signal.SIG_IGN]


async def _obey(signals: AsyncIterator[signal.Signals], stop: _Stop, way_out: WayOut) -> None:
    """SIGHUP hurries nobody: a terminal that closes may send it several times over."""
    async for number in signals:
        if not stop.asked.is_set():
            log.info("stop_requested", signal=number.name)
            stop.ask()
        elif number is not signal.SIGHUP:
            way_out.now(f"{number.name} while stopping")
