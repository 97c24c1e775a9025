"""Serving until a signal: real signals to this process, a service that only pretends."""

from __future__ import annotations

import os
import signal
import threading
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import anyio
import pytest
from support.house import settings_for

from ourvidz.app import Running
from ourvidz.cli import serving
from ourvidz.cli.serving import FAILED_SECONDS, MARGIN_SECONDS, WayOut, serve
from ourvidz.config import Settings
from ourvidz.errors import DataDirBusy, DataDirError, DeviceFailed
from ourvidz.http.server import ListenError

pytestmark = pytest.mark.anyio


@pytest.fixture
def settings(tmp_path: Path) -> Settings:
    return settings_for(tmp_path, "")


@pytest.fixture(autouse=True)
def _dispositions() -> Iterator[None]:
    """As in a terminal, whatever the test runner was started with."""
    numbers = (signal.SIGTERM, signal.SIGINT, signal.SIGHUP)
    before = [signal.getsignal(number) for number in numbers]
    for number in numbers:
        signal.signal(number, signal.SIG_DFL)
    yield
    for number, handler in zip(numbers, before, strict=True):
        signal.signal(number, handler)


@dataclass(slots=True)
class Pretence:
    """A service whose opening, life and drain a test holds in its hands."""

    opened: anyio.Event = field(default_factory=anyio.Event)
    draining: anyio.Event = field(default_factory=anyio.Event)
    may_open: anyio.Event = field(default_factory=anyio.Event)
    may_end: anyio.Event = field(default_factory=anyio.Event)
    crash: anyio.Event = field(default_factory=anyio.Event)
    ending: anyio.Event = field(default_factory=anyio.Event)

    @asynccontextmanager
    async def running(self, _settings: Settings) -> AsyncIterator[Running]:
        await self.may_open.wait()
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(self._live)
            self.opened.set()
            try:
                yield Running(None, "http://x", self.ending)  # type: ignore[arg-type]
            finally:
                self.draining.set()
            await self.may_end.wait()
            tasks.cancel_scope.cancel()

    async def _live(self) -> None:
        await self.crash.wait()
        raise RuntimeError("a defect")


@dataclass(slots=True)
class Watched(WayOut):
    """Keeps what it was asked for instead of leaving."""

    codes: list[int] = field(default_factory=list)
    armed: list[float] = field(default_factory=list)
    left: anyio.Event = field(default_factory=anyio.Event)

    def __post_init__(self) -> None:
        self.leave = self._note

    def _note(self, code: int) -> None:
        self.codes.append(code)
        self.left.set()

    def arm(self, seconds: float) -> None:
        self.armed.append(seconds)


def send(number: signal.Signals) -> None:
    os.kill(os.getpid(), number)


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT, signal.SIGHUP])
async def test_a_signal_drains(settings: Settings, number: signal.Signals) -> None:
    service, way_out = Pretence(), Watched()
    service.may_open.set()
    with anyio.fail_after(10):
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(serve, settings, service.running, way_out)
            await service.opened.wait()
            assert way_out.armed == []
            send(number)
            await service.draining.wait()
            assert way_out.armed == [settings.service.drain_seconds + MARGIN_SECONDS]
            service.may_end.set()
    assert way_out.codes == []


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
async def test_a_second_signal_leaves_at_once(settings: Settings, number: signal.Signals) -> None:
    service, way_out = Pretence(), Watched()
    service.may_open.set()
    with anyio.fail_after(10):
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(serve, settings, service.running, way_out)
            await service.opened.wait()
            send(signal.SIGTERM)
            await service.draining.wait()
            send(number)
            await way_out.left.wait()
            service.may_end.set()
    assert way_out.codes == [75]


async def test_a_terminal_that_closes_hurries_nobody(settings: Settings) -> None:
    service, way_out = Pretence(), Watched()
    service.may_open.set()
    with anyio.fail_after(10):
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(serve, settings, service.running, way_out)
            await service.opened.wait()
            send(signal.SIGHUP)
            await service.draining.wait()
            send(signal.SIGHUP)
            send(signal.SIGTERM)
            await way_out.left.wait()
            service.may_end.set()
    assert way_out.codes == [75]


async def test_a_signal_while_it_starts_ends_the_start(settings: Settings) -> None:
    service, way_out = Pretence(), Watched()
    with anyio.fail_after(10):
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(serve, settings, service.running, way_out)
            await anyio.wait_all_tasks_blocked()
            send(signal.SIGTERM)
    assert not service.opened.is_set()
    assert way_out.codes == []


async def test_what_was_ignored_at_the_start_stays_ignored(settings: Settings) -> None:
    signal.signal(signal.SIGHUP, signal.SIG_IGN)
    service, way_out = Pretence(), Watched()
    service.may_open.set()
    with anyio.fail_after(10):
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(serve, settings, service.running, way_out)
            await service.opened.wait()
            assert signal.getsignal(signal.SIGHUP) is signal.SIG_IGN
            send(signal.SIGTERM)
            service.may_end.set()
    assert way_out.codes == []


async def test_a_crash_is_raised_and_leaving_is_bounded(settings: Settings) -> None:
    service, way_out = Pretence(), Watched()
    for event in (service.may_open, service.may_end, service.crash):
        event.set()
    with anyio.fail_after(10), pytest.raises(ExceptionGroup) as raised:
        await serve(settings, service.running, way_out)
    assert raised.group_contains(RuntimeError, match="a defect")
    assert way_out.armed == [FAILED_SECONDS], "nobody asked for a drain"


async def test_leaving_is_bounded_where_a_service_fails_and_does_not_return(
    settings: Settings,
) -> None:
    """As with a thread that hangs."""
    service, way_out = Pretence(), Watched()
    service.may_open.set()
    with anyio.fail_after(10):
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(serve, settings, service.running, way_out)
            await service.opened.wait()
            service.ending.set()
            await service.draining.wait()
            assert way_out.armed == [FAILED_SECONDS]
            service.may_end.set()


async def test_the_timer_leaves_and_keeps_nothing_alive() -> None:
    codes: list[int] = []
    token = anyio.lowlevel.current_token()
    left = anyio.Event()

    def leave(code: int) -> None:
        codes.append(code)
        anyio.from_thread.run_sync(left.set, token=token)

    way_out = WayOut(leave)
    way_out.arm(3600)
    (timer,) = [thread for thread in threading.enumerate() if isinstance(thread, threading.Timer)]
    assert timer.daemon
    timer.cancel()
    await anyio.to_thread.run_sync(timer.join, 10)
    way_out.arm(0)
    with anyio.fail_after(10):
        await left.wait()
    assert codes == [75]


@dataclass(slots=True)
class _Serve:
    """Stands in for ``serve`` and ends as it is told."""

    failure: Exception | None = None

    async def __call__(self, _settings: Settings, *_: object) -> None:
        if self.failure is not None:
            raise self.failure


@pytest.fixture
def run_with(monkeypatch: pytest.MonkeyPatch) -> Any:
    def run(settings: Settings, failure: Exception | None, way_out: WayOut | None = None) -> int:
        monkeypatch.setattr(serving, "serve", _Serve(failure))
        monkeypatch.setattr(serving, "ensure_tiny", lambda _: None)
        monkeypatch.setattr(serving.logs, "configure", lambda *_: None)
        return serving.run(settings, way_out)

    return run


class TestRun:
    """``run`` starts an event loop of its own."""

    def test_a_drain_is_a_success(self, run_with: Any, settings: Settings) -> None:
        assert run_with(settings, None) == 0

    def test_a_crash_has_a_code_of_its_own(self, run_with: Any, settings: Settings) -> None:
        assert run_with(settings, ExceptionGroup("x", [RuntimeError("a defect")])) == 70
        mixed = ExceptionGroup("x", [DataDirError(), RuntimeError("a defect")])
        assert run_with(settings, mixed) == 70

    def test_what_keeps_it_from_starting_is_told(self, run_with: Any, settings: Settings) -> None:
        for failure in (DataDirBusy(), ExceptionGroup("x", [ExceptionGroup("y", [ListenError()])])):
            with pytest.raises((DataDirBusy, ListenError)):
                run_with(settings, failure)

    @pytest.mark.parametrize(
        "failure",
        [
            DeviceFailed(),
            ExceptionGroup("x", [ExceptionGroup("y", [DeviceFailed()])]),
            ExceptionGroup(
                "x", [RuntimeError("CUDA error"), ExceptionGroup("y", [DeviceFailed()])]
            ),
        ],
        ids=["alone", "in a group", "beside what came of it"],
    )
    def test_a_failed_device_leaves_for_the_supervisor(
        self, run_with: Any, settings: Settings, failure: Exception
    ) -> None:
        codes: list[int] = []
        run_with(settings, failure, WayOut(codes.append))
        assert codes == [75]
