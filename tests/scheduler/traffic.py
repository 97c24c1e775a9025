"""Small workloads and a small card for tests of the simulator."""

from __future__ import annotations

import random
from typing import Any

from scheduler.profile import Profile, parse
from scheduler.types import SchedulerSettings
from scheduler.workload import Workload, parse_all

SETTINGS = SchedulerSettings(
    waiting_jobs_max=1000,
    load_attempts_max=3,
    load_retry_seconds=5.0,
)

# Two of the three families fit together, so that order costs swaps. Seconds are exact in binary.
PROFILE: dict[str, Any] = {
    "device": {
        "vram_bytes": 110,
        "reserve_bytes": 10,
        "paused_bytes": 1,
        "host_pinned_bytes": 1000,
    },
    "links": {
        "disk_to_host": 16,
        "host_to_device": 64,
        "fixed_seconds": 0.25,
        "compute_slowdown_while_copying": 1.25,
    },
    "links_naive": {"disk_to_device": 8, "fixed_seconds": 2.0},
    "slo_seconds": {
        "chat": 15,
        "enhance_base": 15,
        "enhance_instruct": 15,
        "sdxl_generate": 30,
        "wan_generate": 600,
    },
    "components": {
        "sdxl.encoder": 8,
        "sdxl.unet": 16,
        "wan.transformer": 24,
        "qwen.base": 40,
        "qwen.instruct": 40,
    },
    "phase": [
        {"types": ["sdxl_generate"], "name": "encode", "components": ["sdxl.encoder"]}
        | {"work_bytes": 2, "seconds": 0.0625},
        {"types": ["sdxl_generate"], "name": "denoise", "components": ["sdxl.unet"]}
        | {"work_bytes_per_image": 2, "step_seconds": 0.125, "image_exponent": 1.0},
        {"types": ["wan_generate"], "name": "denoise", "components": ["wan.transformer"]}
        | {"work_bytes": 8, "step_seconds": 4.0, "frame_scaled": True},
        {"types": ["enhance_base"], "name": "generate", "components": ["qwen.base"]}
        | {"work_bytes": 4, "token_seconds": 0.03125},
        {"types": ["enhance_instruct", "chat"], "name": "generate"}
        | {"components": ["qwen.instruct"], "work_bytes": 4, "token_seconds": 0.03125},
    ],
}

BATCHING = {"text_exponent": 0.125, "text_max": 8, "image_exponent": 0.75, "image_max": 6}


def profile(**changes: dict[str, Any]) -> Profile:
    """The small card; a change replaces keys of one of its tables."""
    changed = {name: PROFILE.get(name, {}) | new for name, new in changes.items()}
    return parse({**PROFILE, **changed})


def line(kind: str, job: str, at: float, **more: Any) -> dict[str, Any]:
    counts = {"sdxl_generate": {"images": 1, "steps": 8}, "wan_generate": {"frames": 81}}
    counts["wan_generate"] |= {"steps": 10}
    found = counts.get(kind, {"tokens": 64})
    return {"id": job, "arrival_s": at, "user": "u", "type": kind, **found, **more}


def workload(*lines: dict[str, Any]) -> Workload:
    return parse_all((entry, f"line {n}") for n, entry in enumerate(lines, start=1))


def bursts(seed: int, jobs: int) -> Workload:
    """Requests in bursts, a third of the images and half of the videos after an enhancement."""
    rng = random.Random(seed)
    lines, at = [], 0.0
    for number in range(jobs):
        at += rng.choice([0.0, 0.3, 1.7, rng.expovariate(0.1)])
        job, user = f"j{number}", f"u{rng.randint(0, 3)}"
        kind = rng.choice(["sdxl_generate"] * 5 + ["wan_generate"] + ["chat"] * 3)
        more: dict[str, Any] = {"user": user}
        if kind == "sdxl_generate":
            more |= {"images": rng.choice([1, 3, 6]), "steps": rng.randint(4, 40)}
        elif kind == "wan_generate":
            more |= {"frames": rng.choice([41, 81]), "steps": rng.randint(3, 20)}
        else:
            more |= {"tokens": rng.randint(20, 200)}
        if kind != "chat" and rng.random() < 0.4:
            parent = rng.choice(["enhance_base", "enhance_instruct"])
            lines.append(line(parent, f"{job}-e", at, user=user))
            more["after"] = f"{job}-e"
        lines.append(line(kind, job, at, **more))
    return workload(*lines)
