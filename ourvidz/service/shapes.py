"""Which steps take the same time, and which take time in proportion to each other."""

from __future__ import annotations

from dataclasses import dataclass

from ourvidz.jobs import ImageWork, TextWork, VideoWork, Work
from scheduler.types import Phase


@dataclass(frozen=True, slots=True)
class Shape:
    """What a phase's steps do. Those of one ``name`` do the same; those of one ``kind`` differ in
    ``size`` only, the pixels that one step is about, and take time in proportion to it, nearly."""

    kind: str
    name: str
    size: int


def shape_of(work: Work, phase: Phase) -> Shape:
    """The shape of one of the work's phases.

    A prompt is read at one length whatever the picture. Images are denoised together, unless their
    bits must not depend on that, and decoded one a step; a video's latent frames likewise. A text
    is told by its purpose: its length follows from that more than from what it may take.
    """
    match work:
        case ImageWork():
            together = phase.name == "denoise" and not work.reproducible
            batch = work.images if together else 1
            area = work.width * work.height
            kind = f"{phase.name} guided={work.guidance_scale > 1}"
            name = f"{work.width}x{work.height} images={batch}"
            size = area * batch
        case VideoWork():
            frames = work.frames if phase.name == "denoise" else 1
            kind = f"{phase.name} {work.mode} guided={work.guidance_scale > 1}"
            name = f"{work.width}x{work.height} frames={work.frames}"
            size = work.width * work.height * frames
        case TextWork():
            return Shape(phase.name, f"{phase.name} {work.purpose}", 1)
    if phase.name == "encode":
        return Shape(kind, kind, 1)
    return Shape(kind, f"{kind} {name}", size)


def open_ended(work: Work) -> bool:
    """Whether the work may end before its last step: the steps of a text are a bound."""
    return isinstance(work, TextWork)
