"""What a CUDA device does with the tiny checkpoints; the figures go to bench/results/.

    make gpu

1. The pipelines' tests on the device, 2. the demo on the device, 3. seconds of each phase,
4. bandwidth from host memory to the device, pinned by registration and pageable. Exits 1 if there
is no device, or if a test or the demo fails; what was measured is written in any case.
"""

from __future__ import annotations

import json
import os
import re
import statistics
import subprocess
import sys
import tempfile
import time
from importlib.metadata import version
from pathlib import Path
from typing import Any

import torch
from torch import nn

from pipelines.arena import Arena
from pipelines.base import CancelToken, Pipeline
from pipelines.device import Device
from pipelines.registry import ModelConfig, open_pipeline
from pipelines.request import ImageRequest, Message, Request, TextRequest, VideoRequest
from pipelines.setup import prepare
from pipelines.tiny import make_tiny

ROOT = Path(__file__).parents[1]
RESULTS = ROOT / "bench" / "results"
TRANSFER_BYTES = 2 * 1024**3
REPEATS = 5
VERSIONS = ("torch", "diffusers", "transformers", "safetensors", "numpy", "pillow", "av")
REQUESTS: dict[str, Request] = {
    "sdxl": ImageRequest("a lighthouse", "", 512, 512, 3, 20, 6.0, 42),
    "wan": VideoRequest("waves", "", 256, 256, 17, 20, 6.0, 5.0, 42),
    "qwen_instruct": TextRequest((Message("user", "a harbour at night"),), 64, 0.7, 0.9, 42),
}


def phase_seconds(pipeline: Pipeline, request: Request, device: Device) -> dict[str, float]:
    """Seconds of each phase of one run, the device synchronised after every step."""
    state, token = pipeline.begin(request), CancelToken()
    seconds: dict[str, float] = {}
    while state.phase != "done":
        phase, began = state.phase, time.perf_counter()
        pipeline.step(state, token)
        device.synchronize()
        seconds[phase] = seconds.get(phase, 0.0) + time.perf_counter() - began
    return seconds


def measure_phases(device: Device, root: Path) -> dict[str, dict[str, float]]:
    """Median seconds of each phase by model, after one run to warm up."""
    models = (
        ModelConfig("sdxl", "sdxl", root / "sdxl", None, "float32"),
        ModelConfig("wan", "wan", root / "wan-vace", None, "float32"),
        ModelConfig("qwen_instruct", "qwen", root / "qwen-instruct", None, "float32"),
    )
    found = {}
    for config in models:
        name, pipeline = config.name, open_pipeline(config, device, 1.25)
        for component in pipeline.components.values():
            component.stage()
            component.load()
        phase_seconds(pipeline, REQUESTS[name], device)
        runs = [phase_seconds(pipeline, REQUESTS[name], device) for _ in range(REPEATS)]
        found[name] = {p: round(statistics.median(r[p] for r in runs), 6) for p in runs[0]}
    return found


def measure_bandwidth(device: Device) -> dict[str, Any]:
    """Bytes per second of one large transfer to the device: the arena's way, and pageable."""
    module = nn.ParameterList([nn.Parameter(torch.zeros(TRANSFER_BYTES, dtype=torch.uint8), False)])
    arena = Arena(module, device)
    pinned = []
    for _ in range(REPEATS):
        began = time.perf_counter()
        arena.load()
        pinned.append(TRANSFER_BYTES / (time.perf_counter() - began))
        arena.evict()
    pageable_source = torch.zeros(TRANSFER_BYTES, dtype=torch.uint8)
    pageable = []
    for _ in range(REPEATS):
        began = time.perf_counter()
        copy = pageable_source.to(device.torch)
        device.synchronize()
        pageable.append(TRANSFER_BYTES / (time.perf_counter() - began))
        del copy
    registered = arena.pinned
    arena.close()
    return {
        "bytes": TRANSFER_BYTES,
        "registered": registered,
        "arena_bytes_per_second": round(statistics.median(pinned)),
        "pageable_bytes_per_second": round(statistics.median(pageable)),
    }


def run_tests() -> dict[str, Any]:
    """The pipelines' own tests with the device under test switched to CUDA."""
    done = subprocess.run(
        [sys.executable, "-m", "pytest", "tests/pipelines", "-q", "-x", "-p", "no:cacheprovider"],
        cwd=ROOT,
        env={**os.environ, "OURVIDZ_TEST_DEVICE": "cuda"},
        capture_output=True,
        text=True,
        check=False,
    )
    lines = done.stdout.strip().splitlines()
    failed = [line for line in lines if re.match(r"(FAILED|ERROR)", line)]
    return {"passed": done.returncode == 0, "summary": lines[-1:] or [""], "failed": failed}


def run_demo() -> dict[str, Any]:
    """The eleven jobs with ``device.kind = "cuda"``."""
    with tempfile.TemporaryDirectory() as data:
        done = subprocess.run(
            [sys.executable, "-m", "ourvidz", "demo", "--json"],
            cwd=ROOT,
            env={
                **os.environ,
                "OURVIDZ__DEVICE__KIND": "cuda",
                "OURVIDZ__SERVICE__DATA_DIR": data,
            },
            capture_output=True,
            text=True,
            check=False,
        )
    if not done.stdout.strip():
        return {"passed": False, "error": done.stderr[-2000:]}
    report = json.loads(done.stdout.strip().splitlines()[-1])
    return {
        "passed": done.returncode == 0,
        "seconds": report["seconds"],
        "jobs": [[job["type"], job["status"]] for job in report["jobs"]],
    }


def main() -> int:
    if not torch.cuda.is_available():
        print("no CUDA device is here: nothing was measured", file=sys.stderr)
        return 1
    prepare()
    device = Device("cuda")
    with tempfile.TemporaryDirectory() as folder:
        make_tiny(Path(folder))
        result: dict[str, Any] = {
            "device": device.describe(),
            "versions": {name: version(name) for name in VERSIONS},
            "phase_seconds": measure_phases(device, Path(folder)),
            "host_to_device": measure_bandwidth(device),
        }
    torch.cuda.empty_cache()
    result["tests"] = run_tests()
    result["demo"] = run_demo()
    name = re.sub(r"[^a-z0-9]+", "-", str(result["device"]["name"]).lower()).strip("-")
    RESULTS.mkdir(parents=True, exist_ok=True)
    path = RESULTS / f"gpu-{name}.json"
    path.write_text(json.dumps(result, indent=2, sort_keys=True) + "\n", encoding="utf-8")
    print(path.read_text(encoding="utf-8"))
    return 0 if result["tests"]["passed"] and result["demo"]["passed"] else 1


if __name__ == "__main__":
    sys.exit(main())
