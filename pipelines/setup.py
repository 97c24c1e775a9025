"""What the process must do once, before anything is served."""

from __future__ import annotations

import gc
from functools import cache

import diffusers
import torch
import transformers


@cache
def prepare(threads: int | None = None) -> None:
    """Quiet the libraries, whose import this module pays for (seconds); ``threads`` bounds torch's
    own on the CPU.

    Call it before serving: the imports hold the GIL for long stretches, and without the freeze
    each full garbage collection afterwards would too.
    """
    diffusers.utils.logging.disable_progress_bar()
    transformers.utils.logging.disable_progress_bar()
    torch.backends.cudnn.deterministic = True
    torch.backends.cudnn.benchmark = False
    if threads is not None:
        torch.set_num_threads(threads)
    gc.collect()
    gc.freeze()
