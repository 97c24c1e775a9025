"""The tables of ``config.toml`` about jobs: their limits, what they get that they do not ask for,
and what the types of earlier producers stand for."""

from __future__ import annotations

from typing import Literal, Self

from pydantic import Field, model_validator

from ourvidz.config.fields import (
    Bytes,
    Frames,
    Guidance,
    Name,
    Share,
    Side,
    Steps,
    SystemPrompt,
    Tokens,
)
from ourvidz.config.table import Table, require


class Range(Table):
    """Both ends are allowed."""

    min: float = Field(ge=0, le=10**12)
    max: float = Field(ge=0, le=10**12)

    @model_validator(mode="after")
    def _in_order(self) -> Self:
        return require(self, self.min <= self.max, "min", f"must not exceed max ({self.max:g})")


class Limits(Table):
    """Hard limits, checked at the border."""

    prompt_characters: int = Field(default=20_000, ge=1, le=10**7)
    payload_bytes: Bytes = 1_000_000
    messages: int = Field(default=200, ge=1, le=10**6)
    images: Range = Range(min=1, max=6)
    steps: Range = Range(min=1, max=150)
    guidance_scale: Range = Range(min=0, max=30)
    frames: Range = Range(min=1, max=83)
    strength: Range = Range(min=0, max=1)
    seed: Range = Range(min=0, max=2_147_483_647)
    side_pixels: Range = Range(min=16, max=2048)
    sdxl_area_pixels: int = Field(default=2_097_152, ge=64, le=10**9)
    wan_area_pixels: int = Field(default=399_360, ge=64, le=10**9)
    max_tokens: Range = Range(min=1, max=8192)
    temperature: Range = Range(min=0, max=2)
    top_p: Range = Range(min=0.01, max=1)


class SdxlDefaults(Table):
    steps: Steps = 25
    guidance_scale: Guidance = 7.5
    images: int = Field(default=1, ge=1, le=100)
    width: Side = 1024
    height: Side = 1024
    strength: Share = 0.5
    exact_copy_strength: Share = 0.05


class WanDefaults(Table):
    steps: Steps = 50
    guidance_scale: Guidance = 7.5
    flow_shift: float = Field(default=5.0, gt=0, le=100)
    frames: Frames = 81
    fps: int = Field(default=16, ge=1, le=120)
    width: Side = 480
    height: Side = 832


class TextDefaults(Table):
    max_tokens: Tokens = 512
    enhance_max_tokens: Tokens = 2048
    temperature: float = Field(default=0.7, ge=0, le=10)
    top_p: float = Field(default=0.9, gt=0, le=1)


class Defaults(Table):
    sdxl: SdxlDefaults = SdxlDefaults()
    wan: WanDefaults = WanDefaults()
    text: TextDefaults = TextDefaults()


class LegacyType(Table):
    """What a legacy job type stands for. ``enhance`` names the text model that runs first."""

    type: Literal["sdxl_generate", "wan_generate"]
    job_class: Name = "normal"
    enhance: Literal["base", "instruct"] | None = None
    steps: Steps
    guidance_scale: Guidance
    width: Side
    height: Side
    frames: Frames | None = None


class Enhancement(Table):
    """Neutral system prompts for enhancement jobs that bring none of their own."""

    sdxl: SystemPrompt
    wan: SystemPrompt
