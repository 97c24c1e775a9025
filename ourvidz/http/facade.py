"""What the API needs of the service, so that it can be tested without one."""

from __future__ import annotations

from collections.abc import AsyncGenerator, Collection, Mapping, Sequence
from typing import Any, Protocol
from uuid import UUID

from prometheus_client import CollectorRegistry

from ourvidz.ports import JobRecord
from ourvidz.service.events import JobEvent


class Log(Protocol):
    """One job's events; ``ourvidz.service.events.EventLog`` says what each of these means."""

    @property
    def ended(self) -> bool: ...

    @property
    def last_id(self) -> int: ...

    def covers(self, last_id: int) -> bool: ...

    def follow(self, last_id: int) -> AsyncGenerator[JobEvent, None]: ...


class Metrics(Protocol):
    @property
    def registry(self) -> CollectorRegistry: ...


class JobService(Protocol):
    """``ourvidz.service.service.Service``, as far as the API uses it."""

    @property
    def metrics(self) -> Metrics: ...

    @property
    def trouble(self) -> str | None: ...

    async def submit(self, body: Mapping[str, Any]) -> tuple[JobRecord, bool]: ...

    async def job(self, job_id: str, base_url: str) -> Mapping[str, Any] | None: ...

    async def jobs(
        self, limit: int, before: UUID | None, status: str | None, base_url: str
    ) -> Sequence[Mapping[str, Any]]: ...

    async def cancel(self, job_id: str) -> JobRecord | None: ...

    async def parked_callbacks(self, limit: int) -> Sequence[Mapping[str, Any]]: ...

    async def retry_callbacks(self, event_ids: Collection[str] | None, limit: int) -> int: ...

    async def dead_letters(self, limit: int) -> Sequence[Mapping[str, Any]]: ...

    async def log_of(self, job_id: str) -> Log | None: ...

    def health(self) -> Mapping[str, Any]: ...

    def processes(self) -> Mapping[str, Any]: ...

    def refresh_gauges(self) -> None: ...
