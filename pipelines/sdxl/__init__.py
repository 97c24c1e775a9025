"""Stable Diffusion XL: text to image and image to image."""

from pipelines.sdxl.pipeline import SdxlPipeline, open_sdxl

__all__ = ["SdxlPipeline", "open_sdxl"]
