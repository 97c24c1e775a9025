"""What the process must do once, before anything is served."""

from __future__ import annotations

import gc
import os
from functools import cache

# Read by the libraries when they are imported.
_ENVIRONMENT = {
    "TRANSFORMERS_VERBOSITY": "error",
    "DIFFUSERS_VERBOSITY": "error",
    # A mistyped path becomes an error instead of a look-up on the network.
    "HF_HUB_OFFLINE": "1",
    "HF_HUB_DISABLE_TELEMETRY": "1",
    "TOKENIZERS_PARALLELISM": "false",
    # Without it cuBLAS may choose another kernel for the same call.
    "CUBLAS_WORKSPACE_CONFIG": ":4096:8",
}


@cache
def prepare(threads: int | None = None) -> None:
    """Import and quiet the libraries (seconds); ``threads`` bounds torch's own on the CPU.

    Call it before serving: the imports hold the GIL for long stretches, and without the freeze
    each full garbage collection afterwards would too.
    """
    for name, value in _ENVIRONMENT.items():
        os.environ.setdefault(name, value)
    import diffusers  # noqa: PLC0415 - the environment must be set before
    import torch  # noqa: PLC0415
    import transformers  # noqa: PLC0415

    diffusers.utils.logging.disable_progress_bar()
    transformers.utils.logging.disable_progress_bar()
    torch.backends.cudnn.deterministic = True
    torch.backends.cudnn.benchmark = False
    if threads is not None:
        torch.set_num_threads(threads)
    gc.collect()
    gc.freeze()
