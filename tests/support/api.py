"""The API over a service that is only memory, and a client that speaks to it without a network.

Payloads are parsed, events kept and resources written by the real parts; what a job does, the test
says: ``begin``, ``step`` and ``end``.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Collection, Iterable, Mapping, Sequence
from contextlib import asynccontextmanager
from dataclasses import replace
from functools import cache
from pathlib import Path
from typing import Any
from urllib.parse import unquote
from uuid import UUID, uuid5

import anyio
import httpx
from fastapi import FastAPI

from ourvidz.config import Settings, load
from ourvidz.http.app import create_api
from ourvidz.http.context import Context
from ourvidz.http.open_requests import OPEN_MAX, OpenRequests
from ourvidz.jobs import ErrorCode, InvalidJob, JobError, JobResult, JobState, TextResult
from ourvidz.ports import DeadLetter, JobRecord, ParkedAnswer
from ourvidz.service.engine import Place
from ourvidz.service.events import EventLog, Events
from ourvidz.service.metrics import Metrics
from ourvidz.service.service import IdConflict, SubmissionInvalid, TooLate
from ourvidz.service.views import ended_data, job_data, letter_data, parked_data, rejected_data
from ourvidz.wire import Rules, parse_object

REPOSITORY = Path(__file__).parents[2]
HOST = "127.0.0.1:7860"
TOKEN = "correct horse battery staple"
_SPACE = UUID("00000000-0000-4000-8000-0000000000aa")


def ident(name: str) -> str:
    """The same name gives the same id."""
    return str(uuid5(_SPACE, name))


def chat(**fields: Any) -> dict[str, Any]:
    """A small job that can be run."""
    return {"type": "chat", "messages": [{"role": "user", "content": "hello"}], **fields}


@cache
def settings_of(token: str | None = None, **flags: Any) -> Settings:
    environ = {} if token is None else {"OURVIDZ_TOKEN": token}
    return load(REPOSITORY / "config.toml", environ=environ, flags=flags)


@cache
def _application(token: str | None, **flags: Any) -> FastAPI:
    """Building one takes longer than most tests; what tests change is its context."""
    settings = settings_of(token, **flags)
    return create_api(FakeService(settings), settings)


class FakeService:
    """``ourvidz.http.facade.JobService`` in memory."""

    def __init__(self, settings: Settings) -> None:
        self.rules = Rules.from_settings(settings)
        self.records: dict[UUID, JobRecord] = {}
        self.refused: dict[str, InvalidJob] = {}
        self.trouble: str | None = None
        self.letters: list[DeadLetter] = []
        self.parked: list[ParkedAnswer] = []
        self.events = Events()
        self.metrics = Metrics()
        self.state = "ready"
        self.bodies: list[Mapping[str, Any]] = []
        self.defect: Exception | None = None
        self.submitted = anyio.Event()

    async def submit(self, body: Mapping[str, Any]) -> tuple[JobRecord, bool]:
        if self.defect is not None:
            raise self.defect
        self.bodies.append(dict(body))
        spec = parse_object(body, self.rules)
        if isinstance(spec, InvalidJob):
            raise SubmissionInvalid(spec.error)
        known = self.records.get(spec.id)
        if known is not None and known.spec.digest != spec.digest:
            raise IdConflict(str(spec.id))
        if known is None:
            self.records[spec.id] = JobRecord(
                spec=spec,
                queue="q",
                claim_id=None,
                state=JobState.QUEUED,
                attempts=0,
                created_at=1_700_000_000.0,
                started_at=None,
                completed_at=None,
                result=None,
            )
        self.submitted.set()
        return self.records[spec.id], known is None

    async def job(self, job_id: str, base_url: str) -> Mapping[str, Any] | None:
        record = self.record(job_id)
        if record is not None:
            return job_data(record, None, Place(), base_url)
        invalid = self.refused.get(job_id)
        return None if invalid is None else rejected_data(invalid, base_url)

    async def jobs(
        self, limit: int, before: UUID | None, status: str | None, base_url: str
    ) -> Sequence[Mapping[str, Any]]:
        ids = list(reversed(self.records))
        if before is not None:
            ids = ids[ids.index(before) + 1 :]
        found = [self.records[i] for i in ids if status in (None, self.records[i].state.status)]
        return [job_data(record, None, Place(), base_url) for record in found[:limit]]

    async def cancel(self, job_id: str) -> JobRecord | None:
        record = self.record(job_id)
        if record is None:
            return None
        if record.state in (JobState.COMPLETED, JobState.FAILED, JobState.RENDERED):
            raise TooLate(f"the job is {record.state.value}")
        if record.state is JobState.QUEUED:
            self.end(job_id, JobState.CANCELLED)
        return self.record(job_id)

    async def parked_callbacks(self, limit: int) -> Sequence[Mapping[str, Any]]:
        return [parked_data(each) for each in self.parked[:limit]]

    async def retry_callbacks(self, event_ids: Collection[str] | None, limit: int) -> int:
        known = [p for p in self.parked if event_ids is None or p.event_id in event_ids][:limit]
        self.parked = [p for p in self.parked if p not in known]
        return len(known)

    async def dead_letters(self, limit: int) -> Sequence[Mapping[str, Any]]:
        if self.defect is not None:
            raise self.defect
        return [letter_data(each) for each in self.letters[:limit]]

    async def log_of(self, job_id: str) -> EventLog | None:
        record = self.record(job_id)
        if record is None:
            return None
        if record.state.terminal:
            return self.events.get(record.spec.id)
        return self.events.open(record.spec.id)

    def health(self) -> Mapping[str, Any]:
        device = {"kind": "cpu", "broken_models": {"wan": "/secret/path: no such file"}}
        return {"status": self.state, "alarms": [], "device": device}

    def processes(self) -> Mapping[str, Any]:
        return {"jobs": [], "scheduler": {"running": []}}

    def refresh_gauges(self) -> None:
        self.metrics.waiting_jobs.set(len(self.records))

    def record(self, job_id: str) -> JobRecord | None:
        try:
            return self.records.get(UUID(job_id))
        except ValueError:
            return None

    def change(self, job_id: str, state: JobState, result: JobResult | None = None) -> JobRecord:
        """As the journal would, without an event."""
        key = UUID(job_id)
        self.records[key] = replace(self.records[key], state=state, result=result)
        return self.records[key]

    def begin(self, job_id: str) -> None:
        self.change(job_id, JobState.RUNNING)
        self.events.open(UUID(job_id)).publish("status", {"status": "processing"})

    def step(self, job_id: str, progress: float) -> None:
        self.events.open(UUID(job_id)).publish("progress", {"progress": progress})

    def end(self, job_id: str, state: JobState = JobState.COMPLETED) -> None:
        if state is JobState.COMPLETED:
            result = JobResult("completed", text=TextResult("hi", 3, 1, "stop"))
        else:
            error = JobError(ErrorCode.CANCELLED, "cancelled")
            result = JobResult("cancelled", error=error)
        record = self.change(job_id, state, result)
        self.events.open(UUID(job_id)).publish("end", ended_data(record))

    def forget_events(self) -> None:
        """As a restart, or time, would."""
        self.events = Events()


class Api:
    """The application, its service and a client on this machine."""

    def __init__(self, token: str | None = None, **flags: Any) -> None:
        self.settings = settings_of(token, **flags)
        self.service = FakeService(self.settings)
        self.app = _application(token, **flags)
        self.limit_open_requests(OPEN_MAX)
        self.client = self.client_with()

    def limit_open_requests(self, limit: int) -> None:
        self.app.state.context = Context(self.service, self.settings, OpenRequests(limit))

    @property
    def open_requests(self) -> OpenRequests:
        context: Context = self.app.state.context
        return context.open_requests

    def client_with(self, host: str = HOST, **headers: str) -> httpx.AsyncClient:
        transport = httpx.ASGITransport(app=self.app, raise_app_exceptions=False)
        return httpx.AsyncClient(
            transport=transport, base_url=f"http://{host}", headers=headers, timeout=5
        )

    async def submit(self, **fields: Any) -> str:
        answer = await self.client.post("/jobs", json=chat(**fields))
        assert answer.status_code == 202, answer.text
        return str(answer.json()["id"])


def problem(answer: httpx.Response, status: int, code: str) -> dict[str, Any]:
    """The problem details of ``answer``, which must have the one shape that errors have."""
    assert answer.status_code == status, answer.text
    assert answer.headers["content-type"] == "application/problem+json"
    body: dict[str, Any] = answer.json()
    assert body["code"] == code
    assert body["status"] == status
    assert body["type"] == "urn:ourvidz:problem:" + code.lower().replace("_", "-")
    assert unquote(body["instance"]) == answer.request.url.path
    assert body["title"]
    assert body["detail"]
    assert isinstance(body["retryable"], bool)
    known = {"type", "title", "status", "detail", "instance", "code", "field", "retryable", "hint"}
    assert body.keys() <= known
    return body


class Exchange:
    """One request straight to the application: the test is the server and the client.

    ``chunks`` is the body; the next chunk is taken when the application asks for it. ``leave``
    disconnects.
    """

    def __init__(
        self,
        app: FastAPI,
        method: str,
        path: str,
        headers: Mapping[str, str] | None = None,
        chunks: Iterable[bytes] = (),
    ) -> None:
        self._app = app
        given = {"host": HOST, **(headers or {})}
        self._scope: dict[str, Any] = {
            "type": "http",
            "asgi": {"version": "3.0", "spec_version": "2.3"},
            "http_version": "1.1",
            "method": method,
            "scheme": "http",
            "path": path,
            "raw_path": path.encode(),
            "query_string": b"",
            "root_path": "",
            "headers": [(k.lower().encode(), v.encode()) for k, v in given.items()],
            "client": ("127.0.0.1", 1),
            "server": ("127.0.0.1", 7860),
        }
        self._chunks = iter(chunks)
        self._left = anyio.Event()
        self._ready = True
        self._ended = False
        self._changed = anyio.Condition()
        self.taken = 0
        self.status = 0
        self.headers: dict[str, str] = {}
        self.body = b""
        self.complete = False

    async def run(self) -> None:
        await self._app(self._scope, self._receive, self._send)

    def drop_header(self, name: str) -> None:
        kept = [pair for pair in self._scope["headers"] if pair[0] != name.encode()]
        self._scope["headers"] = kept

    def leave(self) -> None:
        self._left.set()

    def stall(self) -> None:
        """Read nothing more."""
        self._ready = False

    async def until(self, part: bytes) -> None:
        """Return once ``part`` has been received."""
        async with self._changed:
            while part not in self.body:
                await self._changed.wait()

    async def until_started(self) -> None:
        async with self._changed:
            while not self.status:
                await self._changed.wait()

    async def _receive(self) -> dict[str, Any]:
        chunk = next(self._chunks, None)
        if chunk is not None:
            self.taken += 1
            return {"type": "http.request", "body": chunk, "more_body": True}
        if not self._ended:
            self._ended = True
            return {"type": "http.request", "body": b"", "more_body": False}
        await self._left.wait()
        return {"type": "http.disconnect"}

    async def _send(self, message: Mapping[str, Any]) -> None:
        if not self._ready:
            await anyio.sleep_forever()
        async with self._changed:
            if message["type"] == "http.response.start":
                self.status = message["status"]
                self.headers = {k.decode(): v.decode() for k, v in message["headers"]}
            else:
                self.body += message["body"]
                self.complete = not message.get("more_body", False)
            self._changed.notify_all()


@asynccontextmanager
async def running(exchange: Exchange) -> AsyncIterator[Exchange]:
    """The exchange beside the block; it must have ended when the block is left."""
    with anyio.fail_after(10):
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(exchange.run)
            yield exchange
