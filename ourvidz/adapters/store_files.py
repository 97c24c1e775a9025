"""What the stores share: files read in pieces, copies written whole, answers judged by status."""

from __future__ import annotations

import errno
import hashlib
import io
import os
import re
import secrets
from collections.abc import AsyncIterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import anyio
import anyio.to_thread

from ourvidz.adapters.atomic import errno_name
from ourvidz.adapters.http_answers import may_pass, seconds_ahead
from ourvidz.adapters.keys import check_key
from ourvidz.ports import DiskRefused, StoreDenied, StoreRejected, StoreUnavailable

CHUNK_BYTES = 1 << 18
PARTS_MAX = 10_000  # as many as S3 takes
_SHOWN_CHARACTERS = 300
_SKEW_SECONDS = 600.0  # signatures hold for 15 minutes
_MD5 = re.compile(r"[0-9a-f]{32}")
_LASTING = frozenset(
    {errno.EEXIST, errno.EISDIR, errno.ELOOP, errno.ENAMETOOLONG, errno.ENOENT, errno.ENOTDIR}
)
# The request is right and the file is not at fault: the key, the bucket or the address is.
_DENIED = frozenset({401, 403, 404, 405})

StoreError = StoreRejected | StoreUnavailable


@dataclass(frozen=True, slots=True)
class Piece:
    """A run of bytes of a file, with the MD5 that a store gives them."""

    path: Path
    offset: int
    size: int
    md5: bytes


def check_name(bucket: str, key: str) -> None:
    """Raise ``StoreRejected`` unless these name a file that any store can hold."""
    try:
        check_key(f"{bucket}/{key}")
    except ValueError as error:
        raise StoreRejected(str(error)) from error
    if "/" in bucket:
        raise StoreRejected("a bucket's name may have no slash")


async def pieces(path: Path, whole_max: int, part_bytes: int) -> Sequence[Piece]:
    """The file as one piece if it has at most ``whole_max`` bytes, else in parts. Reads it once.
    Raises as ``disk_error`` says."""
    try:
        return await anyio.to_thread.run_sync(_pieces, path, whole_max, part_bytes)
    except OSError as error:
        raise disk_error(error, "the file to store") from error


def etag(parts: Sequence[Piece]) -> str:
    """What S3 calls the file: its MD5; of one in parts, the MD5 of their MD5s and their number."""
    if len(parts) == 1:
        return parts[0].md5.hex()
    together = hashlib.md5(b"".join(part.md5 for part in parts), usedforsecurity=False)
    return f"{together.hexdigest()}-{len(parts)}"


def bare_etag(header: str | None) -> str:
    """An ETag without its quotes; empty if there is none."""
    return (header or "").removeprefix("W/").strip('"').lower()


def contradicts(given: str, expected: str) -> bool:
    """Whether an ETag looks like the MD5 of other bytes. That is a doubt and no proof: with some
    services it is a digest of another kind. One of another form says nothing."""
    digest, _, number = given.partition("-")
    comparable = _MD5.fullmatch(digest) is not None and number == expected.partition("-")[2]
    return comparable and given != expected


async def same_bytes(chunks: AsyncIterator[bytes], parts: Sequence[Piece]) -> bool:
    """Whether what comes is the pieces' bytes and no more. No more is taken than says so."""
    digests = [hashlib.md5(usedforsecurity=False) for _ in parts]
    number, missing = 0, parts[0].size
    async for chunk in chunks:
        rest = memoryview(chunk)
        while rest:
            if missing == 0:
                number += 1
                if number == len(parts):
                    return False
                missing = parts[number].size
            taken, rest = rest[:missing], rest[missing:]
            await anyio.to_thread.run_sync(digests[number].update, taken)
            missing -= len(taken)
    return all(digest.digest() == part.md5 for digest, part in zip(digests, parts, strict=True))


def not_compared(error: StoreError) -> StoreUnavailable:
    """For a doubtful upload that cannot be read back: what is stored may be good or not."""
    wait = error.retry_after_seconds if isinstance(error, StoreUnavailable) else None
    return StoreUnavailable(
        "the store's ETag is not the MD5 of what was sent, and the bytes could not be compared: "
        f"{error}",
        wait,
    )


class PieceReader(io.RawIOBase):
    """A piece as a file of its own. Closing it is the reader's business."""

    def __init__(self, piece: Piece) -> None:
        self._file = piece.path.open("rb", buffering=0)
        self._piece = piece
        self._at = 0

    def readable(self) -> bool:
        return True

    def seekable(self) -> bool:
        return True

    def tell(self) -> int:
        return self._at

    def seek(self, offset: int, whence: int = io.SEEK_SET) -> int:
        base = {io.SEEK_SET: 0, io.SEEK_CUR: self._at, io.SEEK_END: self._piece.size}[whence]
        self._at = max(0, base + offset)
        return self._at

    def readinto(self, buffer: bytearray | memoryview) -> int:  # type: ignore[override]
        wanted = min(len(buffer), max(0, self._piece.size - self._at))
        data = os.pread(self._file.fileno(), wanted, self._piece.offset + self._at)
        buffer[: len(data)] = data
        self._at += len(data)
        return len(data)

    def close(self) -> None:
        self._file.close()
        super().close()


def open_piece(piece: Piece) -> PieceReader:
    """Raises as ``disk_error`` says."""
    try:
        return PieceReader(piece)
    except OSError as error:
        raise disk_error(error, "the file to store") from error


async def save(chunks: AsyncIterator[bytes], path: Path, bytes_max: int) -> None:
    """Write what comes to ``path``, whole or not at all. Raises ``StoreRejected`` beyond
    ``bytes_max``, and ``DiskRefused``."""
    part = anyio.Path(path.with_name(f".{secrets.token_hex(8)}.tmp"))
    taken = 0
    try:
        async with await anyio.open_file(part, "xb") as file:
            async for chunk in chunks:
                taken += len(chunk)
                if taken > bytes_max:
                    raise StoreRejected(f"more than {bytes_max} bytes")
                await file.write(chunk)
        await part.replace(path)
    except OSError as error:
        raise DiskRefused.of(error) from error
    finally:
        with anyio.CancelScope(shield=True):
            await part.unlink(missing_ok=True)


def disk_error(error: OSError, whose: str) -> StoreError:
    """The port's error for one of the file system: what can never be is rejected."""
    kind = StoreRejected if error.errno in _LASTING else StoreUnavailable
    return kind(f"{whose} answered {errno_name(error)}")


def status_error(
    status: int, who: str, said: str, retry_after_seconds: float | None = None
) -> StoreError:
    """The port's error for an HTTP answer that is no success, by its status alone: what a store
    writes into the body of an error differs."""
    shown = said.encode("unicode_escape").decode("ascii")[:_SHOWN_CHARACTERS].strip()
    message = f"{who} answered {status}{f': {shown}' if shown else ''}"
    if may_pass(status):
        return StoreUnavailable(message, retry_after_seconds)
    if status in _DENIED or status < 400:
        return StoreDenied(message)
    return StoreRejected(message)


def clock_skew(date: str | None, now: float) -> float:
    """By how many seconds this machine is ahead of whoever wrote a ``Date`` header; 0 where that is
    too little to matter or not to be known."""
    ahead = seconds_ahead(date, now)
    return -ahead if ahead is not None and abs(ahead) > _SKEW_SECONDS else 0.0


def _pieces(path: Path, whole_max: int, part_bytes: int) -> list[Piece]:
    found = []
    with path.open("rb", buffering=0) as file:
        size = os.fstat(file.fileno()).st_size
        step = size if size <= whole_max else max(part_bytes, -(-size // PARTS_MAX))
        for offset in range(0, max(size, 1), max(step, 1)):
            length = min(step, size - offset)
            found.append(Piece(path, offset, length, _md5(file, length)))
    return found


def _md5(file: io.FileIO, length: int) -> bytes:
    digest = hashlib.md5(usedforsecurity=False)
    while length > 0 and (chunk := file.read(min(CHUNK_BYTES, length))):
        digest.update(chunk)
        length -= len(chunk)
    return digest.digest()
