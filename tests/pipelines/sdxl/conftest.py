"""The tiny SDXL, ours and the library's, side by side."""

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import diffusers
import numpy as np
import pytest
import torch
from PIL import Image

from pipelines.base import CancelToken, ImageOutput
from pipelines.device import Device
from pipelines.registry import ModelConfig
from pipelines.request import ImageRequest
from pipelines.sdxl import SdxlPipeline, open_sdxl
from pipelines.state import State
from pipelines.tiny.sdxl import make_sdxl

PARTS = ("text_encoders", "unet", "vae")


@pytest.fixture(scope="session")
def sdxl_root(tiny_root: Path) -> Path:
    """Holds ``sdxl/`` and ``sdxl.safetensors``; never to be changed."""
    make_sdxl(tiny_root)
    return tiny_root


@pytest.fixture(scope="session")
def open_folder(device: Device) -> Callable[..., SdxlPipeline]:
    def open_it(path: Path, config_path: Path | None = None, dtype: str = "float32") -> Any:
        config = ModelConfig("sdxl", "sdxl", path, config_path, dtype)
        return open_sdxl(config, device, 1.0)

    return open_it


@pytest.fixture(scope="session")
def resident() -> Callable[[SdxlPipeline], SdxlPipeline]:
    def make_resident(pipeline: SdxlPipeline) -> SdxlPipeline:
        for component in pipeline.components.values():
            component.stage()
            component.load()
        return pipeline

    return make_resident


@pytest.fixture(scope="module")
def sdxl(
    sdxl_root: Path,
    open_folder: Callable[..., SdxlPipeline],
    resident: Callable[[SdxlPipeline], SdxlPipeline],
) -> Iterator[SdxlPipeline]:
    """Opened from the folder, all components resident."""
    pipeline = resident(open_folder(sdxl_root / "sdxl"))
    yield pipeline
    for component in pipeline.components.values():
        component.evict()
        component.unstage()


@pytest.fixture(scope="session")
def request_for() -> Callable[..., ImageRequest]:
    """A small request; any field may be named."""

    def build(**fields: Any) -> ImageRequest:
        defaults: dict[str, Any] = {
            "prompt": "a red fox in the snow",
            "negative_prompt": "",
            "width": 64,
            "height": 48,
            "images": 1,
            "steps": 3,
            "guidance_scale": 5.0,
            "seed": 7,
        }
        return ImageRequest(**(defaults | fields))

    return build


@pytest.fixture(scope="session")
def reference_path(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A picture of noise, 64 x 48."""
    pixels = np.random.default_rng(3).integers(0, 256, (48, 64, 3), dtype=np.uint8)
    path = tmp_path_factory.mktemp("reference") / "noise.png"
    Image.fromarray(pixels).save(path)
    return path


@pytest.fixture(scope="session")
def run() -> Callable[..., list[np.ndarray]]:
    """Step a request to its end; ``between`` may replace the state before every step."""

    def to_the_end(
        pipeline: SdxlPipeline,
        request: ImageRequest,
        between: Callable[[State], State] = lambda state: state,
    ) -> list[np.ndarray]:
        state, images = pipeline.begin(request), []
        while state.phase != "done":
            state = between(state)
            for output in pipeline.step(state, CancelToken()):
                assert isinstance(output, ImageOutput)
                assert output.index == len(images)
                images.append(output.pixels)
        return images

    return to_the_end


class Library:
    """The library's own pipelines over the same checkpoint, decoding image by image."""

    def __init__(self, folder: Path, device: Device, dtype: torch.dtype) -> None:
        self.text = diffusers.StableDiffusionXLPipeline.from_pretrained(
            str(folder), local_files_only=True, dtype=dtype, use_safetensors=True
        ).to(device.torch)
        self.text.vae.enable_slicing()
        self.image = diffusers.StableDiffusionXLImg2ImgPipeline.from_pipe(self.text, dtype=dtype)
        for pipeline in (self.text, self.image):
            pipeline.set_progress_bar_config(disable=True)

    def __call__(self, request: ImageRequest, output_type: str = "pil") -> Any:
        arguments: dict[str, Any] = {
            "prompt": request.prompt,
            "negative_prompt": request.negative_prompt or None,
            "num_inference_steps": request.steps,
            "guidance_scale": request.guidance_scale,
            "num_images_per_prompt": request.images,
            "generator": [
                torch.Generator().manual_seed(request.seed + i) for i in range(request.images)
            ],
            "output_type": output_type,
        }
        if request.strength is None:
            made = self.text(width=request.width, height=request.height, **arguments)
        else:
            assert request.image_path is not None
            reference = Image.open(request.image_path).convert("RGB")
            made = self.image(image=reference, strength=request.strength, **arguments)
        return [np.asarray(i) for i in made.images] if output_type == "pil" else made.images


@pytest.fixture(scope="session")
def library_of(device: Device) -> Callable[..., Library]:
    return lambda folder, dtype=torch.float32: Library(folder, device, dtype)


@pytest.fixture(scope="session")
def library(sdxl_root: Path, library_of: Callable[..., Library]) -> Library:
    return library_of(sdxl_root / "sdxl")


@pytest.fixture(scope="session")
def same() -> Callable[[list[np.ndarray], list[np.ndarray]], bool]:
    """Whether two lists of images are the same to the bit."""

    def compare(ours: list[np.ndarray], theirs: list[np.ndarray]) -> bool:
        return len(ours) == len(theirs) and all(map(np.array_equal, ours, theirs))

    return compare
