"""A local folder as asset store: ``root/bucket/key``."""

from __future__ import annotations

import functools
import os
import shutil
from pathlib import Path
from typing import BinaryIO

import anyio
import anyio.to_thread

from ourvidz.adapters.atomic import make_folders, write_atomically
from ourvidz.adapters.store_files import check_name, disk_error
from ourvidz.ports import DiskRefused, StoreRejected

_CHUNK_BYTES = 1 << 20


class FolderStore:
    """``mime`` is not kept: the key's suffix says it. At most ``concurrent_max`` copies at once."""

    def __init__(self, root: Path, concurrent_max: int = 4) -> None:
        self._root = root.resolve()
        self._limiter = anyio.CapacityLimiter(concurrent_max)

    async def put(
        self,
        bucket: str,
        key: str,
        path: Path,
        mime: str,  # noqa: ARG002 - the port's
    ) -> None:
        """A full disk is ``StoreUnavailable``; a key that can never be written is rejected."""
        try:
            await self._run(functools.partial(self._put, bucket, key, path))
        except OSError as error:
            raise disk_error(error, "the store's folder") from error

    async def get(self, bucket: str, key: str, path: Path, bytes_max: int) -> None:
        try:
            await self._run(functools.partial(self._get, bucket, key, path, bytes_max))
        except OSError as error:
            raise disk_error(error, "the store's folder") from error

    async def _run(self, copy: functools.partial[None]) -> None:
        await anyio.to_thread.run_sync(copy, limiter=self._limiter)

    def _put(self, bucket: str, key: str, path: Path) -> None:
        target = self._locate(bucket, key)
        make_folders(target.parent)
        write_atomically(target, functools.partial(shutil.copyfile, path))

    def _get(self, bucket: str, key: str, path: Path, bytes_max: int) -> None:
        source = self._locate(bucket, key)
        if not source.is_file():
            raise KeyError(f"{bucket}/{key}")
        with source.open("rb") as file:
            try:
                write_atomically(path, functools.partial(_copy_bounded, file, bytes_max))
            except OSError as error:
                raise DiskRefused.of(error) from error

    def _locate(self, bucket: str, key: str) -> Path:
        """The file's path, which no symbolic link leads out of the root."""
        check_name(bucket, key)
        path = self._root / bucket / key
        # realpath, as Path.resolve raises RuntimeError for a loop of links
        if not Path(os.path.realpath(path)).is_relative_to(self._root):
            raise StoreRejected("the key leads out of the store's folder")
        return path


def _copy_bounded(file: BinaryIO, bytes_max: int, target: Path) -> None:
    copied = 0
    with target.open("xb") as out:
        while chunk := file.read(_CHUNK_BYTES):
            copied += len(chunk)
            if copied > bytes_max:
                raise StoreRejected(f"more than {bytes_max} bytes")
            out.write(chunk)
