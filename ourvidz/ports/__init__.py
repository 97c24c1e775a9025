"""What the service needs of the outside, as Protocols. Adapters meet them; ``app`` joins them.

Every method may be cancelled at any await unless its docstring says otherwise.
"""

from ourvidz.ports.clock import Clock
from ourvidz.ports.delivery import (
    AssetStore,
    Delivered,
    Notifier,
    NotifyRejected,
    NotifyUnavailable,
    StoreDenied,
    StoreRejected,
    StoreUnavailable,
)
from ourvidz.ports.device import (
    STATE_FOLDER,
    Executor,
    ImageProduced,
    Part,
    PeakMeter,
    Picture,
    Plan,
    PlanRejected,
    RunNotice,
    RunSink,
    StateSaved,
    TextChunk,
    TextDone,
    VideoProduced,
)
from ourvidz.ports.entry import Admission, ReferenceFailed, References
from ourvidz.ports.journal import Answer, JobRecord, Journal, Known, ParkedAnswer
from ourvidz.ports.queues import (
    LETTER_BYTES_SHOWN,
    Claimed,
    DeadLetter,
    JobSource,
    PopSide,
    QueueError,
    QueueFull,
    QueueRefused,
    QueueUnavailable,
    Standing,
)
from ourvidz.ports.records import Measurements, Recorder, Series
from ourvidz.ports.rendering import DiskRefused, Renderer, RenderFailed

__all__ = [
    "LETTER_BYTES_SHOWN",
    "STATE_FOLDER",
    "Admission",
    "Answer",
    "AssetStore",
    "Claimed",
    "Clock",
    "DeadLetter",
    "Delivered",
    "DiskRefused",
    "Executor",
    "ImageProduced",
    "JobRecord",
    "JobSource",
    "Journal",
    "Known",
    "Measurements",
    "Notifier",
    "NotifyRejected",
    "NotifyUnavailable",
    "ParkedAnswer",
    "Part",
    "PeakMeter",
    "Picture",
    "Plan",
    "PlanRejected",
    "PopSide",
    "QueueError",
    "QueueFull",
    "QueueRefused",
    "QueueUnavailable",
    "Recorder",
    "ReferenceFailed",
    "References",
    "RenderFailed",
    "Renderer",
    "RunNotice",
    "RunSink",
    "Series",
    "Standing",
    "StateSaved",
    "StoreDenied",
    "StoreRejected",
    "StoreUnavailable",
    "TextChunk",
    "TextDone",
    "VideoProduced",
]
