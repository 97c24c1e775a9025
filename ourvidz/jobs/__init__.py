"""The domain: what is asked, what state it is in, what came out. No I/O."""

from ourvidz.jobs.result import Asset, JobResult, TextResult
from ourvidz.jobs.spec import (
    ChatMessage,
    ErrorCode,
    ImageWork,
    InvalidJob,
    JobError,
    JobSpec,
    JobType,
    Reference,
    ReferenceMode,
    TextModel,
    TextWork,
    VideoWork,
    Work,
    may_share,
    pictures_of,
)
from ourvidz.jobs.state import TRANSITIONS, IllegalTransition, JobState, check_transition

__all__ = [
    "TRANSITIONS",
    "Asset",
    "ChatMessage",
    "ErrorCode",
    "IllegalTransition",
    "ImageWork",
    "InvalidJob",
    "JobError",
    "JobResult",
    "JobSpec",
    "JobState",
    "JobType",
    "Reference",
    "ReferenceMode",
    "TextModel",
    "TextResult",
    "TextWork",
    "VideoWork",
    "Work",
    "check_transition",
    "may_share",
    "pictures_of",
]
