"""What is resident, what runs, in which order: a pure function of events, times and settings.

``Scheduler`` is the way in. Nothing here awaits, reads a clock, logs or knows a tensor.
"""

from scheduler.core import Scheduler
from scheduler.errors import (
    BadDecision,
    IllegalMove,
    InvariantBroken,
    LedgerError,
    ProtocolError,
    SchedulerError,
)
from scheduler.plan import Estimate
from scheduler.policy import WAIT, Decision, Place, Policy, Solitary
from scheduler.policy_priced import PricedWork
from scheduler.types import PolicySettings, SchedulerSettings
from scheduler.view import GroupView, JobView, View

__all__ = [
    "WAIT",
    "BadDecision",
    "Decision",
    "Estimate",
    "GroupView",
    "IllegalMove",
    "InvariantBroken",
    "JobView",
    "LedgerError",
    "Place",
    "Policy",
    "PolicySettings",
    "PricedWork",
    "ProtocolError",
    "Scheduler",
    "SchedulerError",
    "SchedulerSettings",
    "Solitary",
    "View",
]
