"""What a run carries between two steps stays within what its plan promised."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from pipelines.base import CancelToken
from pipelines.device import Device
from pipelines.registry import ModelConfig, open_pipeline
from pipelines.request import ImageRequest, Message, Request, TextRequest, VideoRequest
from pipelines.tiny import make_tiny

pytestmark = pytest.mark.slow

IMAGE = ImageRequest("a pear", "mould", 64, 48, 3, 4, 6.0, 42)
VIDEO = VideoRequest("a pear falls", "", 64, 32, 9, 4, 6.0, 3.0, 42)
TEXT = TextRequest((Message("user", "a pear" * 20),), 24, 0.7, 0.9, 42)


def requests(picture: str) -> dict[str, tuple[str, Request]]:
    both = replace(VIDEO, mode="both", start_path=picture, end_path=picture)
    return {
        "txt2img": ("sdxl", IMAGE),
        "img2img": ("sdxl", replace(IMAGE, strength=0.5, image_path=picture)),
        "bitwise": ("sdxl", replace(IMAGE, bitwise=True)),
        "video": ("wan-vace", VIDEO),
        "both": ("wan-vace", both),
        "single": ("wan-vace", replace(VIDEO, mode="single", start_path=picture)),
        "text": ("qwen-instruct", TEXT),
    }


FAMILIES = {"sdxl": "sdxl", "wan-vace": "wan", "qwen-instruct": "qwen"}


@pytest.mark.parametrize("case", list(requests("")))
def test_a_state_never_outgrows_its_plan(
    case: str, tiny_root: Path, tmp_path: Path, device: Device
) -> None:
    picture = tmp_path / "picture.png"
    noise = np.random.default_rng(1).integers(0, 256, (48, 64, 3), dtype=np.uint8)
    Image.fromarray(noise).save(picture)
    folder, request = requests(str(picture))[case]
    make_tiny(tiny_root)
    config = ModelConfig(folder, FAMILIES[folder], tiny_root / folder, None, "float32")
    pipeline = open_pipeline(config, device, 1.0)
    for component in pipeline.components.values():
        component.stage()
        component.load()
    bounds = {phase.name: phase.state_bytes for phase in pipeline.plan(request)}
    state, token = pipeline.begin(request), CancelToken()
    while state.phase != "done":
        phase = state.phase
        pipeline.step(state, token)
        assert state.device_bytes <= bounds[phase], f"{phase} {state.step}"
