"""Fixtures for WAN: the tiny checkpoints opened and resident, two reference images, a runner."""

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from diffusers import DiffusionPipeline
from PIL import Image
from support.image_to_video import make_image_to_video

from pipelines.base import CancelToken, ImageOutput, VideoOutput
from pipelines.device import Device
from pipelines.registry import ModelConfig, open_pipeline
from pipelines.request import VideoRequest
from pipelines.state import State
from pipelines.tiny.wan import make_wan
from pipelines.wan import Wan

Between = Callable[[State], State]


@pytest.fixture(scope="session")
def wan_root(tiny_root: Path) -> Path:
    make_wan(tiny_root)
    return tiny_root


def resident(pipeline: Wan) -> Wan:
    for component in pipeline.components.values():
        component.stage()
        component.load()
    return pipeline


@pytest.fixture(scope="session")
def open_resident(device: Device) -> Callable[..., Wan]:
    def open_one(path: Path, dtype: str = "float32") -> Wan:
        config = ModelConfig("wan", "wan", path, None, dtype)
        return resident(open_pipeline(config, device, 1.0))

    return open_one


@pytest.fixture(scope="session")
def t2v(wan_root: Path, open_resident: Callable[..., Wan]) -> Wan:
    return open_resident(wan_root / "wan-t2v")


@pytest.fixture(scope="session")
def vace(wan_root: Path, open_resident: Callable[..., Wan]) -> Wan:
    return open_resident(wan_root / "wan-vace")


@pytest.fixture(scope="session")
def image_root(wan_root: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """One folder for each kind of image-to-video checkpoint."""
    root = tmp_path_factory.mktemp("image-to-video")
    make_image_to_video(wan_root / "wan-t2v", root)
    return root


@pytest.fixture(scope="session")
def start_path(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Noise, larger than the videos and of other proportions."""
    path = tmp_path_factory.mktemp("references") / "start.png"
    pixels = np.random.default_rng(1).integers(0, 256, (50, 70, 3), dtype=np.uint8)
    Image.fromarray(pixels).save(path)
    return path


@pytest.fixture(scope="session")
def end_path(start_path: Path) -> Path:
    """Noise, smaller than the videos."""
    path = start_path.with_name("end.png")
    pixels = np.random.default_rng(2).integers(0, 256, (24, 20, 3), dtype=np.uint8)
    Image.fromarray(pixels).save(path)
    return path


@pytest.fixture(scope="session")
def ask(start_path: Path, end_path: Path) -> Callable[..., VideoRequest]:
    """A small request; keywords override its fields. The images its mode needs come with it."""

    def make(**fields: object) -> VideoRequest:
        request = {
            "prompt": "a cat on a sunny beach",
            "negative_prompt": "blurry",
            "width": 48,
            "height": 32,
            "frames": 9,
            "steps": 3,
            "guidance_scale": 5.0,
            "flow_shift": 3.0,
            "seed": 7,
            "mode": "none",
            **fields,
        }
        if request["mode"] in ("single", "start", "both"):
            request.setdefault("start_path", str(start_path))
        if request["mode"] in ("end", "both"):
            request.setdefault("end_path", str(end_path))
        return VideoRequest(**request)

    return make


@pytest.fixture(scope="session")
def aligned() -> Callable[..., object]:
    """A library's pipeline with its weights copied out of the mapped file, where they lie at odd
    addresses: the kernels of some CPUs give other last bits for those."""

    def copy_out(pipe: DiffusionPipeline) -> DiffusionPipeline:
        for part in pipe.components.values():
            if isinstance(part, torch.nn.Module):
                for parameter in part.parameters():
                    parameter.data = parameter.data.clone()
        return pipe

    return copy_out


def pixels_of(output: object) -> np.ndarray:
    """(frames, height, width, 3)."""
    if isinstance(output, ImageOutput):
        assert output.index == 0
        return output.pixels[None]
    assert isinstance(output, VideoOutput)
    return output.frames


@pytest.fixture(scope="session")
def play() -> Callable[..., np.ndarray]:
    """Run a request to its end; ``between`` sees the state before each step and gives back the
    one to go on with. Returns the pixels, (frames, height, width, 3)."""

    def run(pipeline: Wan, request: VideoRequest, between: Between | None = None) -> np.ndarray:
        state, outputs, steps = pipeline.begin(request), [], {}
        while state.phase != "done":
            if between is not None:
                state = between(state)
            steps[state.phase] = state.step + 1
            outputs += pipeline.step(state, CancelToken())
        assert steps == {phase.name: phase.steps for phase in pipeline.plan(request)}
        assert set(state.tensors) == set()
        assert state.values == {}
        (output,) = outputs
        return pixels_of(output)

    return run
