"""The demo as a caller: submit, follow, cancel, over the real API."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import anyio
import httpx
import orjson

from ourvidz.cli.demo.jobs import DemoJob, queue_element
from ourvidz.cli.sse import events
from ourvidz.ports import JobSource


@dataclass(slots=True)
class Watched:
    """A job of the demo and what is known of it. ``share`` is its progress, 0..1."""

    job: DemoJob
    ended: anyio.Event = field(default_factory=anyio.Event)
    share: float = 0.0
    status: str = "waiting"
    seconds: float = 0.0
    resource: Mapping[str, Any] = field(default_factory=dict)


@dataclass(slots=True)
class DemoClient:
    http: httpx.AsyncClient
    source: JobSource
    watched: dict[str, Watched]

    async def live(self, watched: Watched) -> None:
        """Submit one job when its references exist, and follow it to its end."""
        job = watched.job
        for name in job.after:
            await self.watched[name].ended.wait()
        started = anyio.current_time()
        await self._submit(job)
        await self._follow(watched)
        watched.resource = await self._resource(job.id)
        watched.status = str(watched.resource["status"])
        watched.seconds = round(anyio.current_time() - started, 3)
        watched.share = 1.0
        watched.ended.set()

    async def _submit(self, job: DemoJob) -> None:
        if job.via == "api":
            answer = await self.http.post("/jobs", json=dict(job.body))
            answer.raise_for_status()
            return
        queue = "sdxl_queue"
        element = queue_element(job)
        await self.source.push(queue, element)

    async def _follow(self, watched: Watched) -> None:
        """Read the job's events until its last; a job in a queue is not known before its claim."""
        job = watched.job
        cancelled = False
        while True:
            async with self.http.stream("GET", f"/jobs/{job.id}/events") as response:
                if response.status_code == httpx.codes.NOT_FOUND:
                    await anyio.sleep(0.02)
                    continue
                async for event in events(response):
                    if event.name == "end":
                        return
                    data = orjson.loads(event.data)
                    watched.status = data.get("status", watched.status)
                    watched.share = data.get("progress", 100 * watched.share) / 100
                    due = job.cancel_at is not None and data.get("steps_done", 0) >= job.cancel_at
                    if due and not cancelled:
                        cancelled = True
                        await self.http.post(f"/jobs/{job.id}/cancel")

    async def _resource(self, job_id: str) -> Mapping[str, Any]:
        answer = await self.http.get(f"/jobs/{job_id}")
        answer.raise_for_status()
        resource: Mapping[str, Any] = answer.json()
        return resource
