"""The demo's eleven jobs and how each ought to end."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Literal
from uuid import UUID, uuid5

import orjson

USER = UUID("6f9f7d7e-0d0a-4c5e-9a55-0c6f5a5f0001")
_SPACE = UUID("6f9f7d7e-0d0a-4c5e-9a55-0c6f5a5f0002")
BUCKET = "workspace-temp"


@dataclass(frozen=True, slots=True)
class DemoJob:
    """One job. ``via`` is the API, or the queue itself as a producer outside would use it;
    ``after`` are jobs whose files it needs; ``cancel_at`` is the step at which it is cancelled."""

    name: str
    body: Mapping[str, Any]
    status: Literal["completed", "failed", "cancelled"] = "completed"
    assets: int = 0
    text: bool = False
    code: str | None = None
    via: Literal["api", "queue"] = "api"
    after: tuple[str, ...] = ()
    cancel_at: int | None = None

    @property
    def id(self) -> str:
        return demo_id(self.name)


def demo_id(name: str) -> str:
    """The same id at every run: the same demo gives the same files."""
    return str(uuid5(_SPACE, name))


def queue_element(job: DemoJob) -> bytes:
    """The element as the existing producer appends it: an array that holds one JSON string."""
    return orjson.dumps([orjson.dumps(dict(job.body)).decode()])


def _body(name: str, type_: str, size: Mapping[str, int], **fields: Any) -> dict[str, Any]:
    return {"id": demo_id(name), "type": type_, "user_id": str(USER), **size, **fields}


def _image_of(name: str, index: int) -> str:
    return f"{BUCKET}/{USER}/{demo_id(name)}/{index}.png"


_SMALL = {"width": 64, "height": 64, "steps": 8}


def demo_jobs() -> tuple[DemoJob, ...]:
    """All eleven, in the order of the table."""
    return (*_pictures(), *_videos(), *_texts(), *_others())


def _pictures() -> tuple[DemoJob, ...]:
    return (
        DemoJob(
            "batch",
            _body(
                "batch",
                "sdxl_generate",
                _SMALL,
                prompt="a lighthouse at dusk",
                negative_prompt="fog",
                batch_size=3,
                seed=42,
                guidance_scale=6.0,
            ),
            assets=3,
        ),
        DemoJob(
            "img2img",
            _body(
                "img2img",
                "sdxl_generate",
                _SMALL,
                prompt="the lighthouse in winter",
                batch_size=1,
                seed=43,
                reference_image=_image_of("batch", 0),
                reference_strength=0.4,
            ),
            assets=1,
            after=("batch",),
        ),
    )


def _videos() -> tuple[DemoJob, ...]:
    return (
        DemoJob(
            "video",
            _body(
                "video",
                "wan_generate",
                _SMALL,
                prompt="waves roll in",
                frames=17,
                seed=44,
            ),
            assets=1,
        ),
        DemoJob(
            "video between",
            _body(
                "video between",
                "wan_generate",
                _SMALL,
                prompt="day turns to night",
                frames=17,
                seed=45,
                reference_mode="both",
                first_frame=_image_of("batch", 0),
                last_frame=_image_of("batch", 1),
            ),
            assets=1,
            after=("batch",),
        ),
        DemoJob(
            "wan image",
            _body("wan image", "wan_generate", _SMALL, prompt="a harbour", frames=1, seed=46),
            assets=1,
        ),
    )


def _texts() -> tuple[DemoJob, ...]:
    return (
        DemoJob(
            "enhance",
            _body(
                "enhance",
                "enhance_instruct",
                {},
                prompt="a fishing boat",
                target_model="sdxl",
                max_tokens=48,
                seed=47,
            ),
            text=True,
        ),
        DemoJob(
            "chat",
            _body(
                "chat",
                "chat",
                {},
                messages=[{"role": "user", "content": "Which lens for a harbour at night?"}],
                max_tokens=48,
                seed=48,
            ),
            text=True,
        ),
        DemoJob(
            "chain",
            _body(
                "chain",
                "sdxl_generate",
                _SMALL,
                prompt="a gull",
                enhance="instruct",
                max_tokens=48,
                seed=49,
            ),
            assets=1,
        ),
    )


def _others() -> tuple[DemoJob, ...]:
    """A producer's own element, a job to cancel, and one that cannot be run."""
    return (
        DemoJob("legacy", _legacy(), assets=6, via="queue"),
        DemoJob(
            "cancelled",
            _body(
                "cancelled",
                "sdxl_generate",
                {"width": 256, "height": 256, "steps": 100},
                prompt="a storm",
                seed=50,
            ),
            status="cancelled",
            code="CANCELLED",
            cancel_at=5,
        ),
        DemoJob(
            "invalid",
            _body("invalid", "sdxl_generate", {}, prompt="a pier", steps=9999),
            status="failed",
            code="INVALID_PARAMETER",
            via="queue",
        ),
    )


def _legacy() -> dict[str, Any]:
    """What the existing edge function queues for ``sdxl_image_fast``."""
    name = demo_id("legacy")
    return {
        "id": name,
        "type": "sdxl_image_fast",
        "prompt": "a row of fishing huts",
        "user_id": str(USER),
        "config": {
            "pipeline": "txt2img",
            "num_images": 6,
            "num_inference_steps": 15,
            "guidance_scale": 6.0,
            "resolution": "1024x1024",
            "seed": 51,
        },
        "metadata": {"reference_mode": None, "contentType": "sfw", "skip_enhancement": True},
        "negative_prompt": "people",
        "job_id": name,
        "job_type": "sdxl_image_fast",
        "quality": "fast",
        "format": "image",
        "content_type": "sfw",
    }
