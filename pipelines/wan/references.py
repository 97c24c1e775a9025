"""Reference images as the library's processor would hand them to the VAE."""

from __future__ import annotations

import torch
from diffusers.video_processor import VideoProcessor
from PIL import Image, ImageOps

from pipelines.base import UnsupportedRequest
from pipelines.request import VideoRequest
from pipelines.wan.vae import SPATIAL

# What the library's own example fills unknown frames with.
_GREY = (128, 128, 128)

_processor = VideoProcessor(vae_scale_factor=SPATIAL)


def read_image(request: VideoRequest, field: str) -> Image.Image:
    """The image at ``start_path`` or ``end_path``: RGB, upright as its EXIF says.

    Raises ``UnsupportedRequest`` if the field is empty or the file is no image.
    """
    path = getattr(request, field)
    if path is None:
        raise UnsupportedRequest(field, f"{field}: mode {request.mode!r} needs this image")
    try:
        with Image.open(path) as image:
            return ImageOps.exif_transpose(image).convert("RGB")
    except (OSError, SyntaxError, ValueError, Image.DecompressionBombError) as error:
        raise UnsupportedRequest(
            field, f"{field}: the image cannot be read ({type(error).__name__})"
        ) from error


def as_frame(image: Image.Image, request: VideoRequest, device: torch.device) -> torch.Tensor:
    """Resized to the video's size whatever its own proportions; (3, height, width), -1..1."""
    pixels: torch.Tensor = _processor.preprocess(image, request.height, request.width)
    return pixels[0].to(device, torch.float32)


def grey_frame(request: VideoRequest, device: torch.device) -> torch.Tensor:
    """The frame that stands for one still to be made; (3, height, width), -1..1."""
    image = Image.new("RGB", (request.width, request.height), _GREY)
    return as_frame(image, request, device)


def on_canvas(image: Image.Image, request: VideoRequest, device: torch.device) -> torch.Tensor:
    """Scaled to fit with its proportions kept, centred on white; (3, height, width), -1..1."""
    if min(image.size) < SPATIAL:
        raise UnsupportedRequest(
            "start_path", f"start_path: {image.width}x{image.height} pixels, {SPATIAL} at least"
        )
    pixels = _processor.preprocess(image, None, None)
    height, width = pixels.shape[-2:]
    scale = min(request.height / height, request.width / width)
    fitted = int(height * scale), int(width * scale)
    if min(fitted) < 1:
        raise UnsupportedRequest(
            "start_path", f"start_path: {image.width}x{image.height} is too narrow for the video"
        )
    resized = torch.nn.functional.interpolate(
        pixels, size=fitted, mode="bilinear", align_corners=False
    )
    top, left = (request.height - fitted[0]) // 2, (request.width - fitted[1]) // 2
    canvas = torch.ones(3, request.height, request.width, device=device, dtype=torch.float32)
    canvas[:, top : top + fitted[0], left : left + fitted[1]] = resized[0]
    return canvas
