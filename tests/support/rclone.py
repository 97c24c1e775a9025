"""rclone as S3 service: real signatures, real presigned URLs, one folder a bucket."""

from __future__ import annotations

import re
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from pydantic import SecretStr

from ourvidz.config import settings

BUCKET = "workspace-temp"
KEY_ID, SECRET_KEY = "test-key", "test-secret-key"
SECRETS = settings.Secrets(
    s3_access_key_id=SecretStr(KEY_ID), s3_secret_access_key=SecretStr(SECRET_KEY)
)
ENVIRON = {"S3_ACCESS_KEY_ID": KEY_ID, "S3_SECRET_ACCESS_KEY": SECRET_KEY}
_PROGRAM = Path(sys.executable).parent / "rclone"
_ADDRESS = re.compile(rb"http://127\.0\.0\.1:[0-9]+")


@dataclass(frozen=True, slots=True)
class Rclone:
    url: str
    root: Path

    def config(self, **fields: object) -> settings.Store:
        return settings.Store.model_validate({"kind": "s3", "endpoint": self.url, **fields})


@contextmanager
def rclone(root: Path) -> Iterator[Rclone]:
    """Serves the folders in ``root`` until the block is left."""
    (root / BUCKET).mkdir(parents=True)
    command = [_PROGRAM, "serve", "s3", "--config", "/dev/null", "--addr", "127.0.0.1:0"]
    process = subprocess.Popen(
        [*command, "--auth-key", f"{KEY_ID},{SECRET_KEY}", root], stderr=subprocess.PIPE
    )
    try:
        assert process.stderr is not None
        lines = iter(process.stderr.readline, b"")
        found = next(match for line in lines if (match := _ADDRESS.search(line)))
        yield Rclone(found.group().decode(), root)
    finally:
        process.kill()
        process.communicate()
