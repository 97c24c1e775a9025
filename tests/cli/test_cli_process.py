"""The service as a process: killed and started again, drained, refused."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import anyio
import httpx
import orjson
import pytest
from anyio.from_thread import BlockingPortal, start_blocking_portal
from support.command import CONFIG
from support.house import SECRET, USER, job_id

from ourvidz.adapters.receiver import ReceivedCallback, Receiver
from ourvidz.cli.sse import events

pytestmark = pytest.mark.slow

LIMIT_SECONDS = 60.0
STEPS = 60
MODELS = {"sdxl": "sdxl", "wan": "wan-vace", "qwen_base": "qwen-base"}
MODELS |= {"qwen_instruct": "qwen-instruct"}


def body(name: str, **fields: Any) -> dict[str, Any]:
    small = {"width": 64, "height": 64, "steps": STEPS, "seed": 11, "batch_size": 2}
    job = {"id": job_id(name), "type": "sdxl_generate", "user_id": USER, "prompt": "a pear"}
    return {**job, **small, **fields}


@dataclass(slots=True)
class Callbacks:
    """A receiver in a thread of its own."""

    portal: BlockingPortal
    receiver: Receiver

    def terminal(self, name: str) -> list[ReceivedCallback]:
        def wanted(callback: ReceivedCallback) -> bool:
            ended = callback.status in ("completed", "failed")
            return ended and callback.body["job_id"] == job_id(name)

        return [callback for callback in self.receiver.callbacks if wanted(callback)]

    def wait_for(self, name: str) -> None:
        """Return once the job's terminal callback is there."""

        async def until() -> None:
            with anyio.fail_after(LIMIT_SECONDS):
                await self.receiver.until(lambda _: bool(self.terminal(name)))

        self.portal.call(until)


@dataclass(slots=True)
class Process:
    """One ``ourvidz serve``. ``lines`` are what it has logged so far."""

    popen: subprocess.Popen[str]
    lines: list[dict[str, Any]] = field(default_factory=list)

    def ready(self) -> str:
        """The API's URL, once it serves."""
        assert self.popen.stderr is not None
        for line in self.popen.stderr:
            self.lines.append(orjson.loads(line))
            if self.lines[-1]["action"] == "service_ready":
                # From here on the pipe must only not fill up.
                threading.Thread(target=self._collect, daemon=True).start()
                return str(self.lines[-1]["url"])
        raise AssertionError(f"it ended with {self.popen.wait()}: {self.lines}")

    def _collect(self) -> None:
        assert self.popen.stderr is not None
        self.lines.extend(orjson.loads(line) for line in self.popen.stderr)

    def stop(self, number: signal.Signals) -> int:
        self.popen.send_signal(number)
        return self.popen.wait(LIMIT_SECONDS)


@dataclass(slots=True)
class Site:
    """A folder for one service's data, and the environment that it is started in."""

    root: Path
    callbacks: Callbacks

    @property
    def tiny(self) -> Path:
        return self.root / "tiny"

    def command(self, *flags: str) -> list[str]:
        return [sys.executable, "-m", "ourvidz", "--config", str(CONFIG), "serve", *flags]

    def environ(self) -> dict[str, str]:
        paths = {
            f"OURVIDZ__MODELS__{name.upper()}__PATH": str(self.tiny / folder)
            for name, folder in MODELS.items()
        }
        known = {k: v for k, v in os.environ.items() if not k.upper().startswith("OURVIDZ")}
        return {
            **known,
            **paths,
            "JOB_CALLBACK_SECRET": SECRET,
            "OURVIDZ__CALLBACK__URL": self.callbacks.receiver.url,
            "OURVIDZ__SERVICE__DATA_DIR": str(self.root / "data"),
            "OURVIDZ__STORE__DIR": str(self.root / "store"),
            "OURVIDZ__HTTP__PORT": "0",
            "OURVIDZ__LOGGING__FORMAT": "json",
        }

    @contextmanager
    def serving(self, *flags: str) -> Iterator[Process]:
        """A service that is killed at the end, if it still runs."""
        with subprocess.Popen(
            self.command(*flags), env=self.environ(), stderr=subprocess.PIPE, text=True
        ) as popen:
            try:
                yield Process(popen)
            finally:
                popen.kill()

    def refused(self, *flags: str) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            self.command(*flags),
            env=self.environ(),
            capture_output=True,
            text=True,
            check=False,
            timeout=LIMIT_SECONDS,
        )

    def sha256(self, url: str, name: str) -> list[str]:
        resource = httpx.get(f"{url}/jobs/{job_id(name)}", trust_env=False).json()
        assert resource["status"] == "completed"
        return [asset["sha256"] for asset in resource["output"]["assets"]]


@pytest.fixture(scope="module")
def callbacks() -> Iterator[Callbacks]:
    with (
        start_blocking_portal() as portal,
        portal.wrap_async_context_manager(Receiver(SECRET)) as receiver,
    ):
        yield Callbacks(portal, receiver)


@pytest.fixture
def site(tmp_path: Path, callbacks: Callbacks) -> Site:
    return Site(tmp_path, callbacks)


def submit(url: str, job: dict[str, Any]) -> None:
    answer = httpx.post(f"{url}/jobs", json=job, trust_env=False)
    assert answer.status_code == 202, answer.text


def until_step(url: str, name: str, step: int) -> int:
    """Follow the job's events until so many steps are done; returns how many of how many."""

    async def follow() -> int:
        async with (
            httpx.AsyncClient(base_url=url, timeout=LIMIT_SECONDS, trust_env=False) as http,
            http.stream("GET", f"/jobs/{job_id(name)}/events") as response,
        ):
            async for event in events(response):
                data = orjson.loads(event.data)
                assert event.name != "end", data
                if data.get("steps_done", 0) >= step:
                    return int(data["steps_done"])
        raise AssertionError("the stream ended first")

    return anyio.run(follow)


@pytest.mark.slow
def test_a_job_outlives_a_kill(site: Site) -> None:
    """Killed in mid-job and started again, the service finishes the job: the same bytes as an
    undisturbed run, one terminal callback, and what was made on first use is made once."""
    with site.serving() as first:
        url = first.ready()
        submit(url, body("killed"))
        assert 3 <= until_step(url, "killed", 3) < STEPS
        assert first.stop(signal.SIGKILL) == -signal.SIGKILL
    assert not site.callbacks.terminal("killed")
    made = (site.tiny / "sdxl.safetensors").stat()
    with site.serving() as second:
        url = second.ready()
        site.callbacks.wait_for("killed")
        submit(url, body("undisturbed"))
        site.callbacks.wait_for("undisturbed")
        assert site.sha256(url, "killed") == site.sha256(url, "undisturbed")
        assert len(set(site.sha256(url, "killed"))) == 2
        _a_second_service_is_refused(site)
        assert second.stop(signal.SIGTERM) == 0
    for name in ("killed", "undisturbed"):
        (callback,) = site.callbacks.terminal(name)
        assert (callback.status, callback.signature_valid) == ("completed", True)
    assert (site.tiny / "sdxl.safetensors").stat() == made


@pytest.mark.slow
def test_a_video_goes_on_at_its_step_after_a_kill(site: Site, tiny: Path) -> None:
    site.tiny.symlink_to(tiny)
    video = {"type": "wan_generate", "frames": 17, "width": 128, "batch_size": None}
    often = ("--set", "device.save_state_seconds=0.000001")
    with site.serving(*often) as first:
        url = first.ready()
        submit(url, body("killed video", **video))
        assert until_step(url, "killed video", STEPS // 2) < STEPS
        assert first.stop(signal.SIGKILL) == -signal.SIGKILL
    with site.serving(*often) as second:
        url = second.ready()
        site.callbacks.wait_for("killed video")
        submit(url, body("whole video", **video))
        site.callbacks.wait_for("whole video")
        assert site.sha256(url, "killed video") == site.sha256(url, "whole video")
        steps = [
            httpx.get(f"{url}/jobs/{job_id(name)}", trust_env=False).json()["metrics"]["steps_done"]
            for name in ("killed video", "whole video")
        ]
        assert steps[0] < steps[1] - 5, "some were done by then, and are not done again"
        assert second.stop(signal.SIGTERM) == 0


def _a_second_service_is_refused(site: Site) -> None:
    done = site.refused()
    assert done.returncode == 75
    assert done.stderr == (
        f"ourvidz: {site.root / 'data' / 'ourvidz.db'} is in use by another service\n"
    )


@pytest.mark.slow
def test_sigterm_lets_running_work_finish(site: Site, tiny: Path) -> None:
    site.tiny.symlink_to(tiny)
    with site.serving() as process:
        url = process.ready()
        submit(url, body("drained"))
        until_step(url, "drained", 3)
        assert process.stop(signal.SIGTERM) == 0
    (callback,) = site.callbacks.terminal("drained")
    assert callback.status == "completed"
    assert process.lines[-1]["action"] == "service_stopped"


def _without_a_token(site: Site) -> Sequence[str]:
    return ("--set", "http.host=0.0.0.0")


def _on_a_file(site: Site) -> Sequence[str]:
    (site.root / "file").write_text("", encoding="utf-8")
    return ("--set", f"service.data_dir={site.root / 'file'}")


@pytest.mark.parametrize(
    ("flags", "said"),
    [
        (_without_a_token, 'http.host = "0.0.0.0": must be a loopback address unless'),
        (_on_a_file, "service.data_dir"),
    ],
    ids=["no token", "a file for a folder"],
)
def test_a_service_that_cannot_work_is_refused(
    site: Site, tiny: Path, flags: Callable[[Site], Sequence[str]], said: str
) -> None:
    site.tiny.symlink_to(tiny)
    done = site.refused(*flags(site))
    assert done.returncode == 78
    assert said in done.stderr
    assert "Traceback" not in done.stderr
