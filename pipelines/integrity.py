"""What is checked of a module once its weights are in memory.

Both libraries accept a checkpoint with tensors missing (and leave them random or without data) and
one full of NaN; neither is ever what was meant.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from concurrent.futures import ThreadPoolExecutor
from itertools import repeat
from pathlib import Path

import torch
from torch import nn

from pipelines.arena import NEVER, module_tensors
from pipelines.base import CancelToken
from pipelines.weights import CheckpointError

# Large sequential reads: page faults of a mapped file on a network volume are 4 KiB round trips.
_BLOCK_BYTES = 16 * 1024 * 1024
_READERS = 4


def read_ahead(files: Iterable[Path], token: CancelToken = NEVER) -> None:
    """Read the files into the page cache in large blocks, several at once, for the library's own
    mapping to find there. Raises ``CheckpointError`` for a file that is gone, ``RunCancelled``
    between two blocks."""
    blocks: list[tuple[Path, int]] = []
    for file in files:
        if not file.is_file():
            raise CheckpointError(file, "no such file")
        blocks += ((file, start) for start in range(0, file.stat().st_size, _BLOCK_BYTES))
    with ThreadPoolExecutor(_READERS, thread_name_prefix="read-ahead") as pool:
        for _ in pool.map(_read_block, blocks, repeat(token)):
            pass


def _read_block(block: tuple[Path, int], token: CancelToken) -> None:
    token.check()
    path, offset = block
    with path.open("rb", buffering=0) as file:
        file.seek(offset)
        file.readinto(bytearray(min(_BLOCK_BYTES, path.stat().st_size - offset)))


def check_shapes(path: Path, held: Mapping[str, tuple[int, ...]], skeleton: nn.Module) -> None:
    """Compare the shapes of the tensors that a checkpoint and the module name alike."""
    for name, tensor in skeleton.state_dict().items():
        shape = held.get(name, tuple(tensor.shape))
        if shape != tuple(tensor.shape):
            raise CheckpointError(
                path,
                f"tensor {name} has shape {list(shape)}, where the configuration expects"
                f" {list(tensor.shape)}",
            )


def check_missing(path: Path, missing: Iterable[str]) -> None:
    """``missing``: state-dict names that no file filled."""
    names = sorted(missing)
    if names:
        others = f" and {len(names) - 1} more" if len(names) > 1 else ""
        raise CheckpointError(path, f"tensor {names[0]} is missing{others}")


def check_values(path: Path, module: nn.Module, token: CancelToken = NEVER) -> None:
    """Every tensor has data, and every floating value is finite. Raises ``RunCancelled`` between
    two tensors."""
    for name, tensor in module_tensors(module):
        token.check()
        if tensor.is_meta:
            check_missing(path, [name])
        if tensor.is_floating_point() and not _finite(tensor):
            raise CheckpointError(path, f"tensor {name} holds NaN or infinite values")


def _finite(tensor: torch.Tensor) -> bool:
    # A sum reads each value once without a mask as large as the tensor; it can overflow on finite
    # values too, so only a finite sum settles it.
    total = tensor.detach().sum(dtype=torch.float32)
    return bool(total.isfinite()) or bool(tensor.isfinite().all())
