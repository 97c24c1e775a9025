"""What a pipeline is asked to do: its own types, already checked at the service's border."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import Any, Literal

ReferenceMode = Literal["none", "single", "start", "end", "both"]


@dataclass(frozen=True, slots=True)
class ImageRequest:
    """SDXL. Sizes in pixels, multiples of 8. Image ``i`` uses ``seed + i``.

    ``strength`` is the denoising strength of img2img, ``None`` for txt2img; ``image_path`` is its
    local reference file. ``bitwise`` denoises one image at a time, so that an image's bits do not
    depend on how many are asked for. ``shareable``: its bits may depend on what else is computed in
    the same step, so that it may be denoised together with other requests'.

    ``only`` are the images that are still to be made, all of them if empty. Where bits depend on
    the batch that they are denoised in, it is the whole batch all the same.
    """

    prompt: str
    negative_prompt: str
    width: int
    height: int
    images: int
    steps: int
    guidance_scale: float
    seed: int
    strength: float | None = None
    image_path: str | None = None
    bitwise: bool = False
    shareable: bool = False
    only: tuple[int, ...] = ()

    @property
    def made(self) -> tuple[int, ...]:
        """The images that are decoded, in order."""
        return self.only or tuple(range(self.images))

    @property
    def rows(self) -> tuple[int, ...]:
        """The images that are denoised: the rows of the run's latents."""
        alone = self.bitwise or self.shareable
        return self.made if alone else tuple(range(self.images))


@dataclass(frozen=True, slots=True)
class VideoRequest:
    """WAN 2.1. Sizes in multiples of 16, ``frames`` is 4k+1; one frame makes an image."""

    prompt: str
    negative_prompt: str
    width: int
    height: int
    frames: int
    steps: int
    guidance_scale: float
    flow_shift: float
    seed: int
    mode: ReferenceMode = "none"
    start_path: str | None = None
    end_path: str | None = None


@dataclass(frozen=True, slots=True)
class Message:
    role: Literal["system", "user", "assistant"]
    content: str


@dataclass(frozen=True, slots=True)
class TextRequest:
    """Qwen 2.5. ``temperature`` 0 is greedy; else sampled from a generator of its own seed.

    ``shareable``: its last bits, and with them now and then a token, may depend on what else is
    computed in the same step, so that it may be decoded together with other texts.
    """

    messages: tuple[Message, ...]
    max_tokens: int
    temperature: float
    top_p: float
    seed: int
    shareable: bool = False


Request = ImageRequest | VideoRequest | TextRequest
_KINDS: dict[str, type[ImageRequest | VideoRequest | TextRequest]] = {
    "image": ImageRequest,
    "video": VideoRequest,
    "text": TextRequest,
}


def request_to_json(request: Request) -> dict[str, Any]:
    kind = next(name for name, cls in _KINDS.items() if isinstance(request, cls))
    return {"kind": kind, **asdict(request)}


def request_from_json(data: dict[str, Any]) -> Request:
    fields = dict(data)
    cls = _KINDS[fields.pop("kind")]
    if cls is TextRequest:
        fields["messages"] = tuple(Message(**m) for m in fields["messages"])
    if cls is ImageRequest:
        fields["only"] = tuple(fields["only"])
    return cls(**fields)
