"""From a model's configuration to its pipeline."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from pipelines.base import Pipeline
from pipelines.device import Device


@dataclass(frozen=True)
class ModelConfig:
    """One checkpoint. ``path`` is a folder, or for SDXL a single safetensors file with
    ``config_path`` naming the folder that describes it."""

    name: str
    family: Literal["sdxl", "wan", "qwen"]
    path: Path
    config_path: Path | None
    dtype: str


def open_pipeline(config: ModelConfig, device: Device, working_bytes_factor: float) -> Pipeline:
    """Read configurations and headers, no weights. Raises ``CheckpointError``.

    ``working_bytes_factor`` is the safety margin on every estimate of activation bytes.
    """
    # One family's imports are not paid for by a process that serves another.
    if config.family == "sdxl":
        from pipelines.sdxl import open_sdxl  # noqa: PLC0415 - see above

        return open_sdxl(config, device, working_bytes_factor)
    if config.family == "wan":
        from pipelines.wan import open_wan  # noqa: PLC0415 - see above

        return open_wan(config, device, working_bytes_factor)
    from pipelines.qwen import open_qwen  # noqa: PLC0415 - see above

    return open_qwen(config, device, working_bytes_factor)
