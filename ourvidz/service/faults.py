"""From the scheduler's faults to the wire's error codes: the one place where they are mapped."""

from __future__ import annotations

from ourvidz.jobs import ErrorCode, ImageWork, InvalidJob, JobError, Work
from scheduler.messages import Settle
from scheduler.types import Fault


class JobFailed(Exception):
    """The job at hand cannot go on; carries what it is answered with."""

    def __init__(self, error: JobError) -> None:
        super().__init__(error.message)
        self.error = error


def settle_error(settle: Settle, work: Work) -> JobError:
    """Why a part that the scheduler gave up has failed."""
    match settle.fault:
        case Fault.OUT_OF_MEMORY:
            code, retryable = ErrorCode.OUT_OF_MEMORY, True
        case Fault.TOO_LARGE:
            code, retryable = ErrorCode.OUT_OF_MEMORY, False
        case Fault.LOAD | Fault.UNKNOWN_COMPONENT:
            code, retryable = ErrorCode.MODEL_LOAD, True
        case _:
            code, retryable = _run_code(work), True
    return JobError(code, settle.detail or code.value, retryable)


def refusal_of(invalid: InvalidJob) -> str:
    """Why a payload never became a job, for who reads the dead letters."""
    return f"{invalid.error.code.value}: {invalid.error.message}"


def _run_code(work: Work) -> ErrorCode:
    img2img = isinstance(work, ImageWork) and work.strength is not None
    return ErrorCode.I2I_PIPELINE if img2img else ErrorCode.WORKER_UNAVAILABLE


CANCELLED = JobError(ErrorCode.CANCELLED, "the job was cancelled")
