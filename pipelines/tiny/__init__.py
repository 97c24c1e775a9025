"""Tiny checkpoints of the real architectures: random weights from fixed seeds, a few MB in all.

For tests and the embedded default, where the whole path must run on any CPU without a download.
"""

from __future__ import annotations

from pathlib import Path


def make_tiny(root: Path) -> None:
    """Make what is missing of ``sdxl/``, ``sdxl.safetensors`` (the same weights in one file; its
    configuration folder is ``sdxl/``), ``wan-t2v/``, ``wan-vace/``, ``qwen-base/`` and
    ``qwen-instruct/`` under ``root``. Atomic per entry; what exists is left as it is."""
    # Inside, so that one family can be made without importing the others.
    from pipelines.tiny.qwen import make_qwen  # noqa: PLC0415 - see above
    from pipelines.tiny.sdxl import make_sdxl  # noqa: PLC0415 - see above
    from pipelines.tiny.wan import make_wan  # noqa: PLC0415 - see above

    make_sdxl(root)
    make_wan(root)
    make_qwen(root)
