"""The backend's edge function (``tests/edge``), run by Deno on loopback, without a network."""

from __future__ import annotations

import os
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import httpx
from deno import find_deno_bin
from support.house import REPOSITORY, SECRET, USER, job_id

FUNCTION = REPOSITORY / "tests" / "edge" / "backend.ts"


@dataclass(frozen=True)
class Edge:
    """A backend that knows the jobs that were queued with it, and its callbacks' ``shape``."""

    address: str
    shape: str
    key: str

    @property
    def url(self) -> str:
        return f"{self.address}/functions/v1/{self.shape}"

    def queue(self, name: str) -> None:
        """The user has asked for the job: its row is there."""
        self._control("POST", "jobs", json={"id": job_id(name), "user_id": USER})

    def cancel(self, name: str) -> None:
        """The user does not want it any more; nobody tells the service."""
        self._control("POST", f"jobs/{job_id(name)}/cancel")

    def job(self, name: str) -> dict[str, Any]:
        found: dict[str, Any] = self._control("GET", f"jobs/{job_id(name)}")
        return found

    def refusals(self) -> list[str]:
        """What was not believed or not understood so far, and why."""
        found: list[str] = self._control("GET", "refusals")
        return found

    def _control(self, method: str, path: str, **body: Any) -> Any:
        with httpx.Client(trust_env=False) as client:
            answer = client.request(method, f"{self.address}/control/{path}", **body)
        answer.raise_for_status()
        return answer.json()


@contextmanager
def deno_edge(folder: Path, shape: str, key: str) -> Iterator[Edge]:
    """One edge function, from its first line to the end of the block; ``folder`` is Deno's own."""
    arguments = ["run", "--quiet", "--no-config", "--no-remote", "--no-npm"]
    granted = ["--allow-net=127.0.0.1", "--allow-env=JOB_CALLBACK_SECRET,SUPABASE_SERVICE_KEY"]
    environ = {
        "PATH": os.environ["PATH"],
        "DENO_DIR": str(folder),
        "DENO_NO_UPDATE_CHECK": "1",
        "JOB_CALLBACK_SECRET": SECRET,
        "SUPABASE_SERVICE_KEY": key,
    }
    command = [find_deno_bin(), *arguments, *granted, str(FUNCTION)]
    with subprocess.Popen(command, env=environ, stdout=subprocess.PIPE, text=True) as process:
        try:
            assert process.stdout is not None
            port = int(process.stdout.readline())
            yield Edge(f"http://127.0.0.1:{port}", shape, key)
        finally:
            process.kill()
