"""The default policy: whatever is within the limits is executed."""

from __future__ import annotations

from ourvidz.jobs import JobError, JobSpec


class AdmitAll:
    """``ports.Admission``."""

    async def admit(self, spec: JobSpec) -> JobError | None:
        del spec
        return None
