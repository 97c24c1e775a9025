"""What the demo found, as one JSON object, and whether every job ended as it should."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from ourvidz.adapters.receiver import ReceivedCallback
from ourvidz.cli.demo.client import Watched
from ourvidz.cli.demo.jobs import BUCKET, DemoJob


def job_report(
    watched: Watched, callbacks: Sequence[ReceivedCallback], store: Path
) -> Mapping[str, Any]:
    """One job's row of the JSON."""
    resource = watched.resource
    output = resource["output"] or {}
    metrics = resource["metrics"]
    return {
        "id": watched.job.id,
        "type": resource["type"],
        "status": resource["status"],
        "seed": (resource["input"] or {}).get("seed"),
        "text": output.get("text"),
        "error": resource["error"],
        "steps_done": metrics.get("steps_done", 0),
        "steps_total": metrics.get("steps_total", 0),
        "cancel_requested_step": metrics.get("cancel_requested_step"),
        "assets": [_asset(asset, store) for asset in output.get("assets", [])],
        "callbacks": [
            {"status": c.status, "signature_valid": c.signature_valid, "body": c.body}
            for c in callbacks
            if isinstance(c.body, dict) and c.body.get("job_id") == watched.job.id
        ],
    }


def _asset(asset: Mapping[str, Any], store: Path) -> Mapping[str, Any]:
    return {
        "key": asset["url"],
        "path": str(store / BUCKET / asset["url"]),
        "mime": asset["mime_type"],
        "width": asset["width"],
        "height": asset["height"],
        "frames": asset["frames"],
        "sha256": asset["sha256"],
        "metadata": asset["metadata"],
    }


def complaints(job: DemoJob, report: Mapping[str, Any]) -> Iterator[str]:
    """In what the job did not end as it should."""
    if report["status"] != job.status:
        yield f"ended {report['status']}, should be {job.status}"
    if len(report["assets"]) != job.assets:
        yield f"{len(report['assets'])} files, should be {job.assets}"
    missing = [a["key"] for a in report["assets"] if not Path(a["path"]).is_file()]
    if missing:
        yield f"not in the store: {', '.join(missing)}"
    if len({a["sha256"] for a in report["assets"]}) != len(report["assets"]):
        yield "two files are the same"
    if job.text and not (report["text"] or "").strip():
        yield "no text"
    code = (report["error"] or {}).get("code")
    if code != job.code:
        yield f"error {code}, should be {job.code}"
    yield from _callback_complaints(job, report["callbacks"])
    asked = report["cancel_requested_step"]
    if job.cancel_at is not None and (asked is None or report["steps_done"] > asked + 1):
        yield f"cancelled at step {asked}, went on to {report['steps_done']}"


def _callback_complaints(job: DemoJob, callbacks: Sequence[Mapping[str, Any]]) -> Iterator[str]:
    if not all(callback["signature_valid"] for callback in callbacks):
        yield "a callback with a bad signature"
    terminal = [c["status"] for c in callbacks if c["status"] in ("completed", "failed")]
    wanted = "completed" if job.status == "completed" else "failed"
    if terminal != [wanted]:
        yield f"terminal callbacks {terminal}, should be one {wanted}"
