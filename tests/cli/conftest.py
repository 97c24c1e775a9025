"""The command line in this process, and services for it to talk to."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import structlog
from anyio.from_thread import start_blocking_portal
from support.command import Cli, Done, Served, open_served

from ourvidz.adapters.device_fake import FakeDevice
from ourvidz.cli.exits import guarded
from ourvidz.cli.main import app

# Longer than any test: a job on such a device runs until it is cancelled.
FOR_EVER = 3600.0


@pytest.fixture(autouse=True)
def _quiet() -> Iterator[None]:
    """The services of this process log nothing into what a command prints."""
    before = structlog.get_config()
    structlog.configure(processors=[], logger_factory=structlog.ReturnLoggerFactory())
    yield
    structlog.configure(**before)


@pytest.fixture
def cli(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Cli:
    """``cli("jobs", "list")`` runs the command as the shell would, from an empty folder and with an
    environment that says nothing of OurVidz."""
    monkeypatch.chdir(tmp_path)
    for name in ("OURVIDZ_CONFIG", "OURVIDZ_URL", "OURVIDZ_TOKEN", "CREDENTIALS_DIRECTORY"):
        monkeypatch.delenv(name, raising=False)

    def run(*arguments: str) -> Done:
        capsys.readouterr()
        with pytest.raises(SystemExit) as exited:
            guarded(lambda: app(list(arguments)))
        printed = capsys.readouterr()
        code = exited.value.code
        assert code is None or isinstance(code, int)
        return Done(code or 0, printed.out, printed.err)

    return run


def _in_thread(root: Path, device: FakeDevice, **flags: Any) -> Iterator[Served]:
    with (
        start_blocking_portal() as portal,
        portal.wrap_async_context_manager(open_served(root, device, **flags)) as served,
    ):
        yield served


@pytest.fixture(scope="module")
def served(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Served]:
    """A service whose jobs take no time. It ends with the module: it logs on a thread of its own,
    and other tests read the logs."""
    yield from _in_thread(tmp_path_factory.mktemp("served"), FakeDevice())


@pytest.fixture(scope="module")
def held(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Served]:
    """A service whose jobs run until they are cancelled."""
    device = FakeDevice(step_seconds=FOR_EVER)
    yield from _in_thread(
        tmp_path_factory.mktemp("held"), device, **{"service.drain_seconds": 0.01}
    )


@pytest.fixture(scope="session")
def tiny(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The tiny checkpoints; tests change copies of them only."""
    from pipelines.tiny import make_tiny

    root = tmp_path_factory.mktemp("checkpoints") / "tiny"
    make_tiny(root)
    return root
